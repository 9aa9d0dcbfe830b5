//! The fast lane: all that works through a node's stack works past it.

use crate::matrix::{BRIDGE, FLANNEL, PLAIN};
use crate::shaped::{Lane, Shaped};
use xtask::cluster::{Families, NodeLink, Offloads, Shape, Uplink};

macro_rules! fast {
    ($($test:ident: $shape:expr;)*) => {
        $(
            #[test]
            fn $test() {
                Shaped::by(Lane::Fast, $shape).expect_matrix();
            }
        )*
    };
}

fast! {
    it_carries_pods_on_routed_veths: PLAIN;
    it_carries_pods_on_a_bridge: BRIDGE;
    it_carries_beside_flannels_masquerade: FLANNEL;
    it_carries_over_ipip: Shape { nodes: NodeLink::Ipip, ..PLAIN };
    it_carries_over_wireguard: Shape { nodes: NodeLink::WireGuard, ..PLAIN };
    it_carries_on_a_vlan: Shape { uplink: Uplink::Vlan, ..PLAIN };
    it_carries_on_a_bond: Shape { uplink: Uplink::Bond, ..PLAIN };
    it_carries_with_two_uplinks: Shape { uplink: Uplink::Two, ..PLAIN };
    it_carries_where_sums_are_complete: Shape { offloads: Offloads::NoSums, ..PLAIN };
    it_carries_without_segmentation: Shape { offloads: Offloads::NoSegmentation, ..PLAIN };
    it_carries_where_packets_are_merged: Shape { offloads: Offloads::Merging, ..PLAIN };
    it_carries_without_ipv6_addresses: Shape { families: Families::V4, ..PLAIN };
}
