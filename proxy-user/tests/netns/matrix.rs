//! The matrix: in networks of every shape, every kind of client reaches every kind of backend.

use crate::shaped::Shaped;
use xtask::cluster::{Families, Masquerade, NodeLink, Offloads, PodLink, Shape, Uplink};

/// A test, and the network in which it asks.
pub(crate) struct Row {
    pub(crate) test: &'static str,
    pub(crate) network: &'static str,
    pub(crate) shape: Shape,
}

/// One test for each shape, and the list of them.
macro_rules! matrix {
    ($($test:ident: $network:literal, $shape:expr;)*) => {
        pub(crate) const ROWS: &[Row] = &[$(
            Row { test: stringify!($test), network: $network, shape: $shape },
        )*];

        $(
            #[test]
            fn $test() {
                Shaped::new($shape).expect_matrix();
            }
        )*
    };
}

pub(crate) const PLAIN: Shape = Shape {
    pods: PodLink::Routed,
    nodes: NodeLink::Routes,
    uplink: Uplink::Plain,
    masquerade: Masquerade::Outside,
    families: Families::Both,
    offloads: Offloads::Kept,
};

pub(crate) const BRIDGE: Shape = Shape {
    pods: PodLink::Bridge,
    ..PLAIN
};

const FILTERED: Shape = Shape {
    pods: PodLink::FilteredBridge,
    ..PLAIN
};

pub(crate) const FLANNEL: Shape = Shape {
    nodes: NodeLink::Vxlan,
    masquerade: Masquerade::Both,
    ..FILTERED
};

matrix! {
    services_work_for_pods_on_routed_veths: "routed veths, nodes by routes", PLAIN;
    services_work_for_pods_on_a_bridge: "a bridge, nodes by routes", BRIDGE;
    services_work_on_a_bridge_that_netfilter_sees: "a bridge with br_netfilter", FILTERED;
    services_work_over_vxlan: "a bridge, nodes by VXLAN",
        Shape { nodes: NodeLink::Vxlan, ..BRIDGE };
    services_work_beside_flannels_masquerade: "flannel: a bridge with br_netfilter, VXLAN, its rules",
        FLANNEL;
    services_work_over_ipip: "Calico: routed veths, `tunl0`", Shape { nodes: NodeLink::Ipip, ..PLAIN };
    services_work_over_wireguard: "nodes by WireGuard",
        Shape { nodes: NodeLink::WireGuard, ..PLAIN };
    services_work_on_a_vlan: "uplinks with a VLAN tag", Shape { uplink: Uplink::Vlan, ..PLAIN };
    services_work_on_a_bond: "bonded uplinks", Shape { uplink: Uplink::Bond, ..PLAIN };
    services_work_with_two_uplinks: "two uplinks, routed by policy",
        Shape { uplink: Uplink::Two, ..PLAIN };
    services_work_where_sums_are_complete: "`tx off` everywhere",
        Shape { offloads: Offloads::NoSums, ..PLAIN };
    services_work_without_segmentation: "`tso off`, `gso off` on uplinks",
        Shape { offloads: Offloads::NoSegmentation, ..PLAIN };
    services_work_where_packets_are_merged: "`gro on` everywhere",
        Shape { offloads: Offloads::Merging, ..PLAIN };
    services_work_without_ipv6_addresses: "IPv4 alone: `disable_ipv6`",
        Shape { families: Families::V4, ..PLAIN };
    services_work_without_ipv4_addresses: "IPv6 alone: no IPv4 addresses",
        Shape { families: Families::V6, ..PLAIN };
}
