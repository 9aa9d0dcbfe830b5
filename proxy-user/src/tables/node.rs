//! The node's row of `CONFIG`.

use super::Family;
use crate::frontend::Cidr;
use proxy_common::{
    ABI_VERSION, Detection, NodeConfig, NodeFamily, NodeOptions, Port, Range, ServiceRanges,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// What the programs at cgroups must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// The kernel's cookie of the node's own network namespace; 0: not known, the machine's first one is meant.
    pub host_netns: u64,
    /// Whether NodePorts answer on loopback addresses, for sockets of that namespace.
    pub loopback: bool,
    /// What they do, besides what they always do.
    pub options: NodeOptions,
}

/// What the agent knows about its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The addresses that mask flows, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// How pods are told from others; of several ranges of one family the first counts.
    pub pods: Pods,
    /// Where all pods of the cluster have their addresses; the same.
    pub cluster_cidrs: Vec<Cidr>,
    /// Where Services have theirs; of each family the first ones.
    pub service_cidrs: BTreeSet<Cidr>,
    /// The addresses whose NodePorts are those of loopback, at most one of each family.
    pub loopback: Vec<IpAddr>,
    /// What the programs do, besides what they always do.
    pub options: NodeOptions,
}

/// How pods are told from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pods {
    /// Their addresses are in a range.
    InRanges(Vec<Cidr>),
    /// By the device that their packets come in by.
    ByDevice,
}

impl Default for Pods {
    fn default() -> Self {
        Self::InRanges(Vec::new())
    }
}

/// The row.
pub fn node_config(
    facts: &NodeFacts,
    snat_ports: &RangeInclusive<u16>,
    sockets: Sockets,
) -> NodeConfig {
    NodeConfig {
        abi_version: ABI_VERSION,
        snat_port_min: Port::new(*snat_ports.start()),
        snat_port_max: Port::new(*snat_ports.end()),
        host_netns: sockets.host_netns,
        v4: family(facts),
        v6: family(facts),
        options: facts.options.and(sockets.options),
        unused: 0,
    }
}

fn family<A: Family>(facts: &NodeFacts) -> NodeFamily<A> {
    let first = |addresses: &[IpAddr]| addresses.iter().find_map(|address| A::from_ip(*address));
    let none = range(A::zeroed(), A::zeroed());
    let masquerade = first(&facts.addresses).unwrap_or(A::zeroed());
    let family = NodeFamily::new(masquerade);
    let mut family = match &facts.pods {
        Pods::ByDevice => family.detecting(Detection::ByDevice, none),
        Pods::InRanges(cidrs) => match ranges(cidrs).next() {
            Some(pods) => family.detecting(Detection::BySource, pods),
            None => family,
        },
    };
    family.loopback = first(&facts.loopback).unwrap_or(A::zeroed());
    family.cluster = ranges(&facts.cluster_cidrs).next().unwrap_or(none);
    family.services = ServiceRanges::new(ranges(&facts.service_cidrs));
    family
}

/// Those of a family.
fn ranges<'a, A: Family>(
    cidrs: impl IntoIterator<Item = &'a Cidr>,
) -> impl Iterator<Item = Range<A>> {
    let cidrs = cidrs.into_iter();
    cidrs.filter_map(|cidr| Some(range(A::from_ip(cidr.first())?, A::from_ip(cidr.mask())?)))
}

const fn range<A>(address: A, mask: A) -> Range<A> {
    Range { address, mask }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;
    use proxy_common::{AddrV4, Address as _};

    fn config(facts: &NodeFacts) -> NodeConfig {
        node_config(facts, &(40000..=49999), Sockets::default())
    }

    fn cidrs(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_range_of_each_family_counts_without_its_host_bits() {
        let config = config(&NodeFacts {
            addresses: vec!["192.168.0.1".parse().unwrap()],
            cluster_cidrs: cidrs(&["fd00:1::5/32", "10.244.3.1/16", "10.9.0.0/16"]),
            ..NodeFacts::default()
        });
        assert_eq!(config.v4.masquerade.ip().to_string(), "192.168.0.1");
        assert_eq!(config.v4.cluster.address.ip().to_string(), "10.244.0.0");
        assert_eq!(config.v4.cluster.mask.ip().to_string(), "255.255.0.0");
        assert_eq!(config.v6.masquerade.ip().to_string(), "::");
        assert_eq!(config.v6.cluster.address.ip().to_string(), "fd00:1::");
        assert_eq!(config.v6.cluster.mask.ip().to_string(), "ffff:ffff::");
        assert_eq!(config.snat_port_max.number(), 49999);
    }

    #[test]
    fn whole_and_single_address_ranges_have_their_masks() {
        for (text, mask) in [("1.2.3.4/0", "0.0.0.0"), ("1.2.3.4/32", "255.255.255.255")] {
            let config = config(&NodeFacts {
                cluster_cidrs: cidrs(&[text]),
                ..NodeFacts::default()
            });
            assert_eq!(config.v4.cluster.mask.ip().to_string(), mask);
        }
    }

    #[test]
    fn a_family_without_a_range_of_pods_does_not_know_them() {
        let config = config(&NodeFacts {
            pods: Pods::InRanges(cidrs(&["10.244.0.0/16"])),
            ..NodeFacts::default()
        });
        assert_eq!(config.v4.detection(), Detection::BySource);
        assert_eq!(config.v6.detection(), Detection::None);
        let by_device = NodeFacts {
            pods: Pods::ByDevice,
            ..NodeFacts::default()
        };
        let config = node_config(&by_device, &(1..=2), Sockets::default());
        assert_eq!(config.v6.detection(), Detection::ByDevice);
    }

    #[test]
    fn addresses_of_services_are_those_of_all_ranges() {
        let ranges = ["10.96.0.0/16", "10.97.0.0/24", "fd00:96::/112"];
        let config = config(&NodeFacts {
            service_cidrs: cidrs(&ranges).into_iter().collect(),
            ..NodeFacts::default()
        });
        let has = |text: &str| {
            config
                .v4
                .services
                .contain(&AddrV4::new(text.parse().unwrap()))
        };
        assert!(has("10.96.200.1") && has("10.97.0.9") && !has("10.97.1.1"));
        assert!(!NodeConfig::zeroed().v4.services.contain(&AddrV4::zeroed()));
    }
}
