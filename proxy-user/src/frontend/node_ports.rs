//! On which of the node's addresses NodePorts are served.

use super::LocalAddresses;
use crate::cluster::{Cidr, IpFamily};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The device on which kube-proxy keeps the cluster's own addresses in its mode ipvs.
const IPVS_DEVICE: &str = "kube-ipvs0";

/// kube-proxy's `nodePortAddresses`: the union of its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortAddresses {
    items: Vec<NodePortItem>,
}

/// An item of [`NodePortAddresses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortItem {
    /// `primary`: the addresses of the node's object, the first of each family.
    Primary,
    /// `localhost`: loopback, which no frontend serves; sockets do.
    Localhost,
    /// `all`: all that the node's devices have.
    All,
    /// Those of the node's devices that are in this range.
    Range(Cidr),
}

/// The text is neither a keyword nor an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither primary, all, localhost nor an address range")]
pub struct NotAnItem(String);

impl Default for NodePortAddresses {
    fn default() -> Self {
        Self::of(NodePortItem::Primary)
    }
}

impl NodePortAddresses {
    /// Just these.
    pub fn of(item: NodePortItem) -> Self {
        Self { items: vec![item] }
    }

    /// Of the texts in a list, which may be empty.
    ///
    /// # Errors
    /// Index of the first one that makes no sense, and why.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, NotAnItem)> {
        let items = texts.into_iter().enumerate();
        let items = items.map(|(index, text)| text.parse().map_err(|error| (index, error)));
        Ok(Self {
            items: items.collect::<Result<_, _>>()?,
        })
    }

    /// Whether nothing was said, so that whoever asks has to decide.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether loopback is meant by name.
    pub fn names_localhost(&self) -> bool {
        self.items.contains(&NodePortItem::Localhost)
    }

    /// The ranges of loopback addresses, on which no frontend serves.
    pub fn loopback_ranges(&self) -> impl Iterator<Item = Cidr> {
        let ranges = self.items.iter().filter_map(|item| match item {
            NodePortItem::Range(range) => Some(*range),
            _ => None,
        });
        ranges.filter(|range| range.prefix() > 0 && range.address().is_loopback())
    }

    /// Whether loopback of this family serves NodePorts if loopback does at all, as kube-proxy sees it: only a list
    /// that speaks of the family by ranges alone, none of which has it, leaves it out.
    pub fn serves_loopback(&self, family: IpFamily) -> bool {
        let loopback = match family {
            IpFamily::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpFamily::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let takes = |item: &NodePortItem| match item {
            NodePortItem::Primary | NodePortItem::Localhost | NodePortItem::All => true,
            NodePortItem::Range(range) => range.contains(loopback),
        };
        self.is_silent_of(family) || self.items.iter().any(takes)
    }

    /// Whether all of the node's addresses of a family are meant.
    pub fn takes_all(&self, family: IpFamily) -> bool {
        let is_all = |item: &NodePortItem| match item {
            NodePortItem::All => true,
            NodePortItem::Range(range) => range.prefix() == 0 && item.speaks_of(family),
            NodePortItem::Primary | NodePortItem::Localhost => false,
        };
        self.is_silent_of(family) || self.items.iter().any(is_all)
    }

    fn is_silent_of(&self, family: IpFamily) -> bool {
        !self.items.iter().any(|item| item.speaks_of(family))
    }

    /// The addresses, without loopback and IPv6 link-local ones. As in kube-proxy, a family of which nothing
    /// is said has all of them.
    pub(super) fn of_node(&self, primary: &[IpAddr], local: &LocalAddresses) -> Vec<IpAddr> {
        let mut addresses = primary.to_vec();
        addresses.retain(|_| self.items.contains(&NodePortItem::Primary));
        let devices = local.iter().filter(|(_, device)| *device != IPVS_DEVICE);
        let devices = devices.map(|(address, _)| *address);
        addresses.extend(devices.filter(|address| is_servable(*address) && self.takes(*address)));
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Whether an address of a device is meant, wherever it stands in the node's object.
    fn takes(&self, address: IpAddr) -> bool {
        let family = IpFamily::of(address);
        self.is_silent_of(family) || self.items.iter().any(|item| item.takes(address))
    }
}

impl NodePortItem {
    fn speaks_of(self, family: IpFamily) -> bool {
        match self {
            Self::Primary | Self::Localhost | Self::All => true,
            Self::Range(range) => IpFamily::of(range.address()) == family,
        }
    }

    fn takes(self, address: IpAddr) -> bool {
        match self {
            Self::Primary | Self::Localhost => false,
            Self::All => true,
            Self::Range(range) => range.contains(address),
        }
    }
}

/// A link-local IPv6 address is another one on each link: it can't be told which is meant.
fn is_servable(address: IpAddr) -> bool {
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !address.is_loopback() && !is_link_local && address != IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

impl FromStr for NodePortItem {
    type Err = NotAnItem;

    fn from_str(text: &str) -> Result<Self, NotAnItem> {
        match text.trim() {
            "primary" => Ok(Self::Primary),
            "localhost" => Ok(Self::Localhost),
            "all" => Ok(Self::All),
            range => {
                let range = range.parse().map(Self::Range);
                range.map_err(|_| NotAnItem(text.to_owned()))
            }
        }
    }
}

/// As a flag has it: items with commas between them, or nothing.
impl FromStr for NodePortAddresses {
    type Err = NotAnItem;

    fn from_str(text: &str) -> Result<Self, NotAnItem> {
        let items = text.split(',').filter(|_| !text.trim().is_empty());
        Self::parse(items).map_err(|(_, error)| error)
    }
}

impl fmt::Display for NodePortItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Localhost => f.write_str("localhost"),
            Self::All => f.write_str("all"),
            Self::Range(range) => write!(f, "{range}"),
        }
    }
}

impl fmt::Display for NodePortAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<String> = self.items.iter().map(ToString::to_string).collect();
        f.write_str(&items.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: [(&str, &str); 9] = [
        ("127.0.0.1", "lo"),
        ("::1", "lo"),
        ("192.0.2.1", "eth0"),
        ("198.51.100.1", "eth1"),
        ("10.244.1.1", "cni0"),
        ("10.96.0.1", "kube-ipvs0"),
        ("2001:db8::1", "eth0"),
        ("2001:db8:1::1", "eth1"),
        ("fe80::1", "eth0"),
    ];
    const PRIMARY: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
    const ALL_V4: [&str; 3] = ["10.244.1.1", "192.0.2.1", "198.51.100.1"];
    const ALL_V6: [&str; 2] = ["2001:db8::1", "2001:db8:1::1"];

    fn served(list: &str) -> Vec<String> {
        let primary = PRIMARY.map(|it| it.parse().unwrap());
        let local = LOCAL.map(|(ip, device)| (ip.parse().unwrap(), device.to_owned()));
        let list: NodePortAddresses = list.parse().unwrap();
        let served = list.of_node(&primary, &LocalAddresses::from(local));
        served.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nodeports_are_where_the_list_says() {
        let all = [&ALL_V4[..], &ALL_V6].concat();
        let cases: [(&str, &[&str]); 12] = [
            ("primary", &PRIMARY),
            ("all", &all),
            ("", &all),
            ("0.0.0.0/0,::/0", &all),
            ("0.0.0.0/0,10.244.0.0/16,::/0", &all),
            ("primary,all", &all),
            // A family of which nothing is said has all.
            (
                "198.51.100.0/24",
                &["198.51.100.1", "2001:db8::1", "2001:db8:1::1"],
            ),
            (
                "2001:db8:1::/48",
                &["10.244.1.1", "192.0.2.1", "198.51.100.1", "2001:db8:1::1"],
            ),
            (
                "198.51.100.0/24,2001:db8:1::/48",
                &["198.51.100.1", "2001:db8:1::1"],
            ),
            (
                "primary,198.51.100.0/24",
                &["192.0.2.1", "198.51.100.1", "2001:db8::1"],
            ),
            ("localhost", &[]),
            ("127.0.0.0/8,fe80::/10,203.0.113.0/24", &[]),
        ];
        for (list, wanted) in cases {
            assert_eq!(served(list), wanted, "{list}");
        }
    }

    #[test]
    fn loopback_is_left_out_only_by_ranges_that_do_not_have_it() {
        let cases = [
            ("", true, true),
            ("primary", true, true),
            ("localhost", true, true),
            ("all", true, true),
            ("0.0.0.0/0", true, true),
            ("127.0.0.0/8", true, true),
            ("127.0.0.1/32,::1/128", true, true),
            ("127.0.0.2/32", false, true),
            ("192.0.2.0/24", false, true),
            ("2001:db8::/32", true, false),
            ("192.0.2.0/24,2001:db8::/32", false, false),
            ("192.0.2.0/24,::/0", false, true),
            ("192.0.2.0/24,2001:db8::/32,primary", true, true),
        ];
        for (list, v4, v6) in cases {
            let list: NodePortAddresses = list.parse().unwrap();
            let served = [IpFamily::V4, IpFamily::V6].map(|it| list.serves_loopback(it));
            assert_eq!(served, [v4, v6], "{list}");
        }
    }

    #[test]
    fn primary_addresses_are_served_wherever_they_are() {
        let primary = ["203.0.113.9".parse().unwrap()];
        let list = NodePortAddresses::default();
        assert_eq!(list.of_node(&primary, &LocalAddresses::new()), primary);
        assert_eq!(list.to_string(), "primary");
    }

    #[test]
    fn items_are_checked() {
        for wrong in ["secondary", "primary,", "192.0.2.1", "10.0.0.0/33", ","] {
            let error = wrong.parse::<NodePortAddresses>().unwrap_err();
            assert!(error.to_string().contains("neither"), "{wrong}: {error}");
        }
        let found = NodePortAddresses::parse(["all", "10.0.0.0/8", "al"]).unwrap_err();
        assert_eq!(found, (2, NotAnItem("al".into())));
        let list: NodePortAddresses = "127.0.0.0/8,0.0.0.0/0,::1/128".parse().unwrap();
        let loopback: Vec<String> = list.loopback_ranges().map(|it| it.to_string()).collect();
        assert_eq!(loopback, ["127.0.0.0/8", "::1/128"]);
    }
}
