//! Source addresses and ports for flows that this node must stand in for.

use crate::family::Family;
use crate::kernel::{CURSORS, Kernel, NotInserted, Question, Way};
use crate::open::{self, Plan};
use proxy_common::{DropReason, Flow, FlowRole, NodeConfig, Port, Proto, Table, Tuple};

/// Source ports that are looked at for one packet; the next packet of the flow goes on where this one
/// ended.
const PROBES: u32 = 64;

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
    choose_address(kernel, plan)
}

/// Makes a node address the planned source: what routing would choose for the destination, else the
/// device's, else the node's.
#[inline(always)]
fn choose_address<A: Family, K: Kernel<A>>(
    kernel: &K,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let question = Question {
        src: A::zeroed(),
        dst: plan.to.dst,
        device: plan.device,
    };
    let route = kernel.route(&question);
    let device = kernel.device(plan.device);
    let index = device.map_or(plan.device, |device| device.routed_as);
    if route.way == Way::Out && route.device == index && route.src.can_mask() {
        plan.to.src = route.src;
        return Ok(());
    }
    if let Some(address) = device.map(A::of_device).filter(|it| it.can_mask()) {
        plan.to.src = address;
        return Ok(());
    }
    let config = kernel.config().ok_or(DropReason::NoMasqueradeAddress)?;
    plan.to.src = A::masquerade(config).ok_or(DropReason::NoMasqueradeAddress)?;
    Ok(())
}

/// Finds a source port for the plan with which the answer's tuple is free and that no socket of this
/// node has, and inserts the row for the answer.
///
/// The client's own port comes first if it is of the range (a process of this node, whose port it is,
/// gets another one); then one at random, so that ports can't be foretold; then, where they are scarce,
/// all in order.
#[inline(always)]
pub fn reserve<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    role: FlowRole,
    original: &Tuple<A>,
    proto: Proto,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    plan.address_delta = A::address_delta(original, &plan.to);
    let keeps = plan.to.src != original.src && in_range(kernel, original.sport);
    if !keeps {
        plan.to.sport = random_port(kernel)?;
    }
    for is_second in [false, true] {
        if is_second {
            next_free_port(kernel, plan)?;
        }
        if has_socket(kernel, &plan.to, proto) {
            continue;
        }
        match open::insert_reply(kernel, role, original, plan) {
            Ok(()) => return Ok(()),
            Err(NotInserted::Full) => return Err(DropReason::FlowTableFull),
            Err(NotInserted::Exists) => {}
        }
    }
    Err(DropReason::PortsExhausted)
}

/// See [`next_free_port`].
#[inline(never)]
fn has_socket<A: Family, K: Kernel<A>>(kernel: &K, tuple: &Tuple<A>, proto: Proto) -> bool {
    kernel.has_socket(tuple, proto)
}

/// A port of the range.
#[inline(always)]
pub fn random_port<A: Family, K: Kernel<A>>(kernel: &K) -> Result<Port, DropReason> {
    let config = kernel.config().ok_or(DropReason::PortsExhausted)?;
    let (first, ports) = range(config);
    Ok(Port::new(
        first.wrapping_add(kernel.random_below(ports) as u16),
    ))
}

/// Makes the next port that no flow towards the plan's destination has the planned one.
///
/// A function of its own to the verifier too: the stack it needs is needed for this call only.
#[inline(never)]
fn next_free_port<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let config = kernel.config().ok_or(DropReason::PortsExhausted)?;
    let (first, ports) = range(config);
    let mut answer = plan.to.reversed();
    let scattered = answer.src.scattered(answer.sport.be().into());
    let index = scattered >> (32 - CURSORS.trailing_zeros());
    let start = kernel.cursor(index);
    for probe in 1..=PROBES {
        // From the start each time: what one turn leaves to the next is more work for the verifier.
        let offset = start.wrapping_add(probe);
        let offset = if offset < ports {
            offset
        } else {
            offset.wrapping_sub(ports)
        };
        answer.dport = Port::new(first.wrapping_add(offset as u16));
        if offset < ports && is_free(kernel, &answer) {
            plan.to.sport = answer.dport;
            kernel.put_cursor(index, offset);
            return Ok(());
        }
    }
    let next = start.wrapping_add(PROBES);
    kernel.put_cursor(index, if next < ports { next } else { 0 });
    Err(DropReason::PortsExhausted)
}

/// Whether no flow that has not ended gets answers of this tuple.
#[inline(always)]
fn is_free<A: Family, K: Kernel<A>>(kernel: &K, answer: &Tuple<A>) -> bool {
    let free = |table| kernel.flow(table, answer).is_none_or(Flow::is_closing);
    free(Table::HalfOpen) && free(Table::Confirmed)
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
