//! Packets of known flows: translated as their rows say, which learn from them.

use crate::family::Family;
use crate::kernel::Kernel;
use crate::nat::Translation;
use crate::packet::Hooked;
use crate::parse::Headers;
use crate::{DropReason, Fate, Verdict, flow, host, lane, nat};
use bytemuck::Zeroable as _;
use core::hint::black_box;
use proxy_common::{Flow, FlowRole, Hook, Mac, Mark, Table, Ticks};

/// Whether our connection is over and has not been opened again through us, so that this packet is of
/// another one, straight from the client to the backend.
#[inline(always)]
pub fn is_of_another<A: Family>(flow: &Flow<A>, headers: &Headers<A>) -> bool {
    let has_left = flow.has(Mark::Fin) || flow.has(Mark::Reset);
    has_left && headers.flags.accepts() && flow.has_role(FlowRole::UnDnat)
}

/// What is left to be done for a packet that has been translated.
#[derive(Clone, Copy)]
pub struct Passage {
    /// It says something of its flow that the row does not know.
    is_news: bool,
    /// The device of the process of this node whose flow it is; 0: of none.
    device: u32,
    /// It is of a flow that passes the stack by where it can.
    is_fast: bool,
}

impl Passage {
    #[inline(always)]
    fn of<A: Family>(flow: &Flow<A>, headers: &Headers<A>, now: Ticks) -> Self {
        // Read anew: the verifier would follow what comes next once for each mark that has been looked at.
        let flow = black_box(flow);
        Self {
            is_news: flow::is_news(flow, headers.flags, now),
            device: flow.device,
            is_fast: flow.has(Mark::Fast),
        }
    }
}

/// Translates a packet as its row says.
#[inline(always)]
pub fn translate<A: Family, P: Hooked>(
    packet: &mut P,
    headers: &Headers<A>,
    flow: &Flow<A>,
    now: Ticks,
) -> Result<Passage, DropReason> {
    let passage = Passage::of(flow, headers, now);
    nat::apply(packet, headers, &Translation::known(flow))?;
    Ok(passage)
}

/// Does what is left.
#[inline(always)]
pub fn finish<A: Family, P: Hooked, K: Kernel<A>, const IS_INGRESS: bool>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
    table: Table,
    passage: Passage,
) -> Fate {
    if passage.is_news {
        flow::note(kernel, table, headers);
    }
    if passage.is_fast {
        return lane::leave::<A, P, K, IS_INGRESS>(packet, kernel);
    }
    if passage.device != 0 {
        follow_up::<A, P, K, IS_INGRESS>(packet, kernel, headers, table)?;
    }
    Ok(Verdict::Established)
}

/// Packets of a process of this node go where their row says.
///
/// A function of its own to the verifier too: it must not cost the others registers and stack.
#[inline(never)]
fn follow_up<A: Family, P: Hooked, K: Kernel<A>, const IS_INGRESS: bool>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
    table: Table,
) -> Result<(), DropReason> {
    match kernel.flow(table, &headers.tuple) {
        Some(flow) if flow.device != 0 && IS_INGRESS => {
            let device = flow.device;
            host::arrive(packet, kernel, device)
        }
        Some(flow) if flow.device != 0 => host::leave_again(packet, kernel, flow),
        _ => Ok(()),
    }
}

/// A packet of a half-open flow. See [`follow_up`].
#[inline(never)]
pub fn half_open<A: Family, P: Hooked, K: Kernel<A>, const IS_INGRESS: bool>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
) -> Fate {
    let hook = if IS_INGRESS {
        Hook::Ingress
    } else {
        Hook::Egress
    };
    let Some(flow) = kernel.flow(Table::HalfOpen, &headers.tuple) else {
        return Ok(Verdict::NotService);
    };
    let is_fast = IS_INGRESS && lane::takes(packet, kernel, headers, flow);
    if !is_fast && !flow.applies_at(hook) {
        return other_hook(packet, kernel, hook);
    }
    if is_of_another(flow, headers) {
        kernel.remove_flow(Table::HalfOpen, &headers.tuple);
        return Ok(Verdict::NotService);
    }
    let (is_answer, is_answered) = (flow.is_answer(), flow.has(Mark::Answered));
    let passage = Passage::of(flow, headers, kernel.now());
    nat::apply_half_open(packet, headers, flow)?;
    let table = Table::HalfOpen;
    let fate = finish::<A, P, K, IS_INGRESS>(packet, kernel, headers, table, passage)?;
    if is_answer && !is_answered {
        flow::answer(kernel, &headers.tuple);
    }
    if is_answered && !is_answer && headers.confirms() {
        flow::confirm(kernel, &headers.tuple);
    }
    Ok(fate)
}

/// An answer that is translated where it leaves. Of two pods on one bridge it would be switched past the
/// stack, so it is addressed to the bridge.
#[inline(always)]
pub fn other_hook<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &K,
    hook: Hook,
) -> Fate {
    if P::IS_PORT && hook == Hook::Ingress {
        pull_up(packet, kernel)?;
    }
    Ok(Verdict::OtherHook)
}

#[inline(never)]
fn pull_up<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &K,
) -> Result<(), DropReason> {
    match kernel.device(packet.device()) {
        Some(device) if device.bridge != Mac::zeroed() => packet.readdress(device.bridge),
        _ => Ok(()),
    }
}
