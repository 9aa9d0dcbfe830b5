//! Services by the thousands: one port, backends on other nodes.

use proxy_common::{
    ABI_VERSION, AddrV4, AddrV6, Address, Backend, Detection, Frontend, FrontendKey, FrontendKind,
    Locality, NodeConfig, NodeFamily, NodeOptions, Port, Proto, Range, RegionHeader, ServiceWord,
};
use proxy_user::datapath::{FamilyOp, Op};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Backends of a service, for each family, where nothing else is said.
pub(crate) const BACKENDS: u32 = 2;
const GENERATION: u32 = 1;

/// Address of the first service, the others follow.
pub(crate) const FIRST_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
/// The same for IPv6.
pub(crate) const FIRST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0);
/// Port of all services.
pub(crate) const PORT: u16 = 80;

/// Addresses of pods; clients are from here, so they are not masked.
const PODS_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 0);
const PODS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0);
const BACKENDS_V4: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 0);
const BACKENDS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x245, 0, 0, 0, 0, 0);

/// The row of `CONFIG`.
pub(crate) fn config() -> NodeConfig {
    NodeConfig {
        abi_version: ABI_VERSION,
        snat_port_min: Port::new(1024),
        snat_port_max: Port::new(29999),
        host_netns: 0,
        v4: family(
            v4(Ipv4Addr::new(172, 31, 1, 2), 0),
            v4(PODS_V4, 0),
            v4(Ipv4Addr::new(255, 255, 0, 0), 0),
        ),
        v6: family(
            v6(Ipv6Addr::new(0xfd00, 0x172, 0x31, 1, 0, 0, 0, 2), 0),
            v6(PODS_V6, 0),
            v6(Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0, 0, 0, 0, 0), 0),
        ),
        options: NodeOptions::default(),
        unused: 0,
    }
}

fn region(backends: u32, ids: impl Iterator<Item = u32>) -> Vec<u32> {
    let header = RegionHeader::of_remote(GENERATION, backends);
    header.words().into_iter().chain(ids).collect()
}

/// A node of this address, and pods in this range.
fn family<A: Address>(node: A, address: A, mask: A) -> NodeFamily<A> {
    let pods = Range { address, mask };
    let mut family = NodeFamily::new(node).detecting(Detection::BySource, pods);
    family.cluster = pods;
    family
}

/// All rows of so many services with so many backends each. IPv4 has the service ids from 1 on, IPv6 those above.
pub(crate) fn ops(services: u32, backends: u32) -> Vec<Op> {
    let families = (1..=services).flat_map(|number| {
        [
            of_family(
                [number, number, backends],
                Op::V4,
                |id| v4(BACKENDS_V4, id),
                v4(FIRST_V4, number - 1),
            ),
            of_family(
                [number, services + number, backends],
                Op::V6,
                |id| v6(BACKENDS_V6, id),
                v6(FIRST_V6, number - 1),
            ),
        ]
    });
    families.flatten().collect()
}

fn of_family<A: Address>(
    [number, service, backends]: [u32; 3],
    op: fn(FamilyOp<A>) -> Op,
    backend: impl Fn(u32) -> A,
    address: A,
) -> Vec<Op> {
    let ids = (number - 1) * backends + 1..=number * backends;
    let row = |id| Backend::new(backend(id), Port::new(8080), Locality::Remote, GENERATION);
    let mut ops: Vec<Op> = ids
        .clone()
        .map(|id| op(FamilyOp::PutBackend { id, row: row(id) }))
        .collect();
    let start = (service - 1) * (RegionHeader::WORDS + backends);
    ops.push(Op::PutRegion {
        start,
        words: region(backends, ids),
    });
    ops.push(Op::PutService {
        id: service,
        word: ServiceWord::new(start, GENERATION),
    });
    ops.push(op(FamilyOp::PutFrontend {
        key: FrontendKey::new(address, Port::new(PORT), Proto::Tcp),
        row: Frontend::new(service, FrontendKind::ClusterIp),
    }));
    ops
}

fn v4(base: Ipv4Addr, offset: u32) -> AddrV4 {
    AddrV4::from_be((base.to_bits() + offset).to_be())
}

fn v6(base: Ipv6Addr, offset: u32) -> AddrV6 {
    let bits = base.to_bits() + u128::from(offset);
    let word = |index: u32| ((bits >> (96 - 32 * index)) as u32).to_be();
    AddrV6::from_be([word(0), word(1), word(2), word(3)])
}
