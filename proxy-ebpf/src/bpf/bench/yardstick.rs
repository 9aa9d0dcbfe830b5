//! What every translation of a packet must cost: one look-up and the rewrite, nothing else.

use super::{DONE, FAILED};
use crate::bpf::maps::Maps;
use crate::bpf::skb::EthernetSkb;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use proxy_common::{AddrV4, AddrV6, DropReason, Flow, Port, Proto, Table, Tuple};
use proxy_ebpf::checksum::{self, Delta};
use proxy_ebpf::kernel::Kernel;
use proxy_ebpf::packet::{Packet, Part, Zero};

/// An IPv4 header without options (RFC 791) and a TCP header (RFC 9293).
#[repr(C)]
struct Ipv4 {
    first: [u32; 2],
    ttl: u8,
    protocol: u8,
    checksum: u16,
    addresses: [AddrV4; 2],
    ports: [Port; 2],
    sequence: [u32; 3],
    sum: u16,
    urgent: u16,
}

/// An IPv6 header (RFC 8200) and the ports of what follows.
#[repr(C)]
struct Ipv6 {
    first: [u32; 2],
    addresses: [AddrV6; 2],
    ports: [Port; 2],
    transport: [u32; 4],
}

#[classifier]
fn yardstick_v4(context: TcContext) -> i32 {
    done(v4(&context))
}

/// The yardstick without helpers for checksums: right only for packets whose sum no device has computed or will.
#[classifier]
fn floor_v4(context: TcContext) -> i32 {
    done(v4_by_hand(&context))
}

#[classifier]
fn yardstick_v6(context: TcContext) -> i32 {
    done(v6(&context))
}

#[inline(always)]
fn v4(context: &TcContext) -> Option<Result<(), DropReason>> {
    let maps = Maps::new(context);
    let flow = rewrite_v4(headers::<Ipv4>(context)?, &maps)?;
    let field = EthernetSkb::NETWORK + 20 + 16;
    let deltas = (flow.address_delta, flow.port_delta);
    Some(adjust(context, field, deltas))
}

#[inline(always)]
fn v4_by_hand(context: &TcContext) -> Option<Result<(), DropReason>> {
    let packet = headers::<Ipv4>(context)?;
    let maps = Maps::new(context);
    let flow = rewrite_v4(packet, &maps)?;
    let delta = Delta::default()
        .add(flow.address_delta)
        .add(flow.port_delta);
    packet.sum = checksum::adjusted(packet.sum, delta.folded());
    Some(Ok(()))
}

#[inline(always)]
fn rewrite_v4<'a>(packet: &mut Ipv4, maps: &'a Maps) -> Option<&'a Flow<AddrV4>> {
    let ([src, dst], [sport, dport]) = (packet.addresses, packet.ports);
    let key = Tuple::new(Proto::Tcp, (src, sport), (dst, dport));
    let flow: &Flow<AddrV4> = maps.flow(Table::Confirmed, &key)?;
    packet.checksum = checksum::adjusted(packet.checksum, flow.address_delta);
    packet.addresses = [flow.src, flow.dst];
    packet.ports = [flow.sport, flow.dport];
    Some(flow)
}

#[inline(always)]
fn v6(context: &TcContext) -> Option<Result<(), DropReason>> {
    let packet = headers::<Ipv6>(context)?;
    let ([src, dst], [sport, dport]) = (packet.addresses, packet.ports);
    let key = Tuple::new(Proto::Tcp, (src, sport), (dst, dport));
    let maps = Maps::new(context);
    let flow: &Flow<AddrV6> = maps.flow(Table::Confirmed, &key)?;
    packet.ports = [flow.sport, flow.dport];
    let addresses = [flow.src, flow.dst];
    let deltas = (flow.address_delta, flow.port_delta);
    if let Err(reason) =
        EthernetSkb::new(context).store_uncovered(EthernetSkb::NETWORK + 8, addresses)
    {
        return Some(Err(reason));
    }
    let field = EthernetSkb::NETWORK + 40 + 16;
    Some(adjust(context, field, deltas))
}

#[inline(always)]
fn adjust(context: &TcContext, field: usize, deltas: (u32, u32)) -> Result<(), DropReason> {
    let mut packet = EthernetSkb::new(context);
    packet.adjust_checksum(field, deltas.0, Part::PseudoHeader, Zero::Sum)?;
    if checksum::is_change(deltas.1) {
        packet.adjust_checksum(field, deltas.1, Part::Payload, Zero::Sum)?;
    }
    Ok(())
}

#[inline(always)]
fn headers<'a, T>(context: &TcContext) -> Option<&'a mut T> {
    let start = context.data() + EthernetSkb::NETWORK;
    if start + size_of::<T>() > context.data_end() {
        return None;
    }
    // SAFETY: bounds were checked, every bit pattern is a valid T. It may be unaligned, which the
    // kernel allows in packets wherever the machine does.
    Some(unsafe { &mut *(start as *mut T) })
}

#[inline(always)]
fn done(outcome: Option<Result<(), DropReason>>) -> i32 {
    match outcome {
        Some(Ok(())) => DONE,
        Some(Err(_)) | None => FAILED,
    }
}
