//! Addresses of devices, and which of them masks flows.

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    prefix: u8,
    fitness: Fitness,
}

/// How fit an address is to mask flows, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    /// A primary address of IPv4, one of IPv6 that stays.
    Best,
    /// A secondary address of IPv4, one of IPv6 with a lifetime.
    Good,
    /// Of this link or host only, not sure to be ours, about to go, or made to change often.
    Unfit,
}

impl Address {
    /// Reads a message.
    pub(super) fn of(message: &AddressMessage) -> Option<Self> {
        Some(Self {
            ip: ip(message)?,
            prefix: message.header.prefix_len,
            fitness: fitness(message),
        })
    }

    /// Whether both are the same address, which may have changed.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.ip, self.prefix) == (other.ip, other.prefix)
    }
}

/// Puts the addresses of a list of the kernel's in the order in which they were added: those of IPv6 come
/// with the newest first.
pub(super) fn by_age(mut listed: Vec<Address>) -> Vec<Address> {
    listed.reverse();
    listed.sort_by_key(|address| address.ip.is_ipv6());
    let v4 = listed.iter().take_while(|it| it.ip.is_ipv4()).count();
    listed[..v4].reverse();
    listed
}

/// The addresses that mask flows: of the fittest ones the oldest, so that another address on the device
/// changes nothing.
pub(super) fn sources(by_age: &[Address]) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let fit = || by_age.iter().filter(|it| it.fitness != Fitness::Unfit);
    let v4 = fit().filter_map(|it| match it.ip {
        IpAddr::V4(ip) => Some((it.fitness, ip)),
        IpAddr::V6(_) => None,
    });
    let v6 = fit().filter_map(|it| match it.ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some((it.fitness, ip)),
    });
    // The first of several minimums.
    let v4 = v4.min_by_key(|(fitness, _)| *fitness);
    let v6 = v6.min_by_key(|(fitness, _)| *fitness);
    (v4.map(|(_, ip)| ip), v6.map(|(_, ip)| ip))
}

/// With a peer the other attribute is the peer's address.
fn ip(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = || message.attributes.iter();
    let local = attributes().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    local.or_else(|| {
        attributes().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

fn fitness(message: &AddressMessage) -> Fitness {
    let flags = flags(message);
    let doubtful = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    let is_global = message.header.scope == AddressScope::Universe;
    if !is_global || flags.intersects(doubtful) {
        return Fitness::Unfit;
    }
    let has = |flag| flags.contains(flag);
    match ip(message) {
        Some(IpAddr::V4(ip)) if is_global_v4(ip) => {
            if has(AddressFlags::Secondary) {
                Fitness::Good
            } else {
                Fitness::Best
            }
        }
        // The same flag says of an IPv6 address that it is a temporary one (RFC 8981).
        Some(IpAddr::V6(ip)) if is_global_v6(ip) && !has(AddressFlags::Secondary) => {
            if has(AddressFlags::Permanent) {
                Fitness::Best
            } else {
                Fitness::Good
            }
        }
        _ => Fitness::Unfit,
    }
}

/// The header has room for the first eight flags only.
fn flags(message: &AddressMessage) -> AddressFlags {
    let all = message.attributes.iter().find_map(|it| match it {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    all.unwrap_or_else(|| AddressFlags::from_bits_retain(message.header.flags.bits().into()))
}

const fn is_global_v4(ip: Ipv4Addr) -> bool {
    !(ip.is_loopback() || ip.is_link_local() || ip.is_unspecified())
}

const fn is_global_v6(ip: Ipv6Addr) -> bool {
    !(ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::datapath::devices) fn message(
        index: u32,
        ip: &str,
        flags: AddressFlags,
    ) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Address(ip.parse().unwrap()),
            AddressAttribute::Flags(flags),
        ];
        message
    }

    fn address(ip: &str, flags: AddressFlags) -> Address {
        Address::of(&message(1, ip, flags)).unwrap()
    }

    fn chosen(addresses: &[(&str, AddressFlags)]) -> [String; 2] {
        let addresses: Vec<Address> = addresses.iter().map(|(ip, it)| address(ip, *it)).collect();
        let (v4, v6) = sources(&addresses);
        [
            v4.map(|ip| ip.to_string()).unwrap_or_default(),
            v6.map(|ip| ip.to_string()).unwrap_or_default(),
        ]
    }

    const NONE: AddressFlags = AddressFlags::empty();
    const PERMANENT: AddressFlags = AddressFlags::Permanent;

    #[test]
    fn the_oldest_of_the_best_addresses_masks_flows() {
        let addresses = [
            ("169.254.1.1", PERMANENT),
            ("192.0.2.7", PERMANENT | AddressFlags::Secondary),
            ("192.0.2.1", NONE),
            ("198.51.100.1", PERMANENT),
            ("fe80::1", PERMANENT),
            ("2001:db8::7", NONE),
            ("2001:db8::8", AddressFlags::Secondary),
            ("2001:db8::1", PERMANENT),
            ("2001:db8::2", PERMANENT),
        ];
        assert_eq!(chosen(&addresses), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(chosen(&addresses[..2])[0], "192.0.2.7");
        assert_eq!(chosen(&addresses[..7])[1], "2001:db8::7");
        assert_eq!(
            chosen(&[addresses[0], addresses[4], addresses[6]]),
            ["", ""]
        );
    }

    #[test]
    fn an_address_that_may_not_be_ours_masks_nothing() {
        for flag in [
            AddressFlags::Tentative,
            AddressFlags::Dadfailed,
            AddressFlags::Deprecated,
        ] {
            let addresses = [
                ("192.0.2.1", PERMANENT | flag),
                ("2001:db8::1", PERMANENT | flag),
            ];
            assert_eq!(chosen(&addresses), ["", ""], "{flag:?}");
        }
        let mut host = message(1, "192.0.2.1", PERMANENT);
        host.header.scope = AddressScope::Host;
        assert_eq!(Address::of(&host).unwrap().fitness, Fitness::Unfit);
    }

    #[test]
    fn with_a_peer_the_local_address_counts() {
        let mut message = message(1, "192.0.2.2", PERMANENT);
        let local = AddressAttribute::Local("192.0.2.1".parse().unwrap());
        message.attributes.push(local);
        assert_eq!(Address::of(&message).unwrap().ip.to_string(), "192.0.2.1");
        message.attributes.clear();
        assert_eq!(Address::of(&message), None);
    }

    #[test]
    fn listed_addresses_are_put_in_the_order_of_their_age() {
        let listed = ["192.0.2.1", "192.0.2.2", "2001:db8::2", "2001:db8::1"];
        let sorted = by_age(listed.map(|ip| address(ip, NONE)).into());
        let sorted: Vec<String> = sorted.iter().map(|it| it.ip.to_string()).collect();
        let expected = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
        assert_eq!(sorted, expected);
    }
}
