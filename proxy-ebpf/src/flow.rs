//! The rows of a connection: made at its first packet, found by every later one.
//!
//! A connection from client C to frontend F, answered by backend B and perhaps masked as M, has
//! two rows, or four; one from a process of this node has two of their own:
//!
//! ```text
//!   C -> F   ingress   becomes  C -> B      Dnat
//!   B -> C   egress    becomes  F -> C      UnDnat
//!   C -> B   egress    becomes  M -> B      Snat       only if masked; SnatPending until its
//!   B -> M   ingress   becomes  B -> C      UnSnat     first packet has reached egress
//!
//!   N -> F   egress    becomes  M -> B      HostDnat
//!   B -> M   ingress   becomes  F -> N      HostUnDnat
//! ```
//!
//! Rows come in twins, the way there and the way back. They begin in `HALF_OPEN`, where a flood may push
//! them out, and move to `FLOWS` when the client sends again after an answer: nobody can do that in the
//! name of others.

use crate::family::Family;
use crate::kernel::Kernel;
use crate::open::Plan;
use crate::parse::{Headers, TcpFlags};
use crate::service;
use proxy_common::{Flow, FlowRole, Mark, Proto, Table, Ticks, Tuple};

/// Whether a confirmed flow carries this packet as it is. A datagram must not go to a backend that no
/// longer exists; a SYN that follows an end, or whose backend is gone, opens the connection anew.
#[inline(always)]
pub fn carries<A: Family, K: Kernel<A>>(kernel: &K, flow: &Flow<A>, headers: &Headers<A>) -> bool {
    if !headers.starts_flow() || !leads_to_backend(flow) {
        return true;
    }
    let ended = headers.proto == Proto::Tcp && flow.is_closing();
    !ended && service::exists(kernel, flow.backend)
}

/// What a half-open flow is to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum HalfOpen {
    /// It carries the packet as it is.
    Carries,
    /// Its source is still to be chosen.
    IsPending,
    /// It begins anew: a SYN comes again because there was no answer, and makes the rows anew, some of
    /// which may have been pushed out; so does a datagram, or its backend is gone.
    IsStale,
}

/// What the half-open flow of a packet is to it.
///
/// A function of its own to the verifier too: it need not follow what comes next once for each way to an
/// answer.
#[inline(never)]
pub fn half_open<A: Family, K: Kernel<A>>(kernel: &K, headers: &Headers<A>) -> HalfOpen {
    let Some(flow) = kernel.flow(Table::HalfOpen, &headers.tuple) else {
        return HalfOpen::IsStale;
    };
    if flow.has_role(FlowRole::SnatPending) {
        return HalfOpen::IsPending;
    }
    if !headers.starts_flow() || !leads_to_backend(flow) {
        return HalfOpen::Carries;
    }
    let carries = headers.proto == Proto::Udp
        && service::exists(kernel, flow.backend)
        && is_whole(kernel, flow, &headers.tuple);
    if carries {
        HalfOpen::Carries
    } else {
        HalfOpen::IsStale
    }
}

/// Whether the row was made when a backend was chosen.
#[inline(always)]
fn leads_to_backend<A: Family>(flow: &Flow<A>) -> bool {
    flow.has_role(FlowRole::Dnat) || flow.has_role(FlowRole::HostDnat)
}

/// Whether no row of the flow has been pushed out that the client's packets need.
#[inline(always)]
fn is_whole<A: Family, K: Kernel<A>>(kernel: &K, flow: &Flow<A>, key: &Tuple<A>) -> bool {
    has_twin(kernel, Table::HalfOpen, flow, key)
        && (!flow.has(Mark::Masked) || masks(kernel, flow, key))
}

#[inline(never)]
fn masks<A: Family, K: Kernel<A>>(kernel: &K, flow: &Flow<A>, key: &Tuple<A>) -> bool {
    let between = flow.target(key);
    let found = |table| kernel.flow(table, &between).is_some();
    found(Table::HalfOpen) || found(Table::Confirmed)
}

/// Whether a row's twin is there, and its own: another flow may have taken the place.
#[inline(always)]
pub fn has_twin<A: Family, K: Kernel<A>>(
    kernel: &K,
    table: Table,
    row: &Flow<A>,
    key: &Tuple<A>,
) -> bool {
    let twin = row.twin(key);
    kernel
        .flow(table, &twin)
        .is_some_and(|found| found.answers(key))
}

/// Whether a packet says something of a row that is not in it yet.
#[inline(always)]
pub fn is_news<A: Family>(flow: &Flow<A>, flags: TcpFlags, now: Ticks) -> bool {
    flow.last_seen != now || flags.changes_state() || flow.has(Mark::Reset)
}

/// Writes it down.
#[inline(never)]
pub fn note<A: Family, K: Kernel<A>>(kernel: &mut K, table: Table, headers: &Headers<A>) {
    let now = kernel.now();
    let Some(row) = kernel.flow_mut(table, &headers.tuple) else {
        return;
    };
    row.last_seen = now;
    row.unmark(Mark::Reset);
    if !headers.flags.changes_state() {
        return;
    }
    let twin = row.twin(&headers.tuple);
    mark(row, headers.flags, Mark::Fin);
    if let Some(row) = kernel.flow_mut(table, &twin) {
        mark(row, headers.flags, Mark::PeerFin);
    }
}

#[inline(always)]
fn mark<A: Family>(row: &mut Flow<A>, flags: TcpFlags, fin: Mark) {
    if flags.resets() {
        row.mark(Mark::Reset);
    } else if flags.finishes() {
        row.mark(fin);
    } else {
        // A SYN: what has ended begins again.
        row.unmark(Mark::Reset);
        row.unmark(Mark::Fin);
        row.unmark(Mark::PeerFin);
    }
}

/// Remembers that a half-open flow has been answered; `answer` is the key of its way back.
#[inline(never)]
pub fn answer<A: Family, K: Kernel<A>>(kernel: &mut K, answer: &Tuple<A>) {
    let Some(row) = kernel.flow_mut(Table::HalfOpen, answer) else {
        return;
    };
    row.mark(Mark::Answered);
    let twin = row.twin(answer);
    if let Some(row) = kernel.flow_mut(Table::HalfOpen, &twin) {
        row.mark(Mark::Answered);
    }
}

/// Moves a flow and its twin to `FLOWS`. One whose twin has been pushed out stays, and so does one for
/// which there is no room.
#[inline(never)]
pub fn confirm<A: Family, K: Kernel<A>>(kernel: &mut K, key: &Tuple<A>) {
    let Some(row) = kernel.flow(Table::HalfOpen, key) else {
        return;
    };
    let twin = row.twin(key);
    if row.has_role(FlowRole::SnatPending) || !has_twin(kernel, Table::HalfOpen, row, key) {
        return;
    }
    if kernel.confirm_flow(&twin).is_err() {
        return;
    }
    if kernel.confirm_flow(key).is_err() {
        kernel.remove_flow(Table::Confirmed, &twin);
        return;
    }
    kernel.remove_flow(Table::HalfOpen, key);
    kernel.remove_flow(Table::HalfOpen, &twin);
}

/// Tells the plan of a flow that may begin anew which backend and source port it should keep: those of an
/// earlier flow of the same client to the same frontend, unless that has ended. A confirmed one ends with this.
#[inline(never)]
pub fn take_up<A: Family, K: Kernel<A>>(kernel: &mut K, key: &Tuple<A>, plan: &mut Plan<A>) {
    if let Some(row) = kernel.flow(Table::Confirmed, key) {
        if !row.is_closing() {
            plan.backend = row.backend;
        }
        forget(kernel, key);
    } else if let Some(row) = kernel.flow(Table::HalfOpen, key) {
        plan.renews = true;
        plan.is_fast = row.has(Mark::Fast);
        if !row.is_closing() {
            plan.backend = row.backend;
            plan.to.sport = row.sport;
        }
    }
}

/// Removes a confirmed flow, the way there first: without it no packet is sent whose answer could not
/// be translated. `key` is that of the way there.
#[inline(never)]
pub fn forget<A: Family, K: Kernel<A>>(kernel: &mut K, key: &Tuple<A>) {
    let Some(row) = kernel.flow(Table::Confirmed, key) else {
        return;
    };
    let twin = row.twin(key);
    kernel.remove_flow(Table::Confirmed, key);
    kernel.remove_flow(Table::Confirmed, &twin);
}
