//! The fast lane: flows between devices that the operator has named pass the node's stack by. Where a packet comes
//! in it is translated, routed and sent on; where it leaves the rest is done as ever.
//!
//! A flow takes it with its first packet, or never does: half of a connection is nothing that a firewall of this
//! node would understand. What speaks against it then is a neighbour that is not known yet, a way back that is
//! another, a way too narrow for what may come, addresses that a CNI plugin would masquerade. Later the stack gets
//! only what it has to judge or to answer: a packet at the end of its time to live, or one that can't go on.

mod opening;

pub use opening::choose;

use crate::family::Family;
use crate::kernel::{Hop, Journey, Kernel, NextHop, Onward};
use crate::packet::{Hooked, Redirect};
use crate::parse::{Headers, transport_length};
use crate::{DropReason, Fate, Verdict, known};
use core::cell::Cell;
use proxy_common::{Device, DeviceTrait, Flow, FlowRole, Mac, Mark, Proto};

/// Which way a packet goes through this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Lane {
    /// Through its stack.
    Stack,
    /// Past it: out by a device, to the next hop.
    Next,
    /// Out by a device without Ethernet headers.
    Bare,
    /// In at the other end of a device.
    Across,
}

/// See [`find`].
#[inline(never)]
fn hop<A: Family, K: Kernel<A>>(kernel: &K, journey: &Journey<'_, A>) -> Hop {
    kernel.find_hop(journey)
}

#[inline(always)]
fn fast_device<A: Family, K: Kernel<A>>(kernel: &K, index: u32) -> Option<&Device> {
    kernel
        .device(index)
        .filter(|device| device.is(DeviceTrait::Fast))
}

/// Whether the stack would take the packet for one to this node, and not for one that it has overheard. What is
/// addressed to a bridge is so at each of its ports.
#[inline(always)]
fn is_ours<P: Hooked>(packet: &P, arrival: &Device) -> bool {
    if P::IS_PORT {
        packet.load::<Mac>(0) == Some(arrival.bridge)
    } else {
        packet.is_for_device()
    }
}

/// Whether a router must not send the packet on.
#[inline(always)]
fn is_dying<A: Family, P: Hooked>(packet: &P) -> bool {
    A::hops_left(packet).is_none_or(|hops| hops <= 1)
}

/// What is left to be done for a packet where it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing.
    Nothing,
    /// To give it another source.
    Source,
}

impl Rest {
    #[inline(always)]
    fn of<A: Family>(flow: &Flow<A>) -> Self {
        let is_unmasked = flow.has_role(FlowRole::Dnat) && !flow.has(Mark::Masked);
        if is_unmasked || flow.has_role(FlowRole::UnDnat) {
            Self::Nothing
        } else {
            Self::Source
        }
    }
}

/// How a packet leaves; at the other end of a device only if nothing is left to be done. What was addressed to a
/// bridge would still be that of another host there.
#[inline(always)]
fn exit<P: Hooked>(onward: Onward, departure: &Device, rest: Rest) -> Lane {
    let is_done = rest == Rest::Nothing && onward == Onward::Known && !P::IS_PORT;
    if departure.is_bare() {
        Lane::Bare
    } else if is_done && departure.is(DeviceTrait::Peered) {
        Lane::Across
    } else {
        Lane::Next
    }
}

/// Whether a packet of a known flow passes the stack by: then its translation is applied here and now. [`leave`]
/// knows the way: the verifier would follow what comes next once for each if it were told.
#[inline(always)]
pub fn takes<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &P,
    kernel: &K,
    headers: &Headers<A>,
    flow: &Flow<A>,
) -> bool {
    if !kernel.has_fast_lane() {
        return false;
    }
    // First of all: the row may become another's before it is read again.
    if let Some(lane) = kernel.lane() {
        lane.set(Lane::Stack);
    }
    flow.is_fast() && !known::is_of_another(flow, headers) && find(packet, kernel, headers, flow)
}

/// A function of its own to the verifier too: it must not cost others registers and stack.
#[inline(never)]
fn find<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &P,
    kernel: &K,
    headers: &Headers<A>,
    flow: &Flow<A>,
) -> bool {
    let (Some(lane), Some(device)) = (kernel.lane(), arrival(packet, kernel)) else {
        return false;
    };
    let is_judged = !is_plain::<A, P>(headers) || is_dying::<A, P>(packet);
    if is_judged || !comes_back(kernel, headers, flow, device) {
        return false;
    }
    let journey = Journey {
        src: &headers.tuple.src,
        dst: &flow.dst,
        device,
        length: length(packet, headers),
    };
    lane.set(way::<A, P, K>(kernel, &journey, Rest::of(flow)));
    lane.get() != Lane::Stack
}

/// Whether a packet comes in where packets of its flow do, or, should routes have changed, where one to its source
/// would go.
#[inline(always)]
fn comes_back<A: Family, K: Kernel<A>>(
    kernel: &K,
    headers: &Headers<A>,
    flow: &Flow<A>,
    device: u32,
) -> bool {
    let journey = Journey {
        src: &flow.dst,
        dst: &headers.tuple.src,
        device,
        length: 0,
    };
    flow.device == device || hop(kernel, &journey).device == device
}

/// The length of a packet, or of those into which it is still to be cut, from the network header on.
#[inline(always)]
fn length<A: Family, P: Hooked>(packet: &P, headers: &Headers<A>) -> u32 {
    let network = P::NETWORK as u32;
    match (headers.transport(), packet.segment()) {
        (Some(transport), segment) if segment != 0 => {
            let header = match headers.proto {
                Proto::Tcp => packet.load(transport + DATA_OFFSET).map_or(0, data_offset),
                proto @ (Proto::Udp | Proto::Sctp) => transport_length(proto) as u32,
            };
            transport as u32 - network + header + segment
        }
        _ => packet.length() - network,
    }
}

/// Where a TCP header has its own length (RFC 9293 section 3.1), and what it is in bytes.
const DATA_OFFSET: usize = 12;

#[inline(always)]
const fn data_offset(byte: u8) -> u32 {
    (byte as u32 >> 4) << 2
}

/// Whether a router has nothing to do with a packet but to send it on: options and extension headers may be for
/// it. Of IPv6 all fragments have one, and go one way.
#[inline(always)]
fn is_plain<A: Family, P: Hooked>(headers: &Headers<A>) -> bool {
    match headers.transport() {
        Some(transport) => transport == P::NETWORK + A::HEADER,
        None => !A::FRAGMENTS_BY_EXTENSION,
    }
}

#[inline(always)]
fn way<A: Family, P: Hooked, K: Kernel<A>>(
    kernel: &K,
    journey: &Journey<'_, A>,
    rest: Rest,
) -> Lane {
    let hop = hop(kernel, journey);
    // By whatever else a changed route leads, the stack goes.
    let Some(departure) = fast_device(kernel, hop.device) else {
        return Lane::Stack;
    };
    match hop.onward {
        Onward::Known | Onward::Unknown => exit::<P>(hop.onward, departure, rest),
        Onward::TooLong | Onward::No => Lane::Stack,
    }
}

/// The device by which routes name that of a packet; `None` if it is none of ours.
#[inline(always)]
fn arrival<A: Family, P: Hooked, K: Kernel<A>>(packet: &P, kernel: &K) -> Option<u32> {
    let index = packet.device();
    if !P::IS_PORT {
        return packet.is_for_device().then_some(index);
    }
    let device = kernel.device(index)?;
    is_ours(packet, device).then_some(device.routed_as)
}

/// Sends a translated packet on, if that is its way.
#[inline(always)]
pub fn leave<A: Family, P: Hooked, K: Kernel<A>, const IS_INGRESS: bool>(
    packet: &mut P,
    kernel: &K,
) -> Fate {
    if IS_INGRESS && kernel.has_fast_lane() {
        send(packet, kernel)
    } else {
        Ok(Verdict::Established)
    }
}

/// A function of its own to the verifier too: see [`find`].
#[inline(never)]
fn send<A: Family, P: Hooked, K: Kernel<A>>(packet: &mut P, kernel: &K) -> Fate {
    let lane = kernel.lane().map_or(Lane::Stack, Cell::get);
    if lane == Lane::Stack {
        return Ok(Verdict::Established);
    }
    A::age(packet)?;
    let found = kernel.found_hop().ok_or(DropReason::RewriteFailed)?;
    let NextHop {
        device,
        gateway,
        macs,
    } = found;
    match lane {
        Lane::Stack => {}
        Lane::Next => packet.redirect(Redirect::Next { device, gateway })?,
        Lane::Bare => packet.redirect(Redirect::Out {
            device,
            is_bare: true,
        })?,
        Lane::Across => packet.redirect(Redirect::Across { device, macs })?,
    }
    Ok(Verdict::Fast)
}

/// Sends a translated ICMP error after the flow that it is about. What can't follow is left to the stack.
///
/// A function of its own to the verifier too: see [`find`].
#[inline(never)]
pub fn send_error<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &K,
) -> Result<(), DropReason> {
    if let (Some(outer), Some(device)) = (A::network(packet, P::NETWORK), arrival(packet, kernel))
        && !is_dying::<A, P>(packet)
        && let Some(lane) = kernel.lane()
    {
        let [src, dst] = &outer.addresses;
        let length = packet.length() - P::NETWORK as u32;
        let journey = Journey {
            src,
            dst,
            device,
            length,
        };
        lane.set(way::<A, P, K>(kernel, &journey, Rest::Source));
        send(packet, kernel)?;
    }
    Ok(())
}
