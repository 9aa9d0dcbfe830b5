//! What is decided about the first packet of a flow, of any protocol, by itself: the conformance ring asks it about
//! packets that are not rewritten yet.
//!
//! The packet's destination becomes the backend's; no row of a flow is written.

use crate::bpf::maps::Maps;
use crate::bpf::skb::EthernetSkb;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use core::mem::offset_of;
use proxy_common::{AddrV4, AddrV6, DropReason, Port, Proto, Tuple};
use proxy_ebpf::family::Family;
use proxy_ebpf::kernel::Kernel;
use proxy_ebpf::packet::Packet as _;
use proxy_ebpf::service::{self, Elsewhere};

/// Behind an Ethernet header.
const NETWORK: usize = 14;
/// The EtherType (IEEE 802 numbers).
const IPV4: u16 = 0x0800;
/// Returned for a packet to no frontend, for one that is forwarded, for that if it is masked, and, with the reason
/// added, for one that is dropped; a negative number: nothing could be decided.
const UNRELATED: i32 = 0;
const FORWARDED: i32 = 1;
const MASKED: i32 = 2;
const DROPPED: i32 = 100;
const FAILED: i32 = -1;

/// Both network headers have protocol, source and destination somewhere, and the ports behind them.
#[repr(C)]
struct Ipv4 {
    before: [u8; 9],
    proto: u8,
    checksum: u16,
    addresses: [AddrV4; 2],
    ports: [Port; 2],
}

#[repr(C)]
struct Ipv6 {
    before: [u8; 6],
    proto: u8,
    hops: u8,
    addresses: [AddrV6; 2],
    ports: [Port; 2],
}

#[classifier]
fn judge(context: TcContext) -> i32 {
    let mut packet = EthernetSkb::new(&context);
    if packet.ethertype() == IPV4 {
        packet.make_readable(NETWORK + size_of::<Ipv4>());
        let proto = NETWORK + offset_of!(Ipv4, proto);
        let addresses = NETWORK + offset_of!(Ipv4, addresses);
        return of_family::<AddrV4>(&context, &mut packet, proto, addresses);
    }
    packet.make_readable(NETWORK + size_of::<Ipv6>());
    let proto = NETWORK + offset_of!(Ipv6, proto);
    let addresses = NETWORK + offset_of!(Ipv6, addresses);
    of_family::<AddrV6>(&context, &mut packet, proto, addresses)
}

/// `addresses`: where they are; the ports follow.
#[inline(always)]
fn of_family<A: Family>(
    context: &TcContext,
    packet: &mut EthernetSkb,
    proto: usize,
    addresses: usize,
) -> i32
where
    Maps: Kernel<A>,
{
    let ports = addresses + 2 * size_of::<A>();
    let read = || {
        let proto = Proto::from_number(packet.load::<u8>(proto)?)?;
        let src = packet.load::<A>(addresses)?;
        let dst = packet.load::<A>(addresses + size_of::<A>())?;
        let [sport, dport] = packet.load::<[u16; 2]>(ports)?.map(Port::from_be);
        Some((proto, Tuple::new(proto, (src, sport), (dst, dport))))
    };
    let Some((proto, tuple)) = read() else {
        return FAILED;
    };
    let mut maps = Maps::new(context);
    let Some(frontend) = service::dialled(&maps, proto, &tuple) else {
        return elsewhere(service::elsewhere(&maps, &tuple.dst));
    };
    // SAFETY: the context of a tc program, whose mark it may read.
    let mark = unsafe { (*context.skb.skb).mark };
    // It says whether a process of this node has sent the packet.
    let decided = maps.with_plan(|maps, plan| {
        plan.begin(&tuple, 1, mark != 0);
        service::choose(maps, frontend, plan)?;
        let written = packet
            .store(addresses + size_of::<A>(), plan.to.dst)
            .and(packet.store(ports + size_of::<Port>(), plan.to.dport.be()));
        written.map(|()| if plan.masked { MASKED } else { FORWARDED })
    });
    match decided {
        Some(Ok(code)) => code,
        Some(Err(reason)) => DROPPED + reason as i32,
        None => FAILED,
    }
}

#[inline(always)]
fn elsewhere(what: Elsewhere) -> i32 {
    match what {
        Elsewhere::Unrelated => UNRELATED,
        Elsewhere::NoPort => DROPPED + DropReason::NoBackend as i32,
        Elsewhere::NoService => DROPPED + DropReason::NoService as i32,
    }
}
