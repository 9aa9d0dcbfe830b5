//! Devices of the node, and the two hooks that each of them has.

use aya::programs::TcAttachType;
use aya_obj::generated::bpf_attach_type;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// One of a device's two hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// Before routing and netfilter.
    Ingress,
    /// After them.
    Egress,
}

impl Hook {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The name of the program that belongs here; the kernel keeps 15 letters.
    pub const fn program(self, framing: Framing) -> &'static str {
        match (self, framing) {
            (Self::Ingress, Framing::Ethernet) => "ferrule_ingress",
            (Self::Egress, Framing::Ethernet) => "ferrule_egress",
            (Self::Ingress, Framing::Port) => "ferrule_ingr_br",
            (Self::Egress, Framing::Port) => "ferrule_egress",
            (Self::Ingress, Framing::Ip) => "ferrule_ingr_l3",
            (Self::Egress, Framing::Ip) => "ferrule_egr_l3",
        }
    }

    pub(super) const fn tcx(self) -> bpf_attach_type {
        match self {
            Self::Ingress => bpf_attach_type::BPF_TCX_INGRESS,
            Self::Egress => bpf_attach_type::BPF_TCX_EGRESS,
        }
    }

    pub(super) const fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}

/// A network device of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Whether the programs belong on it.
    pub suitability: Suitability,
    /// What the programs must know of it.
    pub traits: Traits,
}

/// What the programs must know of a device, besides its framing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Its Ethernet address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// The bridge that it is a port of.
    pub bridge: Option<Bridge>,
    /// Source of masked flows that leave by it.
    pub v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub v6: Option<Ipv6Addr>,
    /// The longest packet that it takes.
    pub mtu: u32,
    /// Whether its other end is in another network namespace, and packets can be handed over to it.
    pub is_peered: bool,
    /// Whether it belongs to the fast lane.
    pub is_fast: bool,
    /// Whether what comes in by it is from pods.
    pub is_of_pods: bool,
}

/// The bridge of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its interface index, by which routes name its ports.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
}

/// The header with which the packets of a device begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Ethernet: devices of hardware, veths, VLANs, VXLAN, loopback.
    Ethernet,
    /// Ethernet, at a port of a bridge: what is switched there does not cross the stack by itself.
    Port,
    /// IP itself: tun, WireGuard, ipip, sit.
    Ip,
}

impl Framing {
    /// All.
    pub const ALL: [Self; 3] = [Self::Ethernet, Self::Port, Self::Ip];
}

/// Whether the programs belong on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suitability {
    /// Packets of other hosts and pods pass it, or of processes of this node.
    Suitable(Framing),
    /// A bridge: all that passes it passes one of its ports, where more can be done.
    Bridge,
    /// Belongs to a bond or the like: all that passes it passes the device above it.
    Member,
    /// Its packets begin with a header that the programs don't know.
    UnknownHeader,
}

impl Suitability {
    /// What its packets begin with; `None` if it is not suitable.
    pub const fn framing(self) -> Option<Framing> {
        match self {
            Self::Suitable(framing) => Some(framing),
            Self::Bridge | Self::Member | Self::UnknownHeader => None,
        }
    }

    /// Why not; `None` if it is suitable.
    pub const fn objection(self) -> Option<&'static str> {
        match self {
            Self::Suitable(_) => None,
            Self::Bridge => Some("its ports have them"),
            Self::Member => Some("port of a bond"),
            Self::UnknownHeader => Some("neither Ethernet nor IP"),
        }
    }
}
