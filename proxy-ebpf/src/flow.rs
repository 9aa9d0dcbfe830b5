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

use crate::checksum;
use crate::family::Family;
use crate::kernel::{Kernel, NotInserted};
use crate::service::{self, Choice};
use proxy_common::{Address, BackendRef, DropReason, Flow, FlowRole, NodeConfig, Port, Tuple};

/// Source ports that are tried for one packet before it is dropped.
const PROBES: u32 = 32;

/// Whether a known flow may carry this packet. One that may open a connection must not go to a
/// backend that no longer exists.
#[inline(always)]
pub fn is_usable<A: Family, K: Kernel<A>>(kernel: &K, flow: &Flow<A>, starts_flow: bool) -> bool {
    !starts_flow || !flow.has_role(FlowRole::Dnat) || service::is_current(kernel, flow.backend)
}

/// Makes the rows of a new connection; returns what its packets become between the edges.
#[inline(always)]
pub fn open<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    original: &Tuple<A>,
    choice: &Choice<A>,
    masked: bool,
) -> Result<Tuple<A>, DropReason> {
    let wanted = original.with_dst((choice.backend.address, choice.backend.port));
    let reply = original.reversed();
    let backend = choice.reference;
    let between = reserve(kernel, wanted, FlowRole::UnDnat, &reply, backend)?;
    if masked {
        store(kernel, FlowRole::SnatPending, &between, &between, backend)?;
    }
    store(kernel, FlowRole::Dnat, original, &between, backend)?;
    Ok(between)
}

/// Gives a flow that waits to be masked its source address and port; returns what its packets
/// become.
#[inline(always)]
pub fn mask<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    between: &Tuple<A>,
    backend: BackendRef,
) -> Result<Tuple<A>, DropReason> {
    let config = kernel.config().ok_or(DropReason::NoMasqueradeAddress)?;
    let address = A::masquerade(config).ok_or(DropReason::NoMasqueradeAddress)?;
    let port = if in_snat_range(config, between.sport) {
        between.sport
    } else {
        random_port(kernel)?
    };
    let wanted = between.with_src((address, port));
    let outside = reserve(
        kernel,
        wanted,
        FlowRole::UnSnat,
        &between.reversed(),
        backend,
    )?;
    store(kernel, FlowRole::Snat, between, &outside, backend)?;
    Ok(outside)
}

/// What turns packets of one tuple into packets of another.
#[inline(always)]
pub fn translation<A: Family>(
    role: FlowRole,
    from: &Tuple<A>,
    to: &Tuple<A>,
    backend: BackendRef,
) -> Flow<A> {
    let deltas = (A::address_delta(from, to), port_delta(from, to));
    Flow::new(role, to, deltas, backend)
}

/// Finds a source port for `wanted` whose reply tuple is free, and inserts the row that the reply
/// will find: first the port it comes with, then random ones of the SNAT range.
#[inline(always)]
fn reserve<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    wanted: Tuple<A>,
    role: FlowRole,
    reply: &Tuple<A>,
    backend: BackendRef,
) -> Result<Tuple<A>, DropReason> {
    let mut answer = wanted.reversed();
    for _ in 0..PROBES {
        match insert(kernel, role, &answer, reply, backend) {
            Err(NotInserted::Full) => return Err(DropReason::FlowTableFull),
            Err(NotInserted::Exists) if !is_ours(kernel, &answer, reply) => {
                answer.dport = random_port(kernel)?;
            }
            Ok(()) | Err(NotInserted::Exists) => return Ok(answer.reversed()),
        }
    }
    Err(DropReason::PortsExhausted)
}

/// Inserts a row whose key must be free. A function of its own to the verifier too: a row and its
/// checksums need a good part of the stack, for the time of this call only.
#[inline(never)]
fn insert<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    role: FlowRole,
    from: &Tuple<A>,
    to: &Tuple<A>,
    backend: BackendRef,
) -> Result<(), NotInserted> {
    kernel.insert_flow(from, &translation(role, from, to, backend))
}

/// Inserts or overwrites a row. See [`insert`].
#[inline(never)]
fn store<A: Family, K: Kernel<A>>(
    kernel: &mut K,
    role: FlowRole,
    from: &Tuple<A>,
    to: &Tuple<A>,
    backend: BackendRef,
) -> Result<(), DropReason> {
    let row = translation(role, from, to, backend);
    kernel
        .replace_flow(from, &row)
        .map_err(|_| DropReason::FlowTableFull)
}

/// Whether the row in the way leads where ours would: an earlier flow of the same tuples, or one
/// that another CPU has just made from the same first packet.
#[inline(always)]
fn is_ours<A: Family, K: Kernel<A>>(kernel: &K, key: &Tuple<A>, reply: &Tuple<A>) -> bool {
    kernel.flow(key).is_some_and(|row| row.leads_to(reply))
}

#[inline(always)]
fn port_delta<A: Address>(old: &Tuple<A>, new: &Tuple<A>) -> u32 {
    let words = |tuple: &Tuple<A>| [u32::from(tuple.sport.be()), u32::from(tuple.dport.be())];
    checksum::delta(words(old), words(new))
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
