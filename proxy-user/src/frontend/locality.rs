//! Service ports that have endpoints, but none on this node, although a traffic policy asks for one.

use super::{IpFamily, ServicePort};

/// How many of a Service's ports in one family lack an endpoint on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalGaps {
    /// For clients inside of the cluster.
    pub internal: usize,
    /// For clients outside.
    pub external: usize,
}

/// Counts them. Ports without any endpoint don't count: they lack more than a local one.
pub fn local_gaps(ports: &[ServicePort], family: IpFamily) -> LocalGaps {
    let mut gaps = LocalGaps::default();
    let of_family = ports.iter().filter(|port| port.family == family);
    for port in of_family.filter(|port| has_gap(port)) {
        gaps.internal += usize::from(port.stays_local.internal);
        gaps.external += usize::from(port.stays_local.external);
    }
    gaps
}

fn has_gap(port: &ServicePort) -> bool {
    let mut backends = port.backends.iter();
    backends.clone().any(|it| it.in_cluster) && !backends.any(|it| it.in_local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::{Backend, StaysLocal};

    const BOTH: StaysLocal = StaysLocal {
        internal: true,
        external: true,
    };
    /// Whether it answers under policy Local, and under policy Cluster.
    const HERE: (bool, bool) = (true, true);
    const ELSEWHERE: (bool, bool) = (false, true);
    const LEAVING_HERE: (bool, bool) = (true, false);
    const NOWHERE: (bool, bool) = (false, false);

    fn gaps(stays_local: StaysLocal, backends: &[(bool, bool)], family: IpFamily) -> [usize; 2] {
        let backend = |&(in_local, in_cluster): &(bool, bool)| Backend {
            address: [10, 244, 1, 1].into(),
            port: 80,
            local: in_local,
            in_local,
            in_cluster,
        };
        let port = ServicePort {
            name: String::new(),
            family: IpFamily::V4,
            frontends: Vec::new(),
            backends: backends.iter().map(backend).collect(),
            stays_local,
            affinity: None,
            source_ranges: None,
            closes_tcp: false,
        };
        let gaps = local_gaps(&[port], family);
        [gaps.internal, gaps.external]
    }

    #[test]
    fn ports_with_endpoints_elsewhere_only_are_counted_by_policy() {
        let v4 = |stays_local, backends| gaps(stays_local, backends, IpFamily::V4);
        assert_eq!(v4(BOTH, &[ELSEWHERE]), [1, 1]);
        let external = StaysLocal {
            internal: false,
            ..BOTH
        };
        assert_eq!(v4(external, &[ELSEWHERE]), [0, 1]);
        assert_eq!(v4(BOTH, &[]), [0, 0]);
        assert_eq!(v4(BOTH, &[NOWHERE]), [0, 0]);
        assert_eq!(v4(BOTH, &[ELSEWHERE, HERE]), [0, 0]);
        assert_eq!(v4(BOTH, &[ELSEWHERE, LEAVING_HERE]), [0, 0]);
        assert_eq!(gaps(BOTH, &[ELSEWHERE], IpFamily::V6), [0, 0]);
    }
}
