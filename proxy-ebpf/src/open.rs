//! A new flow: what its packets are to become, and the rows that make them so.
//!
//! The row that an answer will find is inserted first: it reserves the tuple between the edges, and no
//! packet is sent whose answer could not be translated.

use crate::checksum::{self, Delta};
use crate::family::Family;
use crate::kernel::{Kernel, NotInserted};
use crate::service::Origin;
use crate::{flow, snat};
use bytemuck::Zeroable as _;
use core::hint::black_box;
use proxy_common::{BackendRef, DropReason, Flow, FlowRole, Mark, Table, Ticks, Tuple};

/// What the packets of a new flow are to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Plan<A> {
    /// Their new addresses and ports.
    pub to: Tuple<A>,
    /// What the new addresses add to checksums.
    pub address_delta: u32,
    /// Who answers.
    pub backend: BackendRef,
    /// Where the client is; not known before a backend is chosen.
    pub origin: Origin,
    /// Whether the client must be masked.
    pub masked: bool,
    /// Whether it need not be, although the policy says so, if answers come back by the way that it has come.
    pub is_spared: bool,
    /// Whether the client's row exists already: a first packet has come again, or goes elsewhere now.
    pub renews: bool,
    /// Whether a process of this node is the client.
    pub is_host: bool,
    /// Whether the planned port may be taken away from a half-open flow.
    pub displaces: bool,
    /// The device at whose hook the packet is.
    pub device: u32,
    /// Whether they pass the stack by.
    pub is_fast: bool,
    /// The device that the rows remember of packets there; see [`Flow::device`].
    pub comes_by: u32,
    /// The same of answers.
    pub leaves_by: u32,
}

impl<A: Family> Plan<A> {
    /// Nothing is decided yet.
    #[inline(always)]
    pub fn begin(&mut self, original: &Tuple<A>, device: u32, is_host: bool) {
        self.to = *original;
        // Unknown to the compiler, which would call memset otherwise: a loop over bytes.
        self.address_delta = black_box(0);
        self.backend = BackendRef::zeroed();
        self.origin = Origin::OUTSIDE;
        self.masked = false;
        self.is_spared = false;
        self.renews = false;
        self.is_host = is_host;
        self.displaces = false;
        self.device = device;
        self.is_fast = false;
        self.comes_by = if is_host { device } else { 0 };
        self.leaves_by = self.comes_by;
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
    reserve(kernel, original, plan)?;
    if plan.masked && !is_masked(kernel, plan) {
        let between = plan.to;
        store(kernel, FlowRole::SnatPending, &between, plan)?;
    }
    store_or_join(kernel, original, plan)
}

/// Reserves the answer's tuple: with the client's own port unless another of its flows has it, which then
/// leads to the same backend through another frontend.
#[inline(always)]
fn reserve<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    original: &Tuple<A>,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    if clashes(kernel, original, plan) {
        plan.to.sport = snat::random_port(kernel)?;
    }
    match insert_reply(kernel, FlowRole::UnDnat, original, plan) {
        Ok(()) => Ok(()),
        Err(NotInserted::Full) => Err(DropReason::FlowTableFull),
        Err(NotInserted::Exists) => Err(DropReason::PortsExhausted),
    }
}

/// Whether answers to the planned packets are those of another flow, or look like the packets themselves
/// (a pod that asks itself from the port that it serves).
#[inline(never)]
fn clashes<A: Family, K: Kernel<A>>(kernel: &K, original: &Tuple<A>, plan: &Plan<A>) -> bool {
    let (answer, now) = (plan.to.reversed(), kernel.now());
    let others = |table| {
        let known = kernel.flow(table, &answer);
        known.is_some_and(|known| !yields(known, original, now))
    };
    answer == plan.to || others(Table::HalfOpen) || others(Table::Confirmed)
}

/// Whether the flow has its masked source already, and the way back from there: a first packet that
/// comes again must not get another one. Unless it goes another way through this node now: then they are made anew.
#[inline(never)]
fn is_masked<A: Family, K: Kernel<A>>(kernel: &mut K, plan: &Plan<A>) -> bool {
    if has_twins(kernel, Table::Confirmed, plan) {
        return true;
    }
    kernel.remove_flow(Table::Confirmed, &plan.to);
    has_twins(kernel, Table::HalfOpen, plan)
}

#[inline(always)]
fn has_twins<A: Family, K: Kernel<A>>(kernel: &K, table: Table, plan: &Plan<A>) -> bool {
    let Some(flow) = kernel.flow(table, &plan.to) else {
        return false;
    };
    if !flow.has_role(FlowRole::Snat) || flow.has(Mark::Fast) != plan.is_fast {
        return false;
    }
    flow::has_twin(kernel, table, flow, &plan.to)
}

/// Inserts the row that turns replies to the planned packets into replies to `original`, unless they
/// belong to another flow that goes on.
#[inline(always)]
pub fn insert_reply<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    role: FlowRole,
    original: &Tuple<A>,
    plan: &Plan<A>,
) -> Result<(), NotInserted> {
    vacate(kernel, original, plan)?;
    insert_half_open(kernel, role, original, plan)?;
    // Now that nobody else can begin a flow here: has one been confirmed?
    supersede(kernel, original, plan)
}

/// Takes the place of a half-open flow that has ended, or must give way: a masked one has to look for
/// another port.
#[inline(never)]
fn vacate<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    original: &Tuple<A>,
    plan: &Plan<A>,
) -> Result<(), NotInserted> {
    let key = plan.to.reversed();
    let Some(known) = kernel.flow(Table::HalfOpen, &key) else {
        return Ok(());
    };
    if known.answers(original) {
        return Ok(());
    }
    if !plan.displaces && !known.has_ended(kernel.now()) {
        return Err(NotInserted::Exists);
    }
    let there = known.twin(&key);
    match kernel.flow_mut(Table::HalfOpen, &there) {
        Some(row) if row.has_role(FlowRole::Snat) => row.unmask(),
        _ => kernel.remove_flow(Table::HalfOpen, &there),
    }
    kernel.remove_flow(Table::HalfOpen, &key);
    Ok(())
}

/// A function of its own to the verifier too: the stack it needs is needed for this call only.
#[inline(never)]
fn insert_half_open<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    role: FlowRole,
    original: &Tuple<A>,
    plan: &Plan<A>,
) -> Result<(), NotInserted> {
    let key = plan.to.reversed();
    let (addresses, ports) = plan.deltas(original);
    // The way back, and a sum does not know source from destination.
    let deltas = (checksum::negated(addresses), checksum::negated(ports));
    let mut row = Flow::reply(role, original, deltas, plan.backend, kernel.now());
    row.device = plan.leaves_by;
    row.mark_if(Mark::Fast, plan.is_fast);
    // Looked for first: an insertion that fails may have pushed another row out.
    if answers(kernel, &key, original) {
        return kernel.replace_flow(Table::HalfOpen, &key, &row);
    }
    match kernel.insert_flow(Table::HalfOpen, &key, &row) {
        // By another CPU, just now: with another packet of the same flow it is the same row.
        Err(NotInserted::Exists) if answers(kernel, &key, original) => Ok(()),
        outcome => outcome,
    }
}

#[inline(always)]
fn answers<A: Family, K: Kernel<A>>(kernel: &K, key: &Tuple<A>, original: &Tuple<A>) -> bool {
    let known = kernel.flow(Table::HalfOpen, key);
    known.is_some_and(|known| known.answers(original))
}

/// Takes the place of a confirmed flow that has ended; makes room for one that has not.
#[inline(never)]
fn supersede<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    original: &Tuple<A>,
    plan: &Plan<A>,
) -> Result<(), NotInserted> {
    let key = plan.to.reversed();
    let Some(known) = kernel.flow(Table::Confirmed, &key) else {
        return Ok(());
    };
    if !yields(known, original, kernel.now()) {
        kernel.remove_flow(Table::HalfOpen, &key);
        return Err(NotInserted::Exists);
    }
    let there = known.twin(&key);
    kernel.remove_flow(Table::Confirmed, &there);
    kernel.remove_flow(Table::Confirmed, &key);
    Ok(())
}

/// Whether the row of an answer may be replaced by one for `original`.
#[inline(always)]
fn yields<A: Family>(known: &Flow<A>, original: &Tuple<A>, now: Ticks) -> bool {
    known.has_ended(now) || known.answers(original)
}

/// Inserts the row that turns packets of one tuple into the planned ones, in the place of an earlier one
/// unless the plan is for a flow that was not there. See [`insert_half_open`].
#[inline(never)]
fn insert<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    role: FlowRole,
    from: &Tuple<A>,
    plan: &Plan<A>,
) -> Result<(), NotInserted> {
    let mut row = Flow::new(
        role,
        &plan.to,
        plan.deltas(from),
        plan.backend,
        kernel.now(),
    );
    row.device = plan.comes_by;
    row.mark_if(Mark::Fast, plan.is_fast);
    if plan.masked && role as u16 == FlowRole::Dnat as u16 {
        row.mark(Mark::Masked);
    }
    if role as u16 != FlowRole::Dnat as u16 || plan.renews {
        kernel.replace_flow(Table::HalfOpen, from, &row)
    } else {
        kernel.insert_flow(Table::HalfOpen, from, &row)
    }
}

/// Makes the client's row of a flow that gets its source at egress.
#[inline(always)]
pub fn store_at_egress<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    original: &Tuple<A>,
    plan: &Plan<A>,
) -> Result<(), DropReason> {
    let role = if plan.is_host {
        FlowRole::HostDnat
    } else {
        FlowRole::Snat
    };
    store(kernel, role, original, plan)
}

/// Inserts or overwrites the row that turns packets of one tuple into the planned ones.
#[inline(always)]
fn store<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    role: FlowRole,
    from: &Tuple<A>,
    plan: &Plan<A>,
) -> Result<(), DropReason> {
    insert(kernel, role, from, plan).map_err(|_| DropReason::FlowTableFull)
}

/// The same for a client's first packet, unless another CPU has just done so with another packet of the
/// same socket: then its plan holds.
#[inline(always)]
fn store_or_join<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    original: &Tuple<A>,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    match insert(kernel, FlowRole::Dnat, original, plan) {
        Ok(()) => Ok(()),
        Err(NotInserted::Full) => Err(DropReason::FlowTableFull),
        Err(NotInserted::Exists) => {
            join(kernel, original, plan);
            Ok(())
        }
    }
}

/// Makes the plan of whoever was first ours, and takes back what we had reserved.
#[inline(never)]
fn join<A: Family, K: Kernel<A>>(kernel: &mut K, original: &Tuple<A>, plan: &mut Plan<A>) {
    let reserved = plan.to.reversed();
    let Some(first) = kernel.flow(Table::HalfOpen, original) else {
        return;
    };
    plan.to = first.target(original);
    plan.address_delta = first.address_delta;
    // The next hop is that of another backend, perhaps.
    plan.is_fast = false;
    if plan.to.reversed() != reserved {
        kernel.remove_flow(Table::HalfOpen, &reserved);
    }
}
