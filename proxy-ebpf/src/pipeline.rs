//! The order of the steps, and nothing else.

use crate::family::Family;
use crate::flow::HalfOpen;
use crate::kernel::Kernel;
use crate::open::Plan;
use crate::packet::Hooked;
use crate::parse::{Headers, Place};
use crate::{
    DropReason, Fate, Verdict, flow, host, icmp, known, lane, nat, open, refuse, service, snat,
    unusual,
};
use core::hint::black_box;
use proxy_common::{AddrV4, AddrV6, FlowRole, Frontend, Hook, Table};

/// EtherTypes (IEEE 802 numbers).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// tc ingress: replies of masked flows get their client back, packets to a frontend a backend.
#[inline(always)]
pub fn ingress<P, K>(packet: &mut P, kernel: &mut K) -> Fate
where
    P: Hooked,
    K: Kernel<AddrV4> + Kernel<AddrV6>,
{
    match packet.ethertype() {
        IPV4 => parsed::<AddrV4, P, K>(packet, kernel, Hook::Ingress, ingress_of),
        IPV6 => parsed::<AddrV6, P, K>(packet, kernel, Hook::Ingress, ingress_of),
        _ => Ok(Verdict::Unsupported),
    }
}

/// tc egress: replies of translated flows get their frontend back, masked flows a node address, packets of
/// this node's processes to a frontend both ends.
#[inline(always)]
pub fn egress<P, K>(packet: &mut P, kernel: &mut K) -> Fate
where
    P: Hooked,
    K: Kernel<AddrV4> + Kernel<AddrV6>,
{
    match packet.ethertype() {
        IPV4 => parsed::<AddrV4, P, K>(packet, kernel, Hook::Egress, egress_of),
        IPV6 => parsed::<AddrV6, P, K>(packet, kernel, Hook::Egress, egress_of),
        _ => Ok(Verdict::Unsupported),
    }
}

#[inline(always)]
fn parsed<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    hook: Hook,
    run: impl FnOnce(&mut P, &mut K, &Headers<A>) -> Fate,
) -> Fate {
    let mut place = Place::uninit();
    let headers = match A::parse(packet, &mut place) {
        Ok(headers) => headers,
        Err(Verdict::Unsupported) => return unsupported(packet, kernel, hook),
        Err(Verdict::Fragment | Verdict::ExtensionHeader) => {
            let headers = place.write(Headers::unread());
            match unusual::read(packet, kernel, headers) {
                Ok(()) => headers,
                Err(verdict) => return Ok(verdict),
            }
        }
        Err(verdict) => return Ok(verdict),
    };
    // See `unusual::read`.
    let headers = black_box(&*headers);
    let fate = run(packet, kernel, headers);
    kernel.decided(&headers.tuple, fate);
    fate
}

#[inline(always)]
fn unsupported<A: Family, P: Hooked, K: Kernel<A>>(packet: &mut P, kernel: &K, hook: Hook) -> Fate {
    match icmp::unsupported(packet, kernel, hook) {
        Ok(Verdict::OtherHook) => known::other_hook(packet, kernel, hook),
        Ok(Verdict::Fast) if hook == Hook::Ingress => {
            lane::send_error(packet, kernel)?;
            Ok(Verdict::IcmpTranslated)
        }
        fate => fate,
    }
}

#[inline(always)]
fn ingress_of<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
) -> Fate {
    // At a port of a bridge also what is translated elsewhere is looked for.
    let may_have_flow = kernel.may_have_flow(Hook::Ingress, &headers.tuple)
        || P::IS_PORT && kernel.may_have_flow(Hook::Egress, &headers.tuple);
    if may_have_flow && let Some(fate) = known_at_ingress(packet, kernel, headers) {
        return fate;
    }
    let fate = match service::dialled(kernel, headers.proto, &headers.tuple) {
        None => to_no_frontend(kernel, headers),
        Some(_) if !headers.starts_flow() => Ok(Verdict::NoFlow),
        Some(frontend) => first_packet(packet, kernel, headers, frontend.word()),
    };
    match fate {
        Err(DropReason::NoBackend) => refuse::refuse(packet, kernel, headers, Hook::Ingress),
        fate => fate,
    }
}

/// A packet of no flow, to an address and port that is no frontend: at a cluster address nobody else answers.
#[inline(always)]
fn to_no_frontend<A: Family, K: Kernel<A>>(kernel: &K, headers: &Headers<A>) -> Fate {
    if headers.starts_flow() && service::has_service(kernel, &headers.tuple.dst) {
        return Err(DropReason::NoBackend);
    }
    Ok(Verdict::NotService)
}

/// `None`: the packet is of no flow, or begins one anew.
#[inline(always)]
fn known_at_ingress<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
) -> Option<Fate> {
    if let Some(flow) = kernel.flow(Table::Confirmed, &headers.tuple) {
        if !lane::takes(packet, kernel, headers, flow) && !flow.applies_at(Hook::Ingress) {
            return Some(known::other_hook(packet, kernel, Hook::Ingress));
        }
        if flow::carries(kernel, flow, headers) {
            let translated = known::translate(packet, headers, flow, kernel.now());
            let finish = |passage| {
                let table = Table::Confirmed;
                known::finish::<A, P, K, true>(packet, kernel, headers, table, passage)
            };
            return Some(translated.and_then(finish));
        }
    }
    if flow::half_open(kernel, headers) != HalfOpen::IsStale {
        return Some(known::half_open::<A, P, K, true>(packet, kernel, headers));
    }
    None
}

/// A function of its own to the verifier too: what only first packets need must not cost the others
/// registers and stack.
#[inline(never)]
fn first_packet<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
    frontend: u64,
) -> Fate {
    let frontend = Frontend::from_word(frontend);
    let fate = kernel.with_plan(|kernel, plan| {
        plan.begin(&headers.tuple, packet.device(), false);
        open_at_ingress(packet, kernel, headers, frontend, plan)
    });
    fate.unwrap_or(Err(DropReason::FlowTableFull))
}

#[inline(always)]
fn open_at_ingress<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
    frontend: Frontend,
    plan: &mut Plan<A>,
) -> Fate {
    flow::take_up(kernel, &headers.tuple, plan);
    service::choose(kernel, frontend, plan)?;
    if plan.is_spared {
        plan.masked = !service::comes_back(kernel, plan, &headers.tuple.src);
    }
    lane::choose(packet, kernel, headers, plan);
    open::open(kernel, &headers.tuple, plan)?;
    nat::apply_first(packet, headers, plan)?;
    if plan.is_fast {
        lane::leave::<A, P, K, true>(packet, kernel)?;
    }
    Ok(Verdict::Created)
}

#[inline(always)]
fn egress_of<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
) -> Fate {
    let may_have_flow = kernel.may_have_flow(Hook::Egress, &headers.tuple);
    if may_have_flow && let Some(flow) = kernel.flow(Table::Confirmed, &headers.tuple) {
        if !flow.applies_at(Hook::Egress) {
            return Ok(Verdict::OtherHook);
        }
        if known::is_of_another(flow, headers) {
            kernel.remove_flow(Table::Confirmed, &headers.tuple);
            return Ok(Verdict::NotService);
        }
        if flow.device == 0 || flow::carries(kernel, flow, headers) {
            let passage = known::translate(packet, headers, flow, kernel.now())?;
            return known::finish::<A, P, K, false>(
                packet,
                kernel,
                headers,
                Table::Confirmed,
                passage,
            );
        }
    }
    let half_open = match may_have_flow {
        true => flow::half_open(kernel, headers),
        false => HalfOpen::IsStale,
    };
    let role = match half_open {
        HalfOpen::Carries => return known::half_open::<A, P, K, false>(packet, kernel, headers),
        HalfOpen::IsPending => Ok(FlowRole::Snat),
        HalfOpen::IsStale => host_needs(packet, kernel, headers),
    };
    let fate = match role {
        Ok(role) => first_packet_at_egress(packet, kernel, headers, role),
        Err(fate) => fate,
    };
    match fate {
        Err(DropReason::NoBackend) => refuse::refuse(packet, kernel, headers, Hook::Egress),
        fate => fate,
    }
}

#[inline(always)]
fn host_needs<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &P,
    kernel: &K,
    headers: &Headers<A>,
) -> Result<FlowRole, Fate> {
    let fate = match packet.sender() {
        Some(socket_port) => match host::need(kernel, headers, socket_port) {
            Ok(role) => return Ok(role),
            Err(Verdict::NotService) => to_no_frontend(kernel, headers),
            Err(verdict) => Ok(verdict),
        },
        None => Ok(Verdict::NotService),
    };
    let is_nobodys = || service::is_nobodys(kernel, &headers.tuple.dst, packet.device());
    match fate {
        Ok(Verdict::NotService) if headers.starts_flow() && is_nobodys() => {
            Err(Err(DropReason::NoService))
        }
        fate => Err(fate),
    }
}

/// The first packet that gets its source here: of a flow that waits to be masked, or of a process of this
/// node. See [`first_packet`].
#[inline(never)]
fn first_packet_at_egress<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
    role: FlowRole,
) -> Fate {
    let fate = kernel.with_plan(|kernel, plan| {
        let is_host = role == FlowRole::HostDnat;
        plan.begin(&headers.tuple, packet.device(), is_host);
        open_at_egress(packet, kernel, headers, plan)
    });
    fate.unwrap_or(Err(DropReason::FlowTableFull))
}

#[inline(always)]
fn open_at_egress<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
    plan: &mut Plan<A>,
) -> Fate {
    let original = &headers.tuple;
    if plan.is_host {
        flow::take_up(kernel, original, plan);
        host::plan(kernel, headers.proto, plan)?;
    } else {
        snat::plan(kernel, original, plan)?;
    }
    snat::reserve(kernel, original, plan)?;
    open::store_at_egress(kernel, original, plan)?;
    nat::apply_first(packet, headers, plan)?;
    if plan.is_host {
        host::leave_first(packet, kernel, plan)?;
        return Ok(Verdict::Created);
    }
    Ok(Verdict::Masked)
}
