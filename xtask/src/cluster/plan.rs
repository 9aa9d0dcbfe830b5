//! The addresses of the cluster: which number belongs to whom.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Addresses of all pods: what the agent is told by `--cluster-cidr`.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16,fd00:10:244::/48";
/// Pod addresses, IPv4.
pub const CLUSTER_CIDR_V4: &str = "10.244.0.0/16";
/// Pod addresses, IPv6.
pub const CLUSTER_CIDR_V6: &str = "fd00:10:244::/48";
/// Addresses for Services, IPv4. No route leads there: only the proxy knows them.
pub const SERVICE_CIDR_V4: &str = "10.96.0.0/16";
/// Addresses for Services, IPv6.
pub const SERVICE_CIDR_V6: &str = "fd00:10:96::/112";
/// The Service by which pods find the API server: the first address for Services.
pub const KUBERNETES_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The external client.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The external client.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// The router as the external client sees it.
pub(crate) const CLIENT_GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The router as the external client sees it.
pub(crate) const CLIENT_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Addresses of all second uplinks, IPv4.
pub(crate) const SECOND_CIDR_V4: &str = "172.29.0.0/16";
/// Addresses of all second uplinks, IPv6.
pub(crate) const SECOND_CIDR_V6: &str = "fd00:172:29::/48";

/// The largest cluster: node numbers stay one digit, so decimal and hexadecimal addresses look alike.
pub const MAX_NODES: u8 = 9;

/// The number among a node's pods of its end of a tunnel.
const TUNNEL: u8 = 250;

/// Everything that follows from a node's number, which starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePlan {
    number: u8,
}

impl NodePlan {
    pub(crate) fn new(number: u8) -> Self {
        Self { number }
    }

    /// The node's number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.number
    }

    /// `node1`, `node2`, ...
    #[must_use]
    pub fn name(self) -> String {
        format!("node{}", self.number)
    }

    /// The host with this number on the node's subnet: 1 is the router, 2 the node.
    #[must_use]
    pub fn subnet_v4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, self.number, host)
    }

    /// As [`NodePlan::subnet_v4`], IPv6.
    #[must_use]
    pub fn subnet_v6(self, host: u8) -> Ipv6Addr {
        let [number, host] = [self.number, host].map(u16::from);
        Ipv6Addr::new(0xfd00, 0x172, 0x31, number, 0, 0, 0, host)
    }

    /// As [`NodePlan::subnet_v4`], of the second uplink.
    #[must_use]
    pub fn second_v4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 29, self.number, host)
    }

    /// As [`NodePlan::subnet_v6`], of the second uplink.
    #[must_use]
    pub fn second_v6(self, host: u8) -> Ipv6Addr {
        let [number, host] = [self.number, host].map(u16::from);
        Ipv6Addr::new(0xfd00, 0x172, 0x29, number, 0, 0, 0, host)
    }

    /// The address of the node's end of a tunnel: one of its pods' that no pod has.
    #[must_use]
    pub fn tunnel_v4(self) -> Ipv4Addr {
        self.pod_v4(TUNNEL)
    }

    /// As [`NodePlan::tunnel_v4`], IPv6.
    #[must_use]
    pub fn tunnel_v6(self) -> Ipv6Addr {
        self.pod_v6(TUNNEL)
    }

    /// The pod with this number on the node; 1 is the gateway, 0 the network itself.
    #[must_use]
    pub fn pod_v4(self, pod: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number, pod)
    }

    /// As [`NodePlan::pod_v4`], IPv6.
    #[must_use]
    pub fn pod_v6(self, pod: u8) -> Ipv6Addr {
        let [number, pod] = [self.number, pod].map(u16::from);
        Ipv6Addr::new(0xfd00, 0x10, 0x244, number, 0, 0, 0, pod)
    }

    /// The node's pod addresses, IPv4.
    #[must_use]
    pub fn pod_cidr_v4(self) -> String {
        format!("{}/24", self.pod_v4(0))
    }

    /// The node's pod addresses, IPv6.
    #[must_use]
    pub fn pod_cidr_v6(self) -> String {
        format!("{}/64", self.pod_v6(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_the_number_of_the_node() {
        let plan = NodePlan::new(3);
        assert_eq!(plan.name(), "node3");
        assert_eq!(plan.subnet_v4(2).to_string(), "172.31.3.2");
        assert_eq!(plan.subnet_v6(2).to_string(), "fd00:172:31:3::2");
        assert_eq!(plan.pod_cidr_v4(), "10.244.3.0/24");
        assert_eq!(plan.pod_cidr_v6(), "fd00:10:244:3::/64");
    }
}
