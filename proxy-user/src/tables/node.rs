//! The node's row of `CONFIG`.

use crate::frontend::{Cidr, NodeContext};
use proxy_common::{
    ABI_VERSION, AddrV4, AddrV6, Address, NodeConfig, NodeFamilyV4, NodeFamilyV6, Port,
    SocketOptions,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// What the programs at cgroups must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// The kernel's cookie of the node's own network namespace; 0: not known, the machine's first one is meant.
    pub host_netns: u64,
    /// What they do, besides what they always do.
    pub options: SocketOptions,
}

/// What the programs must know about the node. Of several ranges of one family the first counts.
pub fn node_config(
    node: &NodeContext,
    cluster_cidrs: &[Cidr],
    snat_ports: &RangeInclusive<u16>,
    sockets: Sockets,
) -> NodeConfig {
    let (cidr_v4, mask_v4) = v4(cluster_cidrs).unwrap_or((UNSET_V4, UNSET_V4));
    let (cidr_v6, mask_v6) = v6(cluster_cidrs).unwrap_or((UNSET_V6, UNSET_V6));
    NodeConfig {
        abi_version: ABI_VERSION,
        snat_port_min: Port::new(*snat_ports.start()),
        snat_port_max: Port::new(*snat_ports.end()),
        host_netns: sockets.host_netns,
        socket_options: sockets.options,
        v4: NodeFamilyV4 {
            masquerade: AddrV4::new(node.primary_v4.unwrap_or(UNSET_V4)),
            cluster_cidr: AddrV4::new(cidr_v4),
            cluster_mask: AddrV4::new(mask_v4),
        },
        v6: NodeFamilyV6 {
            masquerade: AddrV6::new(node.primary_v6.unwrap_or(UNSET_V6)),
            cluster_cidr: AddrV6::new(cidr_v6),
            cluster_mask: AddrV6::new(mask_v6),
        },
    }
}

const UNSET_V4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const UNSET_V6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// Network and mask.
fn v4(cidrs: &[Cidr]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    cidrs.iter().find_map(|cidr| match cidr.address() {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(cidr.prefix().into()).unwrap_or(0);
            Some((
                Ipv4Addr::from(u32::from(address) & !host),
                Ipv4Addr::from(!host),
            ))
        }
        IpAddr::V6(_) => None,
    })
}

/// Network and mask.
fn v6(cidrs: &[Cidr]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    cidrs.iter().find_map(|cidr| match cidr.address() {
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(cidr.prefix().into()).unwrap_or(0);
            Some((
                Ipv6Addr::from(u128::from(address) & !host),
                Ipv6Addr::from(!host),
            ))
        }
        IpAddr::V4(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_range_of_each_family_counts_without_its_host_bits() {
        let node = NodeContext {
            primary_v4: Some(Ipv4Addr::new(192, 168, 0, 1)),
            ..NodeContext::default()
        };
        let cidrs = ["fd00:1::5/32", "10.244.3.1/16", "10.9.0.0/16"].map(|it| it.parse().unwrap());
        let config = node_config(&node, &cidrs, &(40000..=49999), Sockets::default());
        assert_eq!(config.v4.masquerade.ip().to_string(), "192.168.0.1");
        assert_eq!(config.v4.cluster_cidr.ip().to_string(), "10.244.0.0");
        assert_eq!(config.v4.cluster_mask.ip().to_string(), "255.255.0.0");
        assert_eq!(config.v6.masquerade.ip().to_string(), "::");
        assert_eq!(config.v6.cluster_cidr.ip().to_string(), "fd00:1::");
        assert_eq!(config.v6.cluster_mask.ip().to_string(), "ffff:ffff::");
        assert_eq!(config.snat_port_max.number(), 49999);
    }

    #[test]
    fn whole_and_single_address_ranges_have_their_masks() {
        for (text, mask) in [("1.2.3.4/0", "0.0.0.0"), ("1.2.3.4/32", "255.255.255.255")] {
            let config = node_config(
                &NodeContext::default(),
                &[text.parse().unwrap()],
                &(1..=2),
                Sockets::default(),
            );
            assert_eq!(config.v4.cluster_mask.ip().to_string(), mask);
        }
    }
}
