//! The rows of a connection: made at its first packet, found by every later one.
//!
//! A connection from client C to frontend F, answered by backend B and perhaps masked as M, has
//! two rows, or four:
//!
//! ```text
//!   C -> F   ingress   becomes  C -> B      Dnat
//!   B -> C   egress    becomes  F -> C      UnDnat
//!   C -> B   egress    becomes  M -> B      Snat       only if masked; SnatPending until its
//!   B -> M   ingress   becomes  B -> C      UnSnat     first packet has reached egress
//! ```
//!
//! The row that a reply will find is inserted first: it reserves the tuple between the edges, and
//! no packet is sent whose answer could not be translated.

use crate::checksum::{self, Delta};
use crate::family::Family;
use crate::kernel::{Kernel, NotInserted};
use crate::parse::Headers;
use crate::service;
use proxy_common::{BackendRef, DropReason, Flow, FlowRole, NodeConfig, Port, Proto, Tuple};

/// Source ports that are tried for one packet before it is dropped: between the edges, where only
/// flows from one client port to one backend meet, and behind a node's address, where all do.
const PROBES_BETWEEN: u32 = 4;
const PROBES_MASKED: u32 = 16;

/// Whether a known flow carries this packet as it is. A datagram must not go to a backend that no
/// longer exists; a SYN opens the connection anew, with the same backend if that still exists, so
/// that rows which have been lost come back.
#[inline(always)]
pub fn carries<A: Family, K: Kernel<A>>(kernel: &K, flow: &Flow<A>, headers: &Headers<A>) -> bool {
    if !headers.starts_flow() || !flow.has_role(FlowRole::Dnat) {
        return true;
    }
    headers.proto == Proto::Udp && service::known(kernel, flow.backend).is_some()
}

/// Marks the way back of a connection that its client has reset.
#[inline(never)]
pub fn close_reply<A: Family, K: Kernel<A>>(kernel: &mut K, original: &Tuple<A>) {
    if let Some(flow) = kernel.flow(original) {
        let answer = flow.target(original).reversed();
        kernel.close_flow(&answer);
    }
}

/// What the packets of a new flow are to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan<A> {
    /// Their new addresses and ports.
    pub to: Tuple<A>,
    /// What the new addresses add to checksums.
    pub address_delta: u32,
    /// Who answers.
    pub backend: BackendRef,
    /// Whether the client must be masked.
    pub masked: bool,
}

impl<A: Family> Plan<A> {
    /// Nothing is decided yet.
    #[inline(always)]
    pub fn new(original: Tuple<A>, backend: BackendRef) -> Self {
        Self {
            to: original,
            address_delta: 0,
            backend,
            masked: false,
        }
    }

    /// What addresses and ports add to checksums when packets become what is planned.
    #[inline(always)]
    pub fn deltas(&self, from: &Tuple<A>) -> (u32, u32) {
        let ports = Delta::default()
            .replace(from.sport.be().into(), self.to.sport.be().into())
            .replace(from.dport.be().into(), self.to.dport.be().into());
        (self.address_delta, ports.folded())
    }
}

/// Makes the rows of a new connection; its packets may get another source port than planned.
#[inline(always)]
pub fn open<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    original: &Tuple<A>,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    reserve(kernel, FlowRole::UnDnat, original, plan, PROBES_BETWEEN)?;
    if plan.masked && !is_masked(kernel, &plan.to) {
        let between = plan.to;
        store(kernel, FlowRole::SnatPending, &between, plan)?;
    }
    store(kernel, FlowRole::Dnat, original, plan)
}

/// Whether the flow has its masked source already, and the way back from there: a first packet that
/// comes again must not get another one.
#[inline(never)]
fn is_masked<A: Family, K: Kernel<A>>(kernel: &K, between: &Tuple<A>) -> bool {
    let Some(flow) = kernel.flow(between) else {
        return false;
    };
    if !flow.has_role(FlowRole::Snat) {
        return false;
    }
    let answer = flow.target(between).reversed();
    kernel.flow(&answer).is_some()
}

/// Gives a flow that waits to be masked its source address and port.
#[inline(always)]
pub fn mask<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    between: &Tuple<A>,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    choose_source(kernel, plan)?;
    reserve(kernel, FlowRole::UnSnat, between, plan, PROBES_MASKED)?;
    store(kernel, FlowRole::Snat, between, plan)
}

/// Makes a node address, and a port of the SNAT range if the client's is not of it, the planned
/// source. See [`insert_reply`].
#[inline(never)]
fn choose_source<A: Family, K: Kernel<A>>(
    kernel: &K,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let from = plan.to;
    let config = kernel.config().ok_or(DropReason::NoMasqueradeAddress)?;
    plan.to.src = A::masquerade(config).ok_or(DropReason::NoMasqueradeAddress)?;
    if !in_snat_range(config, from.sport) {
        plan.to.sport = random_port(kernel)?;
    }
    plan.address_delta = A::address_delta(&from, &plan.to);
    Ok(())
}

/// Finds a source port for the plan whose reply tuple is free, and inserts the row that turns replies
/// into replies to `original`: first the port that is planned, then random ones of the SNAT range.
#[inline(always)]
fn reserve<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    role: FlowRole,
    original: &Tuple<A>,
    plan: &mut Plan<A>,
    probes: u32,
) -> Result<(), DropReason> {
    for _ in 0..probes {
        match insert_reply(kernel, role, original, plan) {
            Ok(()) => return Ok(()),
            Err(NotInserted::Full) => return Err(DropReason::FlowTableFull),
            Err(NotInserted::Exists) => plan.to.sport = random_port(kernel)?,
        }
    }
    Err(DropReason::PortsExhausted)
}

/// Inserts the row that turns replies to the planned packets into replies to `original`; succeeds too
/// if there is one already: of an earlier flow between the same tuples, or just made from the same
/// first packet by another CPU.
///
/// A function of its own to the verifier too: the stack it needs is needed for this call only.
#[inline(never)]
fn insert_reply<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    role: FlowRole,
    original: &Tuple<A>,
    plan: &Plan<A>,
) -> Result<(), NotInserted> {
    let key = plan.to.reversed();
    let (addresses, ports) = plan.deltas(original);
    // The way back, and a sum does not know source from destination.
    let deltas = (checksum::negated(addresses), checksum::negated(ports));
    let row = Flow::reply(role, original, deltas, plan.backend);
    match kernel.insert_flow(&key, &row) {
        // Anew: the connection that the row belongs to may be closing.
        Err(NotInserted::Exists)
            if kernel
                .flow(&key)
                .is_some_and(|known| known.leads_where(&row)) =>
        {
            kernel.replace_flow(&key, &row)
        }
        outcome => outcome,
    }
}

/// Inserts or overwrites the row that turns packets of one tuple into the planned ones. See
/// [`insert_reply`].
#[inline(never)]
fn store<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    role: FlowRole,
    from: &Tuple<A>,
    plan: &Plan<A>,
) -> Result<(), DropReason> {
    let row = Flow::new(role, &plan.to, plan.deltas(from), plan.backend);
    kernel
        .replace_flow(from, &row)
        .map_err(|_| DropReason::FlowTableFull)
}

#[inline(always)]
fn random_port<A: Family, K: Kernel<A>>(kernel: &K) -> Result<Port, DropReason> {
    let config = kernel.config().ok_or(DropReason::PortsExhausted)?;
    let (min, max) = (config.snat_port_min.number(), config.snat_port_max.number());
    let span = u32::from(max.saturating_sub(min)) + 1;
    Ok(Port::new(
        min.wrapping_add(kernel.random_below(span) as u16),
    ))
}

#[inline(always)]
const fn in_snat_range(config: &NodeConfig, port: Port) -> bool {
    config.snat_port_min.number() <= port.number() && port.number() <= config.snat_port_max.number()
}
