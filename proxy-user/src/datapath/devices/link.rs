//! What a message of rtnetlink says of a device.

use crate::datapath::hook::{Framing, Suitability};
use netlink_packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

/// A device, without what other messages say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) suitability: Suitability,
    /// Its Ethernet address.
    pub(super) mac: Option<[u8; 6]>,
    /// The bridge that it is a port of.
    pub(super) bridge: Option<u32>,
    /// The longest packet that it takes.
    pub(super) mtu: u32,
    /// Whether it is one of a pair whose other end is in another network namespace.
    pub(super) is_peered: bool,
    /// Whether packets can be sent out by it without a route of the stack: tunnels may take their outer destination
    /// from that.
    pub(super) is_direct: bool,
}

impl Link {
    /// Reads a message; `None` if it is not about a device itself.
    pub(super) fn of(message: &LinkMessage) -> Option<Self> {
        let name = message.attributes.iter().find_map(|it| match it {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let name = name.filter(|_| is_device(message))?;
        let suitability = suitability(message);
        let is_port = suitability == Suitability::Suitable(Framing::Port);
        let has_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        Some(Self {
            index: message.header.index,
            name,
            suitability,
            mac: mac(message).filter(|_| has_ethernet),
            bridge: controller(message).filter(|_| is_port),
            mtu: mtu(message),
            is_peered: is_peered(message),
            is_direct: is_direct(message.header.link_layer_type),
        })
    }
}

/// Bridges also send messages about their ports, of their own address family.
pub(super) fn is_device(message: &LinkMessage) -> bool {
    u8::from(message.header.interface_family) == 0
}

fn suitability(message: &LinkMessage) -> Suitability {
    if message.header.flags.contains(LinkFlags::Loopback) {
        return Suitability::Suitable(Framing::Ethernet);
    }
    let Some(framing) = framing(message.header.link_layer_type) else {
        return Suitability::UnknownHeader;
    };
    let is_below = controller(message).is_some();
    match port_kind(message) {
        Some(InfoPortKind::Bridge) if is_below => Suitability::Suitable(Framing::Port),
        // Devices of a VRF keep their own addresses and see their own packets.
        kind if is_below && kind != Some(&InfoPortKind::Vrf) => Suitability::Member,
        _ if is_bridge(message) => Suitability::Bridge,
        _ => Suitability::Suitable(framing),
    }
}

const fn framing(link_layer: LinkLayerType) -> Option<Framing> {
    match link_layer {
        LinkLayerType::Ether => Some(Framing::Ethernet),
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Sit
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6 => Some(Framing::Ip),
        _ => None,
    }
}

fn controller(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|it| match it {
        LinkAttribute::Controller(index) if *index != 0 => Some(*index),
        _ => None,
    })
}

fn mac(message: &LinkMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|it| match it {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

fn mtu(message: &LinkMessage) -> u32 {
    let mtu = message.attributes.iter().find_map(|it| match it {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or_default()
}

const fn is_direct(link_layer: LinkLayerType) -> bool {
    !matches!(
        link_layer,
        LinkLayerType::Tunnel | LinkLayerType::Tunnel6 | LinkLayerType::Sit
    )
}

/// Of devices whose other end is here the kernel does not tell where it is.
fn is_peered(message: &LinkMessage) -> bool {
    let mut infos = infos(message);
    let is_pair = infos.any(|it| matches!(it, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit)));
    let mut attributes = message.attributes.iter();
    is_pair && attributes.any(|it| matches!(it, LinkAttribute::LinkNetNsId(_)))
}

fn infos(message: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    let infos = message.attributes.iter().filter_map(|it| match it {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten()
}

/// What kind of device it is a part of.
fn port_kind(message: &LinkMessage) -> Option<&InfoPortKind> {
    infos(message).find_map(|info| match info {
        LinkInfo::PortKind(kind) => Some(kind),
        _ => None,
    })
}

fn is_bridge(message: &LinkMessage) -> bool {
    infos(message).any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message about a device of Ethernet.
    pub(in crate::datapath::devices) fn message(index: u32, name: &str) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.link_layer_type = LinkLayerType::Ether;
        let mac = vec![2, 0, 0, 0, 0, index as u8];
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac),
        ];
        message
    }

    pub(in crate::datapath::devices) fn bridge(index: u32, name: &str) -> LinkMessage {
        let mut message = message(index, name);
        let kind = LinkInfo::Kind(InfoKind::Bridge);
        message.attributes.push(LinkAttribute::LinkInfo(vec![kind]));
        message
    }

    /// The device has become part of another one.
    pub(in crate::datapath::devices) fn below(
        mut message: LinkMessage,
        kind: InfoPortKind,
        controller: u32,
    ) -> LinkMessage {
        let kind = LinkInfo::PortKind(kind);
        message.attributes.extend([
            LinkAttribute::Controller(controller),
            LinkAttribute::LinkInfo(vec![kind]),
        ]);
        message
    }

    fn suitability_of(message: &LinkMessage) -> Suitability {
        Link::of(message).unwrap().suitability
    }

    #[test]
    fn the_ports_of_a_bridge_have_programs_and_the_bridge_has_none() {
        let port = below(message(7, "veth"), InfoPortKind::Bridge, 3);
        assert_eq!(suitability_of(&port), Suitability::Suitable(Framing::Port));
        assert_eq!(Link::of(&port).unwrap().bridge, Some(3));
        assert_eq!(suitability_of(&bridge(3, "br0")), Suitability::Bridge);
        let bridge_of_vrf = below(bridge(3, "br0"), InfoPortKind::Vrf, 9);
        assert_eq!(suitability_of(&bridge_of_vrf), Suitability::Bridge);
    }

    #[test]
    fn the_ports_of_a_bond_have_none_and_devices_of_a_vrf_are_like_others() {
        for kind in [InfoPortKind::Bond, InfoPortKind::Team] {
            let member = below(message(7, "eth0"), kind, 3);
            assert_eq!(suitability_of(&member), Suitability::Member);
            assert_eq!(Link::of(&member).unwrap().bridge, None);
        }
        let vrf = below(message(7, "eth0"), InfoPortKind::Vrf, 3);
        let plain = Suitability::Suitable(Framing::Ethernet);
        assert_eq!(suitability_of(&vrf), plain);
        assert_eq!(suitability_of(&message(7, "eth0")), plain);
    }

    #[test]
    fn loopback_has_programs_and_tunnels_have_no_ethernet_address() {
        let mut lo = message(1, "lo");
        lo.header.link_layer_type = LinkLayerType::Loopback;
        assert_eq!(suitability_of(&lo), Suitability::UnknownHeader);
        lo.header.flags = LinkFlags::Loopback;
        assert_eq!(
            suitability_of(&lo),
            Suitability::Suitable(Framing::Ethernet)
        );
        let mut tunnel = message(7, "tunl0");
        tunnel.header.link_layer_type = LinkLayerType::Tunnel;
        let tunnel = Link::of(&tunnel).unwrap();
        assert_eq!(tunnel.suitability, Suitability::Suitable(Framing::Ip));
        assert_eq!(tunnel.mac, None);
    }
}
