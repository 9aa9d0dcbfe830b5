//! The order of the steps, and nothing else.

use crate::family::Family;
use crate::flow::Plan;
use crate::kernel::Kernel;
use crate::nat::Translation;
use crate::packet::Packet;
use crate::parse::Headers;
use crate::{Fate, Verdict, flow, nat, service};
use bytemuck::Zeroable as _;
use proxy_common::{AddrV4, AddrV6, BackendRef, FlowRole, Frontend, Hook};

/// EtherTypes (IEEE 802 numbers).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// tc ingress: replies of masked flows get their client back, packets to a frontend a backend.
#[inline(always)]
pub fn ingress<P, K>(packet: &mut P, kernel: &mut K) -> Fate
where
    P: Packet,
    K: Kernel<AddrV4> + Kernel<AddrV6>,
{
    match packet.ethertype() {
        IPV4 => parsed::<AddrV4, P, K>(packet, kernel, ingress_of),
        IPV6 => parsed::<AddrV6, P, K>(packet, kernel, ingress_of),
        _ => Ok(Verdict::Unsupported),
    }
}

/// tc egress: replies of translated flows get their frontend back, masked flows a node address.
#[inline(always)]
pub fn egress<P, K>(packet: &mut P, kernel: &mut K) -> Fate
where
    P: Packet,
    K: Kernel<AddrV4> + Kernel<AddrV6>,
{
    match packet.ethertype() {
        IPV4 => parsed::<AddrV4, P, K>(packet, kernel, egress_of),
        IPV6 => parsed::<AddrV6, P, K>(packet, kernel, egress_of),
        _ => Ok(Verdict::Unsupported),
    }
}

#[inline(always)]
fn parsed<A: Family, P: Packet, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    hook: impl FnOnce(&mut P, &mut K, &Headers<A>) -> Fate,
) -> Fate {
    match A::parse(packet) {
        Ok(headers) => {
            let fate = hook(packet, kernel, &headers);
            kernel.decided(&headers.tuple, fate);
            fate
        }
        Err(verdict) => Ok(verdict),
    }
}

#[inline(always)]
fn ingress_of<A: Family, P: Packet, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
) -> Fate {
    if let Some(known) = kernel.flow(&headers.tuple) {
        if !known.applies_at(Hook::Ingress) {
            return Ok(Verdict::OtherHook);
        }
        if flow::carries(kernel, known, headers) {
            nat::apply(packet, headers, &Translation::known(known))?;
            if headers.flags.resets() {
                flow::close_reply(kernel, &headers.tuple);
            }
            return Ok(Verdict::Established);
        }
    }
    let Some(frontend) = service::find(kernel, headers.proto, &headers.tuple) else {
        return Ok(Verdict::NotService);
    };
    if !headers.starts_flow() {
        return Ok(Verdict::NoFlow);
    }
    first_packet(packet, kernel, headers, frontend)
}

/// A function of its own to the verifier too: what only first packets need must not cost the others
/// registers and stack.
#[inline(never)]
fn first_packet<A: Family, P: Packet, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
    frontend: Frontend,
) -> Fate {
    let known = kernel.flow(&headers.tuple);
    let backend = known.map_or(BackendRef::zeroed(), |known| known.backend);
    let mut plan = Plan::new(headers.tuple, backend);
    service::choose(kernel, frontend, &mut plan)?;
    flow::open(kernel, &headers.tuple, &mut plan)?;
    nat::apply_first(packet, headers, &plan)?;
    Ok(Verdict::Created)
}

#[inline(always)]
fn egress_of<A: Family, P: Packet, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
) -> Fate {
    let Some(known) = kernel.flow(&headers.tuple) else {
        return Ok(Verdict::NotService);
    };
    if !known.applies_at(Hook::Egress) {
        return Ok(Verdict::OtherHook);
    }
    if known.has_role(FlowRole::SnatPending) {
        let backend = known.backend;
        return first_masked_packet(packet, kernel, headers, backend);
    }
    if known.is_closing() && headers.flags.accepts() {
        // Our connection is over, and has not been opened again through us: this is another one,
        // straight from the client to the backend.
        kernel.remove_flow(&headers.tuple);
        return Ok(Verdict::NotService);
    }
    nat::apply(packet, headers, &Translation::known(known))?;
    if headers.flags.closes() {
        kernel.close_flow(&headers.tuple);
    }
    Ok(Verdict::Established)
}

/// See [`first_packet`].
#[inline(never)]
fn first_masked_packet<A: Family, P: Packet, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
    backend: BackendRef,
) -> Fate {
    let mut plan = Plan::new(headers.tuple, backend);
    flow::mask(kernel, &headers.tuple, &mut plan)?;
    nat::apply_first(packet, headers, &plan)?;
    Ok(Verdict::Masked)
}
