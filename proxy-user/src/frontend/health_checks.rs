//! What load balancers are told at health check node ports, and at which addresses.

use super::{IpFamily, NodeContext, NodePortAddresses};
use crate::cluster::ServiceView;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A Service's health check on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port at which load balancers ask.
    pub port: u16,
    /// `metadata.uid` of the Service; empty where objects have none.
    pub uid: Box<str>,
    /// At `family as usize`: how many addresses have an endpoint that is here and ready; `None` for a family that
    /// the Service does not have.
    pub local_endpoints: [Option<usize>; 2],
}

/// The health check of a Service with so many local and ready addresses of IPv4 and IPv6.
pub fn health_check(view: &ServiceView, local_ready: [usize; 2]) -> Option<HealthCheck> {
    let asked = view.health_check.as_ref()?;
    let has = |family| {
        view.cluster_ips
            .iter()
            .any(|ip| IpFamily::of(*ip) == family)
    };
    let local = |family| has(family).then_some(local_ready[family as usize]);
    Some(HealthCheck {
        port: asked.number,
        uid: asked.uid.clone(),
        local_endpoints: IpFamily::ALL.map(local),
    })
}

/// Where health checks are answered: wherever NodePorts are served; at the unspecified address of a family of which
/// all are.
pub fn health_check_addresses(node: &NodeContext, node_ports: &NodePortAddresses) -> Vec<IpAddr> {
    let of_family = |family| match (node_ports.takes_all(family), family) {
        (true, IpFamily::V4) => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        (true, IpFamily::V6) => vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        (false, _) => {
            let served = node.node_port_addresses.iter().copied();
            served.filter(|ip| IpFamily::of(*ip) == family).collect()
        }
    };
    IpFamily::ALL.into_iter().flat_map(of_family).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{HealthCheckPort, Outside, ServiceName, StaysLocal};

    fn view(cluster_ips: &[&str], health_check: Option<HealthCheckPort>) -> ServiceView {
        ServiceView {
            name: ServiceName::new("default", "web"),
            cluster_ips: cluster_ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ports: Vec::new(),
            outside: Outside::default(),
            affinity: None,
            closes_tcp: false,
            stays_local: StaysLocal::default(),
            health_check,
            skipped: Vec::new(),
        }
    }

    #[test]
    fn a_family_without_cluster_address_is_not_asked_after() {
        let port = HealthCheckPort {
            number: 32000,
            uid: "u".into(),
        };
        let both = ["10.96.0.1", "fd00::1"];
        let of = |ips: &[&str]| health_check(&view(ips, Some(port.clone())), [3, 0]);
        assert_eq!(of(&both).unwrap().local_endpoints, [Some(3), Some(0)]);
        assert_eq!(of(&both[1..]).unwrap().local_endpoints, [None, Some(0)]);
        assert_eq!(health_check(&view(&both, None), [3, 0]), None);
    }

    #[test]
    fn they_are_answered_where_node_ports_are() {
        let local = [
            ("192.0.2.1", "eth0"),
            ("198.51.100.1", "eth1"),
            ("fd00::1", "eth0"),
        ];
        let local = local.map(|(ip, device)| (ip.parse().unwrap(), device.to_owned()));
        let at = |list: &str| {
            let node_ports = list.parse().unwrap();
            let own = ["192.0.2.1".parse().unwrap()];
            let node = NodeContext::of(own, local.clone().into(), &node_ports);
            let addresses = health_check_addresses(&node, &node_ports).into_iter();
            addresses.map(|ip| ip.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(at("primary"), ["192.0.2.1"]);
        assert_eq!(at("all"), ["0.0.0.0", "::"]);
        assert_eq!(at("198.51.100.0/24"), ["198.51.100.1", "::"]);
        assert_eq!(at("0.0.0.0/0,fd00::/8"), ["0.0.0.0", "fd00::1"]);
        assert_eq!(
            at("192.0.2.0/24,198.51.100.0/24,::/0"),
            ["192.0.2.1", "198.51.100.1", "::"]
        );
    }
}
