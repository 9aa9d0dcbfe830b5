//! Where a service port can be dialled on this node, and by whom.

use super::{Frontend, FrontendKind, NodeContext};
use crate::cluster::{Cidr, IpFamily, PortView, ServiceView, StaysLocal};
use std::net::IpAddr;

/// A Service in one family.
#[derive(Clone, Copy)]
pub(super) struct InFamily<'a> {
    pub(super) view: &'a ServiceView,
    pub(super) node: &'a NodeContext,
    pub(super) cluster_ip: IpAddr,
}

impl<'a> InFamily<'a> {
    pub(super) const fn family(self) -> IpFamily {
        IpFamily::of(self.cluster_ip)
    }

    /// Of those with the same address and port one is left: where the cluster's policy and where the ranges of
    /// clients count, they do.
    pub(super) fn frontends(self, port: &PortView) -> Vec<Frontend> {
        let frontend = |address, number, kind| Frontend {
            address,
            port: number,
            protocol: port.protocol,
            kind,
        };
        let cluster = Some(self.cluster_ip).filter(|ip| !self.is_of_node(*ip));
        let cluster = cluster.map(|ip| frontend(ip, port.port, FrontendKind::ClusterIp));
        let balancer = self.load_balancer_ips();
        let balancer = balancer.map(|ip| frontend(ip, port.port, FrontendKind::LoadBalancer));
        let external = self.external_ips();
        let external = external.map(|ip| frontend(ip, port.port, FrontendKind::ExternalIp));
        let node = self.node.node_port_addresses.iter().copied();
        let node = port.node_port.into_iter().flat_map(move |number| {
            let node = self.of_family(node.clone());
            node.map(move |ip| frontend(ip, number, FrontendKind::NodePort))
        });
        let inside = cluster.into_iter();
        let mut frontends: Vec<_> = inside.chain(balancer).chain(external).chain(node).collect();
        let at = |frontend: &Frontend| (frontend.address, frontend.port);
        frontends.sort_by_key(at);
        frontends.dedup_by_key(|frontend| at(frontend));
        frontends
    }

    /// The policy for clients outside counts only where they have a way in.
    pub(super) fn stays_local(self, port: &PortView) -> StaysLocal {
        let mut ways_in = self.load_balancer_ips().chain(self.external_ips());
        let is_accessible = port.node_port.is_some() || ways_in.next().is_some();
        let policies = self.view.stays_local;
        StaysLocal {
            external: policies.external && is_accessible,
            ..policies
        }
    }

    /// Who may dial addresses of load balancers; `None`: there is none, or everybody.
    pub(super) fn source_ranges(self) -> Option<Vec<Cidr>> {
        let ranges = self.view.outside.source_ranges.iter();
        let ranges = ranges.filter(|range| IpFamily::of(range.address()) == self.family());
        let mut ranges: Vec<Cidr> = ranges.copied().collect();
        let is_open = ranges.is_empty() || ranges.iter().any(|range| range.prefix() == 0);
        if is_open || self.load_balancer_ips().next().is_none() {
            return None;
        }
        // What the node sends to an address that it has itself, it sends from this address.
        let primary = self.node.primary(self.family());
        if primary.is_some_and(|own| ranges.iter().any(|range| range.contains(own))) {
            ranges.extend(self.load_balancer_ips().map(Cidr::of));
        }
        ranges.sort_unstable();
        ranges.dedup();
        Some(ranges)
    }

    fn is_of_node(self, address: IpAddr) -> bool {
        self.node.local_addresses.contains_key(&address)
    }

    fn load_balancer_ips(self) -> impl Iterator<Item = IpAddr> + 'a {
        self.of_family(self.view.outside.load_balancer_ips.iter().copied())
    }

    fn external_ips(self) -> impl Iterator<Item = IpAddr> + 'a {
        let are_allowed = self.node.external_ips;
        let listed = self.view.outside.external_ips.iter().copied();
        self.of_family(listed.filter(move |_| are_allowed))
    }

    fn of_family<I>(self, addresses: I) -> impl Iterator<Item = IpAddr> + use<I>
    where
        I: Iterator<Item = IpAddr>,
    {
        let family = self.family();
        addresses.filter(move |ip| IpFamily::of(*ip) == family)
    }
}
