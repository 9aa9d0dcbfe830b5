//! The cells of the matrix: who dials what, who answers, and whom the backend must see.

use crate::stage::PROTOCOLS;
use std::net::IpAddr;
use xtask::cluster::{Masquerade, Node, NodeLink, PodLink, Protocol, Shape, Uplink};

/// Who dials what. Always through the first node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A pod dials the cluster's address.
    ClusterIp,
    /// The client outside dials a port of the node.
    NodePort,
    /// A pod dials a port of its own node.
    OwnNodePort,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A pod of the node.
    Local,
    /// A pod of another node.
    Remote,
    /// A pod in the network of the node itself.
    Host,
    /// A pod in the network of another node.
    RemoteHost,
    /// The pod that asks.
    Hairpin,
}

/// One cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) way: Way,
    pub(crate) place: Place,
    pub(crate) protocol: Protocol,
    pub(crate) is_v6: bool,
}

/// Whom a backend sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The client's own address and port.
    Client,
    /// The node, by an address that packets to the backend leave from.
    Masked(Exit),
    /// The same, masked by the CNI plugin's rule.
    Plugin(Exit),
}

/// Where a packet to a backend leaves the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By the device with the node's address.
    Uplink,
    /// By the second one.
    Second,
    /// By the tunnel to other nodes.
    Tunnel,
    /// By a pod's device or the bridge, which has the gateway's address; the node's own will do.
    Pod,
}

pub(crate) const WAYS: [Way; 3] = [Way::ClusterIp, Way::NodePort, Way::OwnNodePort];
pub(crate) const PLACES: [Place; 5] = [
    Place::Local,
    Place::Remote,
    Place::Host,
    Place::RemoteHost,
    Place::Hairpin,
];

/// All pairs that there are: nobody outside is a backend.
pub(crate) fn pairs() -> impl Iterator<Item = (Way, Place)> {
    let pairs = WAYS.into_iter();
    let pairs = pairs.flat_map(|way| PLACES.into_iter().map(move |place| (way, place)));
    pairs.filter(|pair| *pair != (Way::NodePort, Place::Hairpin))
}

/// All cells of a shape.
pub(crate) fn cells(shape: Shape) -> impl Iterator<Item = Cell> {
    let families = [false, true].into_iter();
    let families = families.filter(move |is_v6| shape.families.has(unspecified(*is_v6)));
    families.flat_map(|is_v6| {
        pairs().flat_map(move |(way, place)| {
            PROTOCOLS.map(|protocol| Cell {
                way,
                place,
                protocol,
                is_v6,
            })
        })
    })
}

impl Cell {
    /// Whom the backend must see.
    pub(crate) fn source(self, shape: Shape) -> Source {
        source(shape, self.way, self.place, self.is_v6)
    }

    /// Whether its packets can pass the first node's stack by.
    pub(crate) fn may_be_fast(self, shape: Shape) -> bool {
        let leaves = match self.place {
            // To this node itself.
            Place::Host => false,
            // Unless it is masked, the CNI plugin would do so.
            Place::RemoteHost => self.way != Way::ClusterIp,
            // On one bridge client and backend see each other.
            Place::Local => self.way == Way::NodePort || shape.pods == PodLink::Routed,
            Place::Remote | Place::Hairpin => true,
        };
        // What comes by an uplink may be longer than a tunnel or its pods take, and the other way round.
        let is_narrow = shape.nodes != NodeLink::Routes;
        let has_tunnel = exit(shape, self.is_v6) == Exit::Tunnel;
        // Its outer destination is told by a route.
        let needs_route = has_tunnel && shape.nodes == NodeLink::Ipip;
        let is_level = match (self.way, self.place) {
            (Way::NodePort, Place::Remote) => !has_tunnel,
            (Way::NodePort, Place::RemoteHost) => true,
            (Way::NodePort, _) | (_, Place::RemoteHost) => !is_narrow,
            (_, Place::Remote) => !needs_route && (has_tunnel || !is_narrow),
            (Way::ClusterIp | Way::OwnNodePort, _) => true,
        };
        // Fragments of IPv6 are the stack's, and answers in fragments are masqueraded there.
        let is_inside = self.way != Way::NodePort && self.place != Place::RemoteHost;
        let is_whole = !self.is_v6 || self.protocol == Protocol::Tcp;
        leaves && is_level && (is_inside || is_whole)
    }
}

/// Whom the backend must see, in a family.
pub(crate) fn source(shape: Shape, way: Way, place: Place, is_v6: bool) -> Source {
    let is_outside = way == Way::NodePort;
    match (place, way) {
        (Place::Local | Place::Host, _) | (Place::Remote, Way::ClusterIp) => Source::Client,
        (Place::Hairpin, _) => Source::Masked(Exit::Pod),
        (Place::Remote, _) if is_outside && shape.masquerade == Masquerade::Both => {
            Source::Plugin(exit(shape, is_v6))
        }
        (Place::Remote, _) => Source::Masked(exit(shape, is_v6)),
        // Pods that leave the cluster are masqueraded, and nodes are outside of it.
        (Place::RemoteHost, Way::ClusterIp | Way::OwnNodePort) => Source::Plugin(Exit::Uplink),
        (Place::RemoteHost, Way::NodePort) => Source::Masked(Exit::Uplink),
    }
}

/// Where packets leave that are for pods of other nodes.
fn exit(shape: Shape, is_v6: bool) -> Exit {
    match (shape.nodes, shape.uplink) {
        (NodeLink::Ipip, _) if is_v6 => Exit::Uplink,
        (NodeLink::Vxlan | NodeLink::Ipip | NodeLink::WireGuard, _) => Exit::Tunnel,
        (NodeLink::Routes, Uplink::Two) => Exit::Second,
        (NodeLink::Routes, Uplink::Plain | Uplink::Vlan | Uplink::Bond) => Exit::Uplink,
    }
}

impl Exit {
    /// The addresses that a packet which leaves a node here may have.
    pub(crate) fn addresses(self, node: &Node, is_v6: bool) -> Vec<IpAddr> {
        let plan = node.plan();
        let pick = |v4: std::net::Ipv4Addr, v6: std::net::Ipv6Addr| match is_v6 {
            false => IpAddr::from(v4),
            true => IpAddr::from(v6),
        };
        let uplink = pick(plan.subnet_v4(2), plan.subnet_v6(2));
        match self {
            Self::Uplink => vec![uplink],
            Self::Second => vec![pick(plan.second_v4(2), plan.second_v6(2))],
            Self::Tunnel => vec![pick(plan.tunnel_v4(), plan.tunnel_v6())],
            Self::Pod => vec![pick(plan.pod_v4(1), plan.pod_v6(1)), uplink],
        }
    }
}

fn unspecified(is_v6: bool) -> IpAddr {
    match is_v6 {
        false => std::net::Ipv4Addr::UNSPECIFIED.into(),
        true => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}
