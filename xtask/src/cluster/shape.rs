//! What a cluster's network is made of. Each part is chosen apart from the others; the default is
//! the plainest of all.

use std::net::IpAddr;
use std::path::Path;

/// The network of all nodes of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// How pods hang on their node.
    pub pods: PodLink,
    /// How nodes reach each other's pods.
    pub nodes: NodeLink,
    /// How nodes hang on the router.
    pub uplink: Uplink,
    /// Which pods' packets the CNI plugin masquerades.
    pub masquerade: Masquerade,
    /// Which families nodes and pods have; router and client always have both.
    pub families: Families,
    /// What devices do for the stack.
    pub offloads: Offloads,
}

impl Shape {
    /// Without the family that the kernel lacks.
    pub(crate) fn on_this_kernel(self) -> Self {
        let families = match (self.families, Families::of_kernel()) {
            (Families::Both, only) => only,
            (asked, _) => asked,
        };
        Self { families, ..self }
    }
}

/// How pods hang on their node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodLink {
    /// Each on a veth with a route of its own.
    #[default]
    Routed,
    /// All on the bridge `cni0`, which is their gateway; netfilter sees routed packets only.
    Bridge,
    /// As [`PodLink::Bridge`]; netfilter sees switched packets, too (`bridge-nf-call-iptables`).
    FilteredBridge,
}

/// How nodes reach each other's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeLink {
    /// The router knows which node has which.
    #[default]
    Routes,
    /// As flannel does: `vxlan0`, with permanent neighbours.
    Vxlan,
    /// As Calico does: `tunl0` for IPv4; IPv6 goes by the router.
    Ipip,
    /// `wg0`, which has no Ethernet header.
    WireGuard,
}

/// How nodes hang on the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uplink {
    /// By `eth0`.
    #[default]
    Plain,
    /// By VLAN 10 on `eth0`.
    Vlan,
    /// By `bond0`, of two devices.
    Bond,
    /// By `eth0`, and by `eth1` with an address of its own: the other nodes' pods are reached by the
    /// second, and what comes from its address leaves by it (`ip rule from`).
    Two,
}

/// Which packets of pods the CNI plugin masquerades.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masquerade {
    /// From the node's pods to whatever is outside of the cluster.
    #[default]
    Outside,
    /// Nobody's: there are no rules at all, and nothing tracks connections.
    Never,
    /// As flannel does: also from outside of the cluster to other nodes' pods.
    Both,
}

/// Address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// IPv4; IPv6 is switched off by `disable_ipv6`.
    V4,
    /// IPv6; there are no IPv4 addresses.
    V6,
}

/// What the devices `eth0` of nodes, pods and client do for the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offloads {
    /// What they do by themselves.
    #[default]
    Kept,
    /// They send no packets whose checksum is still to be finished.
    NoSums,
    /// They send no packets that are still to be cut.
    NoSegmentation,
    /// They merge what they receive.
    Merging,
}

impl Offloads {
    /// What `ethtool -K` is told, if anything.
    pub(crate) fn features(self) -> &'static [&'static str] {
        match self {
            Self::Kept => &[],
            Self::NoSums => &["tx", "off"],
            Self::NoSegmentation => &["tso", "off", "gso", "off"],
            Self::Merging => &["gro", "on"],
        }
    }
}

impl NodeLink {
    /// The device that carries pods' packets to other nodes; none if it is the uplink.
    #[must_use]
    pub fn device(self) -> Option<&'static str> {
        match self {
            Self::Routes => None,
            Self::Vxlan => Some("vxlan0"),
            Self::Ipip => Some("tunl0"),
            Self::WireGuard => Some("wg0"),
        }
    }

    /// What a pod may send at most, so that the outer headers fit.
    pub(crate) fn mtu(self) -> u16 {
        match self {
            Self::Routes => 1500,
            Self::Vxlan => 1450,
            Self::Ipip => 1480,
            Self::WireGuard => 1420,
        }
    }
}

impl Uplink {
    /// The device with the node's address.
    #[must_use]
    pub fn device(self) -> &'static str {
        match self {
            Self::Plain | Self::Two => "eth0",
            Self::Vlan => "eth0.10",
            Self::Bond => "bond0",
        }
    }
}

impl Families {
    /// Those that the kernel has: it may have been started with `ipv6.disable=1`.
    pub(crate) fn of_kernel() -> Self {
        match Path::new("/proc/sys/net/ipv6").exists() {
            true => Self::Both,
            false => Self::V4,
        }
    }

    /// Whether an address is of one of them.
    #[must_use]
    pub fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    /// A batch for `ip` without the lines that name an address of another family.
    pub(crate) fn only(self, batch: &str) -> String {
        let address = |word: &str| word.split('/').next()?.parse::<IpAddr>().ok();
        let is_ours = |line: &&str| {
            let mut addresses = line.split_whitespace().filter_map(address);
            addresses.all(|address| self.has(address))
        };
        let lines = batch.lines().filter(is_ours);
        lines.map(|line| format!("{line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_loses_the_lines_of_the_family_that_is_not_there() {
        let batch =
            "link set eth0 up\naddress add 10.0.0.1/24 dev eth0\nroute add default via fd00::1\n";
        assert_eq!(Families::Both.only(batch), batch);
        let v4 = "link set eth0 up\naddress add 10.0.0.1/24 dev eth0\n";
        assert_eq!(Families::V4.only(batch), v4);
        let v6 = "link set eth0 up\nroute add default via fd00::1\n";
        assert_eq!(Families::V6.only(batch), v6);
    }
}
