//! The fast lane: flows between devices that the operator has named pass the node's stack by. Where a packet comes
//! in it is translated, routed and sent on; where it leaves the rest is done as ever.
//!
//! A flow takes it with its first packet, or never does: half of a connection is nothing that a firewall of this
//! node would understand. What speaks against it then is a neighbour that is not known yet, a way back that is
//! another, a way too narrow for what may come, addresses that a CNI plugin would masquerade. Later the stack gets
//! only what it has to judge or to answer: a packet at the end of its time to live, or one that can't go on.

use crate::family::Family;
use crate::kernel::{Kernel, NextHop, Onward};
use crate::open::Plan;
use crate::packet::{Hooked, Redirect};
use crate::parse::Headers;
use crate::{DropReason, known, service};
use proxy_common::{Device, DeviceTrait, Flow, FlowRole, Mac, Mark, Tuple};

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

/// Which way a new flow takes.
///
/// A function of its own to the verifier too: the stack it needs is needed for this call only.
#[inline(never)]
pub fn choose<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &P,
    kernel: &K,
    original: &Tuple<A>,
    plan: &Plan<A>,
) -> Lane {
    let Some(arrival) = fast_device(kernel, packet.device()) else {
        return Lane::Stack;
    };
    let is_open = is_ours(packet, arrival)
        && !is_dying::<A, P>(packet)
        && keeps_addresses(kernel, original, plan)
        && leads_back(kernel, original, plan, arrival);
    if is_open {
        lead(kernel, original, plan, arrival)
    } else {
        Lane::Stack
    }
}

/// Whether answers go by the device that the client is at, all that may come by the widest device.
#[inline(always)]
fn leads_back<A: Family, K: Kernel<A>>(
    kernel: &K,
    original: &Tuple<A>,
    plan: &Plan<A>,
    arrival: &Device,
) -> bool {
    let there = (&original.src, &plan.to.dst);
    let there = kernel.find_hop(there, arrival.routed_as, arrival.mtu);
    let Some(departure) = fast_device(kernel, there.device) else {
        return false;
    };
    let back = (&plan.to.dst, &original.src);
    let back = kernel.find_hop(back, there.device, departure.mtu);
    is_clear(back.onward, arrival) && back.device == arrival.routed_as
}

/// How the first packet leaves.
#[inline(always)]
fn lead<A: Family, K: Kernel<A>>(
    kernel: &K,
    original: &Tuple<A>,
    plan: &Plan<A>,
    arrival: &Device,
) -> Lane {
    let there = (&original.src, &plan.to.dst);
    let there = kernel.find_hop(there, arrival.routed_as, arrival.mtu);
    // Back where it has come from: there client and backend may see each other, and answers pass this node by.
    let turns_round = there.device == arrival.routed_as && !plan.masked;
    match fast_device(kernel, there.device) {
        Some(departure) if is_clear(there.onward, departure) && !turns_round => {
            exit(there.onward, departure, !plan.masked)
        }
        _ => Lane::Stack,
    }
}

/// Whether a packet can go on at once. Where there are no Ethernet headers nobody is asked for an address.
#[inline(always)]
fn is_clear(onward: Onward, departure: &Device) -> bool {
    match onward {
        Onward::Known => true,
        Onward::Unknown => departure.is_bare(),
        Onward::TooLong | Onward::No => false,
    }
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

/// Whether nobody else would give the flow another source on its way out: CNI plugins do so for what is not from
/// pod to pod. What goes to a pod of this node comes back through it, whoever asks.
#[inline(always)]
fn keeps_addresses<A: Family, K: Kernel<A>>(
    kernel: &K,
    original: &Tuple<A>,
    plan: &Plan<A>,
) -> bool {
    let Some(config) = kernel.config() else {
        return false;
    };
    let is_inside = original.src.in_cluster(config) && plan.to.dst.in_cluster(config);
    let is_here = || service::known(kernel, plan.backend).is_some_and(|it| it.is_local());
    A::knows_cluster(config) && (plan.masked || is_inside || is_here())
}

/// How a packet leaves; at the other end of a device only if nothing is left to be done where it leaves.
#[inline(always)]
fn exit(onward: Onward, departure: &Device, is_finished: bool) -> Lane {
    if departure.is_bare() {
        Lane::Bare
    } else if is_finished && onward == Onward::Known && departure.is(DeviceTrait::Peered) {
        Lane::Across
    } else {
        Lane::Next
    }
}

/// Which way a packet of a known flow takes. If not the stack's its translation is applied here and now.
#[inline(always)]
pub fn of<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &P,
    kernel: &K,
    headers: &Headers<A>,
    flow: &Flow<A>,
) -> Lane {
    if flow.is_fast() && !known::is_of_another(flow, headers) {
        find(packet, kernel, &headers.tuple.src, flow)
    } else {
        Lane::Stack
    }
}

/// The same of an ICMP error about one.
#[inline(always)]
pub fn of_error<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &P,
    kernel: &K,
    from: &A,
    flow: &Flow<A>,
) -> Lane {
    if flow.is_fast() {
        find(packet, kernel, from, flow)
    } else {
        Lane::Stack
    }
}

/// A function of its own to the verifier too: it must not cost others registers and stack.
#[inline(never)]
fn find<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &P,
    kernel: &K,
    src: &A,
    flow: &Flow<A>,
) -> Lane {
    let Some(from) = arrival(packet, kernel) else {
        return Lane::Stack;
    };
    if is_dying::<A, P>(packet) {
        return Lane::Stack;
    }
    let hop = kernel.find_hop((src, &flow.dst), from, 0);
    let Some(departure) = kernel.device(hop.device) else {
        return Lane::Stack;
    };
    let is_unmasked = flow.has_role(FlowRole::Dnat) && !flow.has(Mark::Masked);
    let is_finished = is_unmasked || flow.has_role(FlowRole::UnDnat);
    match hop.onward {
        Onward::Known | Onward::Unknown => exit(hop.onward, departure, is_finished),
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

/// Sends a translated packet on.
#[inline(always)]
pub fn leave<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &K,
    lane: Lane,
) -> Result<(), DropReason> {
    match lane {
        Lane::Stack => Ok(()),
        fast => send(packet, kernel, fast),
    }
}

/// A function of its own to the verifier too: see [`find`].
#[inline(never)]
fn send<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &K,
    lane: Lane,
) -> Result<(), DropReason> {
    A::age(packet)?;
    let found = kernel.found_hop().ok_or(DropReason::RewriteFailed)?;
    let NextHop {
        device,
        gateway,
        macs,
    } = found;
    match lane {
        Lane::Stack => Ok(()),
        Lane::Next => packet.redirect(Redirect::Next { device, gateway }),
        Lane::Bare => packet.redirect(Redirect::Out {
            device,
            is_bare: true,
        }),
        Lane::Across => packet.redirect(Redirect::Across { device, macs }),
    }
}
