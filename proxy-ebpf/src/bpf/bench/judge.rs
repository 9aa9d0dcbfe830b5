//! What is decided about the first packet of a flow, of any protocol, by itself: the conformance ring asks it about
//! packets that are not rewritten yet.
//!
//! The packet's destination becomes the backend's; no row of a flow is written.

use crate::bpf::maps::Maps;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use core::mem::offset_of;
use proxy_common::{AddrV4, AddrV6, DropReason, Port, Proto, Tuple};
use proxy_ebpf::family::Family;
use proxy_ebpf::kernel::Kernel;
use proxy_ebpf::service::{self, Elsewhere};

/// Behind an Ethernet header.
const NETWORK: usize = 14;
/// The EtherType (IEEE 802 numbers).
const IPV4: u16 = 0x0800_u16.to_be();
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
    match context.load::<u16>(NETWORK - size_of::<u16>()) {
        Ok(IPV4) => {
            let proto = NETWORK + offset_of!(Ipv4, proto);
            of_family::<AddrV4>(&context, proto, NETWORK + offset_of!(Ipv4, addresses))
        }
        Ok(_) => {
            let proto = NETWORK + offset_of!(Ipv6, proto);
            of_family::<AddrV6>(&context, proto, NETWORK + offset_of!(Ipv6, addresses))
        }
        Err(_) => FAILED,
    }
}

/// `addresses`: where they are; the ports follow.
#[inline(always)]
fn of_family<A: Family>(context: &TcContext, proto: usize, addresses: usize) -> i32
where
    Maps: Kernel<A>,
{
    let ports = addresses + size_of::<[A; 2]>();
    let (Ok(proto), Ok([src, dst]), Ok([sport, dport])) = (
        context.load::<u8>(proto),
        context.load::<[A; 2]>(addresses),
        context.load::<[Port; 2]>(ports),
    ) else {
        return FAILED;
    };
    let Some(proto) = Proto::from_number(proto) else {
        return FAILED;
    };
    let tuple = Tuple::new(proto, (src, sport), (dst, dport));
    let mut maps = Maps::new(context);
    let frontend = match service::dialled(&maps, proto, &tuple) {
        Some(frontend) => frontend,
        None => return elsewhere(service::elsewhere(&maps, &tuple.dst)),
    };
    let decided = maps.with_plan(|maps, plan| {
        // The mark says whether a process of this node has sent it.
        // SAFETY: the context of a tc program, whose mark it may read.
        let is_host = unsafe { (*context.skb.skb).mark } != 0;
        plan.begin(&tuple, 1, is_host);
        service::choose(maps, frontend, plan)?;
        let to = (plan.to.dst, plan.to.dport);
        Ok::<_, DropReason>((to, plan.masked))
    });
    match decided {
        Some(Ok(((address, port), is_masked))) => {
            let written = context.store(addresses + size_of::<A>(), &address, 0);
            let written = written.and(context.store(ports + size_of::<Port>(), &port, 0));
            match (written, is_masked) {
                (Ok(()), false) => FORWARDED,
                (Ok(()), true) => MASKED,
                (Err(_), _) => FAILED,
            }
        }
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
