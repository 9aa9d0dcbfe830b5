//! Service ports that have endpoints, but none on this node, although a traffic policy asks for one.

use crate::cluster::{Endpoint, IpFamily, PortView, ServiceView};

/// How many of a Service's ports in one family lack an endpoint on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalGaps {
    /// For clients inside of the cluster.
    pub internal: usize,
    /// For clients outside.
    pub external: usize,
}

/// Counts them. Ports without any endpoint don't count: they lack more than a local one.
pub fn local_gaps(view: &ServiceView, family: IpFamily) -> LocalGaps {
    let policies = view.stays_local;
    let in_family = view
        .cluster_ips
        .iter()
        .any(|ip| IpFamily::of(*ip) == family);
    if !in_family || !(policies.internal || policies.external) {
        return LocalGaps::default();
    }
    let ports = view.ports.iter();
    let gaps = ports.filter(|port| has_gap(port, family)).count();
    LocalGaps {
        internal: gaps * usize::from(policies.internal),
        external: gaps * usize::from(policies.external),
    }
}

fn has_gap(port: &PortView, family: IpFamily) -> bool {
    let of_family = |it: &&Endpoint| IpFamily::of(it.address) == family;
    let endpoints = port.endpoints.iter().filter(of_family);
    let mut usable = endpoints.filter(|it| it.is_usable()).peekable();
    usable.peek().is_some() && !usable.any(|it| it.local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Protocol, ServiceName, StaysLocal};

    const BOTH: StaysLocal = StaysLocal {
        internal: true,
        external: true,
    };

    fn endpoint(local: bool, ready: bool) -> Endpoint {
        Endpoint {
            address: "10.244.1.1".parse().unwrap(),
            port: 80,
            ready,
            serving: true,
            terminating: false,
            local,
        }
    }

    fn gaps(stays_local: StaysLocal, endpoints: &[Endpoint], family: IpFamily) -> [usize; 2] {
        let port = PortView {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            endpoints: endpoints.to_vec(),
        };
        let view = ServiceView {
            name: ServiceName::new("default", "web"),
            cluster_ips: vec!["10.96.0.1".parse().unwrap()],
            ports: vec![port],
            closes_tcp: false,
            stays_local,
            health_check: None,
            skipped: Vec::new(),
        };
        let gaps = local_gaps(&view, family);
        [gaps.internal, gaps.external]
    }

    #[test]
    fn ports_with_endpoints_elsewhere_only_are_counted_by_policy() {
        let elsewhere = [endpoint(false, true)];
        assert_eq!(gaps(BOTH, &elsewhere, IpFamily::V4), [1, 1]);
        let external = StaysLocal {
            internal: false,
            ..BOTH
        };
        assert_eq!(gaps(external, &elsewhere, IpFamily::V4), [0, 1]);
        assert_eq!(gaps(BOTH, &elsewhere, IpFamily::V6), [0, 0]);
        assert_eq!(gaps(BOTH, &[], IpFamily::V4), [0, 0]);
        let mixed = [endpoint(false, true), endpoint(true, true)];
        assert_eq!(gaps(BOTH, &mixed, IpFamily::V4), [0, 0]);
    }

    #[test]
    fn one_on_its_way_out_that_still_answers_is_as_good() {
        let leaving = Endpoint {
            terminating: true,
            ..endpoint(true, false)
        };
        let endpoints = [endpoint(false, true), leaving];
        assert_eq!(gaps(BOTH, &endpoints, IpFamily::V4), [0, 0]);
        let unready = [endpoint(false, true), endpoint(true, false)];
        assert_eq!(gaps(BOTH, &unready, IpFamily::V4), [1, 1]);
    }
}
