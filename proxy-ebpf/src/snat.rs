//! Source addresses and ports for flows that this node must stand in for.

use crate::family::Family;
use crate::kernel::{CURSORS, Kernel, NotInserted, Way};
use crate::open::{self, Plan};
use proxy_common::{DropReason, FlowRole, Mark, NodeConfig, Port, Proto, Table, Ticks, Tuple};

/// Source ports that are looked at for one packet.
const PROBES: u32 = 8;

/// Plans the masking of a flow; one that only wants another port keeps its address.
#[inline(never)]
pub fn plan<A: Family, K: Kernel<A>>(
    kernel: &K,
    between: &Tuple<A>,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let Some(flow) = kernel.flow(Table::HalfOpen, between) else {
        return Ok(());
    };
    plan.backend = flow.backend;
    plan.is_fast = flow.has(Mark::Fast);
    let device = kernel.device(plan.device);
    let departure = device.map_or(plan.device, |device| device.routed_as);
    plan.leaves_by = if plan.is_fast { departure } else { 0 };
    choose_address(kernel, plan)
}

/// Makes a node address the planned source: what routing would choose for the destination, else the
/// device's, else the node's.
#[inline(always)]
fn choose_address<A: Family, K: Kernel<A>>(
    kernel: &K,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let route = kernel.route(None, &plan.to.dst, plan.device);
    let device = kernel.device(plan.device);
    let index = device.map_or(plan.device, |device| device.routed_as);
    if route.way == Way::Out && route.device == index && route.src.can_mask() {
        plan.to.src = route.src;
        return Ok(());
    }
    if let Some(address) = device.map(A::of_device).filter(A::can_mask) {
        plan.to.src = address;
        return Ok(());
    }
    let config = kernel.config().ok_or(DropReason::NoMasqueradeAddress)?;
    plan.to.src = A::of_node(config).masquerade;
    match plan.to.src == A::zeroed() {
        true => Err(DropReason::NoMasqueradeAddress),
        false => Ok(()),
    }
}

/// Finds a source port for the plan with which the answer's tuple is free and that no socket of this
/// node has, and inserts the row for the answer.
///
/// The client's own port comes first if it is of the range (a process of this node, whose port it is,
/// gets another one), else one at random, so that ports can't be foretold; then those that follow. Where
/// one packet does not find any, the next one towards the same destination goes on.
#[inline(always)]
pub fn reserve<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    original: &Tuple<A>,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    plan.address_delta = A::address_delta(original, &plan.to);
    prefer(kernel, original, plan)?;
    if !is_free(kernel, original, &plan.to) {
        take_turn(kernel, plan)?;
        if has_socket(kernel, &plan.to) {
            return Err(DropReason::PortsExhausted);
        }
    }
    let role = if plan.is_host {
        FlowRole::HostUnDnat
    } else {
        FlowRole::UnSnat
    };
    match open::insert_reply(kernel, role, original, plan) {
        Ok(()) => Ok(()),
        Err(NotInserted::Full) => Err(DropReason::FlowTableFull),
        Err(NotInserted::Exists) => Err(DropReason::PortsExhausted),
    }
}

/// Plans the source port that would be best.
#[inline(never)]
fn prefer<A: Family, K: Kernel<A>>(
    kernel: &K,
    original: &Tuple<A>,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    if plan.is_host && plan.renews {
        return Ok(());
    }
    let is_own = plan.is_host || plan.to.src == original.src;
    if is_own || !in_range(kernel, original.sport) {
        plan.to.sport = random_port(kernel)?;
    }
    Ok(())
}

/// Plans the next source port, of those towards the same destination, that no flow has. If all that this
/// packet looks at are taken, one of a connection that is only half open is taken away from it: a flood of
/// SYNs must not use the ports up. Where there is not even such a one the next packet goes on.
///
/// A function of its own to the verifier too: the stack it needs is needed for this call only.
#[inline(never)]
fn take_turn<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let config = kernel.config().ok_or(DropReason::PortsExhausted)?;
    let (first, ports) = range(config);
    let cursor = cursor_index(&plan.to);
    let next = kernel.cursor(cursor);
    let next = if next < ports { next } else { 0 };
    let now = kernel.now();
    let is_tcp = plan.to.proto_number() == Proto::Tcp as u32;
    let mut answer = plan.to.reversed();
    for probe in 0..PROBES {
        // From the start each time: what one turn leaves to the next is more work for the verifier.
        let offset = next.wrapping_add(probe);
        let offset = offset.wrapping_sub(if offset < ports { 0 } else { ports });
        answer.dport = Port::new(first.wrapping_add(offset as u16));
        if offset >= ports || !has_no_flow(kernel, Table::Confirmed, &answer, now) {
            continue;
        }
        plan.to.sport = answer.dport;
        if has_no_flow(kernel, Table::HalfOpen, &answer, now) {
            plan.displaces = false;
            kernel.put_cursor(cursor, offset + 1);
            return Ok(());
        }
        plan.displaces = is_tcp;
    }
    kernel.put_cursor(cursor, next.wrapping_add(PROBES));
    found(plan)
}

#[inline(always)]
const fn found<A>(plan: &Plan<A>) -> Result<(), DropReason> {
    if plan.displaces {
        Ok(())
    } else {
        Err(DropReason::PortsExhausted)
    }
}

/// Destinations may share a cursor: they then look for ports elsewhere than they would.
#[inline(always)]
fn cursor_index<A: Family>(to: &Tuple<A>) -> u32 {
    to.dst.scattered(to.dport.be().into()) >> (32 - CURSORS.trailing_zeros())
}

/// Whether nobody gets the answers to packets of this tuple, or whoever sends the original already.
#[inline(never)]
fn is_free<A: Family, K: Kernel<A>>(kernel: &K, original: &Tuple<A>, tuple: &Tuple<A>) -> bool {
    let (answer, now) = (tuple.reversed(), kernel.now());
    let known = kernel.flow(Table::HalfOpen, &answer);
    known.is_none_or(|known| known.has_ended(now) || known.answers(original))
        && has_no_flow(kernel, Table::Confirmed, &answer, now)
        && !kernel.has_socket(tuple)
}

/// Whether no flow of the table that has not ended gets answers of this tuple.
#[inline(always)]
fn has_no_flow<A: Family, K: Kernel<A>>(
    kernel: &K,
    table: Table,
    answer: &Tuple<A>,
    now: Ticks,
) -> bool {
    let known = kernel.flow(table, answer);
    known.is_none_or(|known| known.has_ended(now))
}

/// See [`take_turn`].
#[inline(never)]
fn has_socket<A: Family, K: Kernel<A>>(kernel: &K, tuple: &Tuple<A>) -> bool {
    kernel.has_socket(tuple)
}

/// A port of the range.
#[inline(always)]
pub fn random_port<A: Family, K: Kernel<A>>(kernel: &K) -> Result<Port, DropReason> {
    let config = kernel.config().ok_or(DropReason::PortsExhausted)?;
    let (first, ports) = range(config);
    let offset = kernel.random_below(ports) as u16;
    Ok(Port::new(first.wrapping_add(offset)))
}

/// Whether a port is one that masked flows use.
#[inline(always)]
pub fn in_range<A: Family, K: Kernel<A>>(kernel: &K, port: Port) -> bool {
    kernel.config().is_some_and(|config| {
        let (first, ports) = range(config);
        u32::from(port.number()).wrapping_sub(first.into()) < ports
    })
}

/// The first port of the range, and how many there are.
#[inline(always)]
const fn range(config: &NodeConfig) -> (u16, u32) {
    let (min, max) = (config.snat_port_min.number(), config.snat_port_max.number());
    (min, max.saturating_sub(min) as u32 + 1)
}

/// Knuth's multiplicative hash: the upper bits are the good ones.
#[inline(always)]
pub(crate) const fn scatter(word: u32) -> u32 {
    word.wrapping_mul(2_654_435_761)
}
