//! ICMP errors about packets of translated flows: the quoted packet is put back to what its sender has
//! sent, and the error addressed to it.
//!
//! An error quotes a packet of tuple T as it was where it failed. The row that is found by answers to T
//! says what they become; reversed that is what T has been on the other side of this hook.

use crate::checksum::{self, Delta};
use crate::family::Family;
use crate::kernel::Kernel;
use crate::nat;
use crate::network::Part;
use crate::packet::{Packet, Zero};
use crate::parse::Ports;
use crate::{DropReason, Fate, Verdict};
use core::hint::black_box;
use proxy_common::{Flow, Hook, Proto, Table, Tuple};

/// Length of the header of an error (RFC 792, RFC 4443 section 2.1).
pub(crate) const HEADER: usize = 8;
/// Offset of the checksum in it.
const CHECKSUM: usize = 2;
/// What must lie in front of us to find any quote's first bytes: the options of an IPv6 redirect.
const LOOK_AHEAD: usize = 80;
/// Bytes of a quoted transport header that are looked at, if there are as many.
const TRANSPORT: usize = 20;

/// What a message of ICMP tells its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A packet has not arrived.
    Error,
    /// It was too long for a link on the way.
    TooBig,
    /// A packet should take another way.
    Redirect,
}

/// Where the packet begins that an IPv6 redirect quotes: in an option, perhaps behind another one with the
/// next hop's link-layer address (RFC 4861 sections 4.5 and 4.6).
#[inline(always)]
pub(crate) fn redirected<P: Packet>(packet: &P, message: usize) -> Option<usize> {
    const OPTIONS: usize = 40;
    const TARGET: u8 = 2;
    const REDIRECTED: u8 = 4;
    let mut at = message + OPTIONS;
    let mut option: [u8; 2] = packet.load(at)?;
    // In units of eight bytes; link-layer addresses of up to 22 bytes are looked behind.
    if let [TARGET, length @ 1..=3] = option {
        at += usize::from(length) * 8;
        option = packet.load(at)?;
    }
    (option[0] == REDIRECTED).then_some(at + 8)
}

/// An error, and the packet in it.
struct Found<A> {
    kind: Kind,
    /// Offset of the ICMP header.
    message: usize,
    /// Offset of the quoted network header.
    quote: usize,
    /// Offset of what follows the packet.
    end: usize,
    proto: Proto,
    /// Of packets that answer the quoted one.
    answer: Tuple<A>,
}

/// What becomes of a packet that is neither TCP nor UDP; `Fast` if it has been translated and is to pass the stack
/// by.
///
/// A function of its own to the verifier too: the stack it needs is needed for this call only.
#[inline(never)]
pub fn unsupported<A: Family, P: Packet, K: Kernel<A>>(
    packet: &mut P,
    kernel: &K,
    hook: Hook,
) -> Fate {
    let found = match find::<A, P>(packet) {
        Ok(found) => found,
        Err(verdict) => return Ok(verdict),
    };
    let row = kernel.flow(Table::Confirmed, &found.answer);
    let Some(row) = row.or_else(|| kernel.flow(Table::HalfOpen, &found.answer)) else {
        return Ok(Verdict::NotService);
    };
    if found.kind == Kind::Redirect {
        return Err(DropReason::Redirect);
    }
    // All is done where it comes in for what passes the stack by.
    let has_fast_lane = hook == Hook::Ingress && kernel.has_fast_lane();
    let is_fast = has_fast_lane && row.is_fast();
    if !is_fast && !row.applies_at(hook) {
        return Ok(Verdict::OtherHook);
    }
    let is_forged = found.kind == Kind::TooBig && hook == Hook::Egress;
    translate(packet, &found, row, is_forged)?;
    // Read anew: see `known::Passage`.
    if has_fast_lane && black_box(row).is_fast() {
        Ok(Verdict::Fast)
    } else {
        Ok(Verdict::IcmpTranslated)
    }
}

#[inline(always)]
fn find<A: Family, P: Packet>(packet: &mut P) -> Result<Found<A>, Verdict> {
    let outer = A::network(packet, P::NETWORK).ok_or(Verdict::Unsupported)?;
    if outer.proto != A::ICMP {
        return Err(Verdict::Unsupported);
    }
    let message = P::NETWORK + outer.length();
    let end = P::NETWORK + outer.total();
    packet.make_readable(message + LOOK_AHEAD);
    // Not the first byte alone: the verifier takes no bound from a comparison with the packet's end that
    // has no distance to it.
    let [number, code, ..]: [u8; HEADER] = packet.load(message).ok_or(Verdict::Malformed)?;
    let kind = A::icmp_kind(number, code).ok_or(Verdict::Unsupported)?;
    let quote = A::quote(packet, message, kind).ok_or(Verdict::IcmpQuote)?;
    packet.make_readable(quote + A::HEADER + TRANSPORT);
    let (proto, answer) = read(packet, quote, end).ok_or(Verdict::IcmpQuote)?;
    Ok(Found {
        kind,
        message,
        quote,
        end,
        proto,
        answer,
    })
}

/// Reads the quoted packet, as far as there is one of TCP or UDP without options.
#[inline(always)]
fn read<A: Family, P: Packet>(packet: &P, quote: usize, end: usize) -> Option<(Proto, Tuple<A>)> {
    let inner = A::network(packet, quote)?;
    let proto = Proto::of_packet(inner.proto)?;
    let transport = quote + A::HEADER;
    let is_whole = transport + size_of::<Ports>() <= end;
    if inner.length() != A::HEADER || inner.part == Part::Later || !is_whole {
        return None;
    }
    let ports: Ports = packet.load(transport)?;
    let [src, dst] = inner.addresses;
    let answer = Tuple::new(proto, (dst, ports.dst), (src, ports.src));
    Some((proto, answer))
}

/// Who is named in the quoted packet is named so outside of it too. The address of a router on the way
/// stays, so that a trace shows it; unless the error must arrive whatever the way (`is_forged`): a router
/// drops what comes from its own address, and the way to the client may lead through it again.
///
/// All bytes are stored directly, whatever sum the device has taken of the packet (CHECKSUM_COMPLETE):
/// each header's own checksum balances what changes in it, and the one of ICMP all the rest. The sum of
/// the whole packet stays what it was.
#[inline(always)]
fn translate<A: Family, P: Packet>(
    packet: &mut P,
    found: &Found<A>,
    row: &Flow<A>,
    is_forged: bool,
) -> Result<(), DropReason> {
    let (address_delta, port_delta) = (row.address_delta, row.port_delta);
    let (src, dst) = (row.dst, row.src);
    let ports = Ports {
        src: row.dport,
        dst: row.sport,
    };
    packet.store(found.quote + A::HEADER, ports)?;
    A::store_covered(packet, found.quote, [src, dst], address_delta)?;
    let change = Delta::default().add(address_delta).add(port_delta);
    let delta = adjust_quoted(packet, found, change.folded())?.add(port_delta);

    let outer_delta = translate_outside(packet, &found.answer, [src, dst], is_forged)?;
    // Of IPv6 addresses, those outside enter the sum as its pseudo header.
    let delta = delta.add(A::uncovered(address_delta));
    let delta = delta.add(A::uncovered(outer_delta));
    let field = found.message + CHECKSUM;
    let old: u16 = packet.load(field).ok_or(DropReason::RewriteFailed)?;
    packet.store(field, checksum::adjusted(old, delta.folded()))
}

/// Adjusts the quoted packet's transport checksum, if that has been quoted; returns what this adds to
/// the message.
#[inline(always)]
fn adjust_quoted<A: Family, P: Packet>(
    packet: &mut P,
    found: &Found<A>,
    change: u32,
) -> Result<Delta, DropReason> {
    let field = found.quote + A::HEADER + nat::checksum_offset(found.proto);
    let is_udp = nat::zero_checksum(found.proto) == Zero::NoChecksum;
    match packet.load::<u16>(field) {
        Some(old) if field + size_of::<u16>() <= found.end && !(is_udp && old == 0) => {
            let new = checksum::adjusted(old, change);
            let new = if is_udp && new == 0 { 0xffff } else { new };
            packet.store(field, new)?;
            Ok(Delta::default().replace(old.into(), new.into()))
        }
        _ => Ok(Delta::default()),
    }
}

/// Gives the error new addresses where they are those of the quoted packet; returns what they add to a
/// sum.
#[inline(always)]
fn translate_outside<A: Family, P: Packet>(
    packet: &mut P,
    answer: &Tuple<A>,
    [src, dst]: [A; 2],
    is_forged: bool,
) -> Result<u32, DropReason> {
    let outer = A::network(packet, P::NETWORK).ok_or(DropReason::RewriteFailed)?;
    let mut from = *answer;
    [from.src, from.dst] = outer.addresses;
    let mut to = from;
    if is_forged || from.src == answer.src {
        to.src = dst;
    }
    if from.dst == answer.dst {
        to.dst = src;
    }
    let delta = A::address_delta(&from, &to);
    A::store_covered(packet, P::NETWORK, [to.src, to.dst], delta)?;
    Ok(delta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, run_hook, tcp, udp, unreachable};
    use proptest::prelude::*;
    use proxy_common::{AddrV4, Address as _, BackendRef, FlowRole, Port, Ticks};
    use std::net::SocketAddrV4;

    fn tuple(proto: Proto, src: SocketAddrV4, dst: SocketAddrV4) -> Tuple<AddrV4> {
        let half = |it: SocketAddrV4| (AddrV4::new(*it.ip()), Port::new(it.port()));
        Tuple::new(proto, half(src), half(dst))
    }

    /// A row, and one that undoes what it does.
    fn there_and_back(from: Tuple<AddrV4>, to: Tuple<AddrV4>) -> World {
        let addresses = AddrV4::address_delta(&from, &to);
        let word =
            |tuple: &Tuple<AddrV4>| u32::from(tuple.sport.be()) + u32::from(tuple.dport.be());
        let ports = Delta::default().replace(word(&from), word(&to)).folded();
        let negated = (checksum::negated(addresses), checksum::negated(ports));
        let row = |to, deltas| {
            let backend = BackendRef {
                id: 1,
                generation: 1,
            };
            Flow::new(FlowRole::UnDnat, to, deltas, backend, Ticks::new(0))
        };
        let mut world = World::default();
        world.v4.flows.insert(from, row(&to, (addresses, ports)));
        world.v4.half_open.insert(to, row(&from, negated));
        world
    }

    fn socket() -> impl Strategy<Value = SocketAddrV4> {
        (any::<u32>(), 1u16..).prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port))
    }

    proptest! {
        #[test]
        fn what_one_row_does_its_opposite_undoes(
            sockets in prop::array::uniform4(socket()),
            is_udp in any::<bool>(),
            is_from_end in any::<bool>(),
            payload in prop::collection::vec(any::<u8>(), 0..40),
            length in 24usize..100,
        ) {
            let [a, b, c, d] = sockets;
            let proto = if is_udp { Proto::Udp } else { Proto::Tcp };
            let make = if is_udp { udp } else { tcp };
            let quoted = make(&b.to_string(), &a.to_string()).payload(&payload).build();
            let router = if is_from_end { a.to_string() } else { "192.0.2.1".into() };
            let error = unreachable(&router, &b.to_string()).quote(quoted, length).build();
            let mut world = there_and_back(tuple(proto, a, b), tuple(proto, c, d));
            let mut packet = error.clone();
            for _ in 0..2 {
                let (fate, output) = run_hook(&mut world, Hook::Egress, &packet);
                prop_assert_eq!(fate, Ok(Verdict::IcmpTranslated));
                packet = output;
            }
            prop_assert_eq!(packet, error);
        }
    }
}
