//! What is known of a service port, in the words of the maps.

use super::{Family, RangeKey};
use crate::flows::ticks;
use crate::frontend::{self, Cidr, Protocol, ServicePort};
use proxy_common::{
    Backend, Frontend, FrontendKey, FrontendKind, FrontendTrait, Lists, Locality, Port, Proto,
    RegionHeader, SourceRange,
};

/// Whether regions are the same but for their generation.
pub(super) fn same(one: &[u32], other: &[u32]) -> bool {
    one.get(1..) == other.get(1..)
}

/// A region without its generation. The backends' ids are in order.
pub(super) fn words(port: &ServicePort, sources: u32, backends: Vec<u32>) -> Vec<u32> {
    let count = |wanted: fn(&frontend::Backend) -> bool| {
        let found = port.backends.iter().filter(|backend| wanted(backend));
        found.count() as u32
    };
    let cluster_from = count(|it| it.in_local && !it.in_cluster);
    let header = RegionHeader {
        generation: 0,
        backends: backends.len() as u32,
        local: count(|it| it.in_local),
        cluster_from,
        cluster_to: cluster_from + count(|it| it.in_cluster),
        affinity: port.affinity.map_or(0, ticks),
        sources,
    };
    let mut words = header.words().to_vec();
    words.extend(backends);
    words
}

/// Where a backend stands in a region.
pub(super) fn place(backend: &frontend::Backend) -> u8 {
    match (backend.in_local, backend.in_cluster) {
        (true, false) => 0,
        (true, true) => 1,
        (false, true) => 2,
        (false, false) => 3,
    }
}

pub(super) fn frontend_row(service: u32, kind: FrontendKind, port: &ServicePort) -> Frontend {
    let stays_local = match kind {
        FrontendKind::ClusterIp | FrontendKind::Address => port.stays_local.internal,
        FrontendKind::NodePort | FrontendKind::ExternalIp | FrontendKind::LoadBalancer => {
            port.stays_local.external
        }
    };
    let is_restricted = kind == FrontendKind::LoadBalancer && port.source_ranges.is_some();
    Frontend::new(service, kind)
        .with(FrontendTrait::ClosesTcp, port.closes_tcp)
        .with(FrontendTrait::StaysLocal, stays_local)
        .with(FrontendTrait::Sticks, port.affinity.is_some())
        .with(FrontendTrait::Restricted, is_restricted)
}

pub(super) fn backend_row<A: Family>(
    backend: &frontend::Backend,
    address: A,
    generation: u32,
) -> Backend<A> {
    let lists = Lists {
        local: backend.in_local,
        cluster: backend.in_cluster,
    };
    let port = Port::new(backend.port);
    Backend::new(address, port, locality(backend), generation).listed(lists)
}

/// A range of a family, in a set.
pub(super) fn range_key<A: Family>(set: u32, range: &Cidr) -> Option<RangeKey<A>> {
    let address = A::from_ip(range.first())?;
    Some(RangeKey {
        range: SourceRange { set, address },
        prefix: range.prefix(),
    })
}

pub(super) fn key<A: Family>(
    frontend: &frontend::Frontend,
) -> Option<(FrontendKey<A>, FrontendKind)> {
    let proto = match frontend.protocol {
        Protocol::Tcp => Proto::Tcp,
        Protocol::Udp => Proto::Udp,
        Protocol::Sctp => Proto::Sctp,
    };
    let kind = match frontend.kind {
        frontend::FrontendKind::ClusterIp => FrontendKind::ClusterIp,
        frontend::FrontendKind::NodePort => FrontendKind::NodePort,
        frontend::FrontendKind::ExternalIp => FrontendKind::ExternalIp,
        frontend::FrontendKind::LoadBalancer => FrontendKind::LoadBalancer,
    };
    let address = A::from_ip(frontend.address)?;
    Some((
        FrontendKey::new(address, Port::new(frontend.port), proto),
        kind,
    ))
}

fn locality(backend: &frontend::Backend) -> Locality {
    if backend.local {
        Locality::Local
    } else {
        Locality::Remote
    }
}
