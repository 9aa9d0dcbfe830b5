//! All devices, put together from messages about links and addresses.

use super::address::{Address, by_age, sources};
use super::link::{Link, is_device};
use super::{DeviceEvent, Marked};
use crate::datapath::hook::{Bridge, Device, Traits};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is known of the devices and their addresses, both by interface index.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    links: BTreeMap<u32, Link>,
    /// Those of each device by age.
    addresses: BTreeMap<u32, Vec<Address>>,
    marked: Marked,
}

impl Inventory {
    /// From complete lists.
    pub(super) fn new(links: &[LinkMessage], addresses: &[AddressMessage], marked: Marked) -> Self {
        let links = links.iter().filter_map(Link::of);
        let mut listed: BTreeMap<u32, Vec<Address>> = BTreeMap::new();
        for message in addresses {
            let of_device = listed.entry(message.header.index).or_default();
            of_device.extend(Address::of(message));
        }
        let addresses = listed.into_iter();
        Self {
            links: links.map(|link| (link.index, link)).collect(),
            addresses: addresses.map(|(index, it)| (index, by_age(it))).collect(),
            marked,
        }
    }

    /// Takes in a message; returns what has happened by it.
    pub(super) fn take(&mut self, message: &RouteNetlinkMessage) -> Vec<DeviceEvent> {
        match message {
            RouteNetlinkMessage::NewLink(message) => match Link::of(message) {
                Some(link) => self.change(link.index, |it| {
                    it.links.insert(link.index, link);
                }),
                None => Vec::new(),
            },
            RouteNetlinkMessage::DelLink(message) if is_device(message) => {
                let index = message.header.index;
                self.links.remove(&index);
                self.addresses.remove(&index);
                vec![DeviceEvent::Gone(index)]
            }
            RouteNetlinkMessage::NewAddress(message) => self.change_address(message, true),
            RouteNetlinkMessage::DelAddress(message) => self.change_address(message, false),
            _ => Vec::new(),
        }
    }

    /// All devices.
    pub(super) fn devices(&self) -> Vec<Device> {
        self.links.values().map(|link| self.device(link)).collect()
    }

    /// The addresses of all devices, each with the name of one that has it.
    pub(super) fn local_addresses(&self) -> BTreeMap<IpAddr, String> {
        let links = self.links.values();
        let named = links.flat_map(|link| {
            let addresses = self.addresses_of(link.index).iter();
            addresses.map(|address| (address.ip, link.name.clone()))
        });
        named.collect()
    }

    fn change_address(&mut self, message: &AddressMessage, is_there: bool) -> Vec<DeviceEvent> {
        let Some(address) = Address::of(message) else {
            return Vec::new();
        };
        self.change(message.header.index, |inventory| {
            let addresses = inventory.addresses.entry(message.header.index).or_default();
            match addresses.iter_mut().find(|it| it.is(&address)) {
                Some(known) if is_there => *known = address,
                None if is_there => addresses.push(address),
                _ => addresses.retain(|it| !it.is(&address)),
            }
        })
    }

    /// Makes a change to one device. It is told of even if all is as before (somebody may have taken
    /// programs off), its ports are if they are not.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Self)) -> Vec<DeviceEvent> {
        let before = self.ports(index);
        change(self);
        let device = self.links.get(&index).map(|link| self.device(link));
        let ports = self.ports(index).into_iter();
        let changed = ports.filter(|port| !before.contains(port));
        device
            .into_iter()
            .chain(changed)
            .map(DeviceEvent::Present)
            .collect()
    }

    fn ports(&self, bridge: u32) -> Vec<Device> {
        let ports = self.links.values();
        let ports = ports.filter(|link| link.bridge == Some(bridge));
        ports.map(|link| self.device(link)).collect()
    }

    fn device(&self, link: &Link) -> Device {
        let bridge = link.bridge.map(|index| Bridge {
            index,
            // Of one that is not known yet another message is on its way.
            mac: self.mac(index).unwrap_or_default(),
        });
        // A port has no addresses of its own: they are the bridge's.
        let (v4, v6) = sources(self.addresses_of(link.bridge.unwrap_or(link.index)));
        Device {
            index: link.index,
            name: link.name.clone(),
            suitability: link.suitability,
            traits: Traits {
                mac: link.mac,
                bridge,
                v4,
                v6,
                mtu: link.mtu,
                is_peered: link.is_peered,
                is_fast: self.is_fast(link),
                is_of_pods: self.is_of_pods(link),
            },
        }
    }

    /// A port belongs to the fast lane with its bridge, as which routes know it.
    fn is_fast(&self, link: &Link) -> bool {
        let bridge = link.bridge.and_then(|index| self.links.get(&index));
        let names = [Some(link), bridge].into_iter().flatten();
        link.is_direct
            && names
                .into_iter()
                .any(|it| self.marked.fast_lane.has(&it.name))
    }

    /// A port is known by the name of its bridge, as which netfilter sees what comes in by it.
    fn is_of_pods(&self, link: &Link) -> bool {
        let bridge = link.bridge.and_then(|index| self.links.get(&index));
        self.marked.pods.has(&bridge.unwrap_or(link).name)
    }

    fn mac(&self, index: u32) -> Option<[u8; 6]> {
        self.links.get(&index)?.mac
    }

    fn addresses_of(&self, index: u32) -> &[Address] {
        self.addresses.get(&index).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::tests::message as address;
    use super::super::link::tests::{below, bridge, message as link};
    use super::*;
    use crate::datapath::hook::{Framing, Suitability};
    use netlink_packet_route::address::AddressFlags;
    use netlink_packet_route::link::{InfoPortKind, LinkAttribute};

    const PERMANENT: AddressFlags = AddressFlags::Permanent;

    fn present(events: Vec<DeviceEvent>) -> Vec<Device> {
        let devices = events.into_iter().map(|event| match event {
            DeviceEvent::Present(device) => device,
            other => panic!("{other:?}"),
        });
        devices.collect()
    }

    fn bridged() -> Inventory {
        let port = below(link(7, "veth"), InfoPortKind::Bridge, 3);
        let links = [link(2, "eth0"), bridge(3, "br0"), port];
        let addresses = [
            address(2, "192.0.2.1", PERMANENT),
            address(3, "10.244.1.1", PERMANENT),
        ];
        let marked = Marked {
            fast_lane: "br*".parse().unwrap(),
            ..Marked::default()
        };
        Inventory::new(&links, &addresses, marked)
    }

    #[test]
    fn a_port_has_the_addresses_of_its_bridge_and_follows_it() {
        let mut inventory = bridged();
        let port = &inventory.devices()[2];
        let mac = [2, 0, 0, 0, 0, 3];
        assert_eq!(port.traits.bridge, Some(Bridge { index: 3, mac }));
        assert_eq!(port.traits.v4, Some([10, 244, 1, 1].into()));
        let is_fast = |name: &str| {
            let devices = inventory.devices();
            let device = devices.iter().find(|device| device.name == name);
            device.unwrap().traits.is_fast
        };
        assert!(is_fast("veth") && is_fast("br0") && !is_fast("eth0"));

        let same = RouteNetlinkMessage::NewLink(bridge(3, "br0"));
        assert_eq!(present(inventory.take(&same)).len(), 1, "only the bridge");
        let mut other = bridge(3, "br0");
        other.attributes[1] = LinkAttribute::Address(vec![6; 6]);
        let other = present(inventory.take(&RouteNetlinkMessage::NewLink(other)));
        assert_eq!(other[1].traits.bridge.unwrap().mac, [6; 6]);
        let more = address(3, "2001:db8::1", PERMANENT);
        let more = present(inventory.take(&RouteNetlinkMessage::NewAddress(more)));
        let names: Vec<&str> = more.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["br0", "veth"]);
        assert!(more[1].traits.v6.is_some());
    }

    #[test]
    fn a_device_that_leaves_its_bridge_is_itself_again() {
        let mut inventory = bridged();
        let left = present(inventory.take(&RouteNetlinkMessage::NewLink(link(7, "veth"))));
        let plain = Suitability::Suitable(Framing::Ethernet);
        assert_eq!((left[0].suitability, left[0].traits.v4), (plain, None));
    }

    #[test]
    fn addresses_come_change_and_go() {
        let mut inventory = bridged();
        let source = |events| present(events)[0].traits.v4.map(|ip| ip.to_string());
        let second = address(2, "192.0.2.2", PERMANENT);
        let added = inventory.take(&RouteNetlinkMessage::NewAddress(second.clone()));
        assert_eq!(source(added).as_deref(), Some("192.0.2.1"), "the older one");
        let old = address(2, "192.0.2.1", PERMANENT | AddressFlags::Deprecated);
        let deprecated = inventory.take(&RouteNetlinkMessage::NewAddress(old.clone()));
        assert_eq!(source(deprecated).as_deref(), Some("192.0.2.2"));
        let local = inventory.local_addresses();
        assert_eq!(local.len(), 3, "{local:?}");
        assert_eq!(local[&IpAddr::from([192, 0, 2, 2])], "eth0");
        inventory.take(&RouteNetlinkMessage::DelAddress(old));
        let gone = inventory.take(&RouteNetlinkMessage::DelAddress(second));
        assert_eq!(source(gone), None);
        assert_eq!(inventory.local_addresses().len(), 1);
    }

    #[test]
    fn a_device_that_is_gone_takes_its_addresses_along() {
        let mut inventory = bridged();
        let gone = RouteNetlinkMessage::DelLink(link(2, "eth0"));
        assert_eq!(inventory.take(&gone), [DeviceEvent::Gone(2)]);
        assert_eq!(inventory.local_addresses().len(), 1);
        let early = address(2, "192.0.2.1", PERMANENT);
        let early = inventory.take(&RouteNetlinkMessage::NewAddress(early));
        assert_eq!(early, [], "of a device that is not known");
    }
}
