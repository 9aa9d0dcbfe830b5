//! Processes of this node that dial a frontend without the help of their socket: their packets pass no
//! ingress hook on the way out, so all is done at egress, and undone where the answer comes in.

use crate::family::Family;
use crate::kernel::{Kernel, Way};
use crate::open::Plan;
use crate::packet::{Hooked, Redirect};
use crate::parse::Headers;
use crate::{DropReason, Verdict, service, snat};
use bytemuck::Zeroable as _;
use proxy_common::{Device, Flow, FlowRole, Mac, Proto, Table, Tuple};

/// Loopback is the first device of every network namespace.
const LOOPBACK: u32 = 1;

/// What a packet at egress that is of no known flow needs, sent by a socket of this node with this port:
/// it may be to a frontend, or use a port that masked flows have taken. `Err`: nothing.
#[inline(never)]
pub fn need<A: Family, K: Kernel<A>>(
    kernel: &K,
    headers: &Headers<A>,
    socket_port: u16,
) -> Result<FlowRole, Verdict> {
    if service::dialled(kernel, headers.proto, &headers.tuple).is_some() {
        return if headers.starts_flow() {
            Ok(FlowRole::HostDnat)
        } else {
            Err(Verdict::NoFlow)
        };
    }
    let port = headers.tuple.sport;
    if headers.starts_flow()
        && port.number() == socket_port
        && snat::in_range(kernel, port)
        && is_taken(kernel, &headers.tuple)
    {
        return Ok(FlowRole::Snat);
    }
    Err(Verdict::NotService)
}

/// Plans the way of a first packet to a frontend.
#[inline(never)]
pub fn plan<A: Family, K: Kernel<A>>(
    kernel: &K,
    proto: Proto,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let frontend = service::find(kernel, proto, &plan.to);
    let frontend = frontend.ok_or(DropReason::ServiceTorn)?;
    service::choose(kernel, frontend, plan)?;
    choose_source(kernel, plan)
}

/// The source that this node would use towards the backend; the packet's own if that can't be told.
#[inline(never)]
fn choose_source<A: Family, K: Kernel<A>>(
    kernel: &K,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let route = kernel.route(None, &plan.to.dst, plan.device);
    match route.way {
        Way::Nowhere => return Err(DropReason::NoRoute),
        Way::Here => return Ok(()),
        Way::Out => {}
    }
    let device = kernel.device(route.device);
    if route.src.can_mask() {
        plan.to.src = route.src;
    } else if let Some(address) = device.map(A::of_device).filter(A::can_mask) {
        plan.to.src = address;
    }
    Ok(())
}

/// A translated packet of a known flow of a process goes where its backend is.
#[inline(always)]
pub fn leave_again<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &K,
    flow: &Flow<A>,
) -> Result<(), DropReason> {
    leave(packet, kernel, &flow.src, &flow.dst)
}

/// The first packet of a process's flow goes where it is planned to go.
#[inline(never)]
pub fn leave_first<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &K,
    plan: &Plan<A>,
) -> Result<(), DropReason> {
    leave(packet, kernel, &plan.to.src, &plan.to.dst)
}

/// Sends a translated packet where its new destination is.
#[inline(always)]
fn leave<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &K,
    src: &A,
    dst: &A,
) -> Result<(), DropReason> {
    let device = packet.device();
    let route = kernel.route(Some(src), dst, device);
    match route.way {
        Way::Nowhere => Err(DropReason::NoRoute),
        Way::Here if device == LOOPBACK => Ok(()),
        Way::Here => packet.redirect(Redirect::Up {
            device: LOOPBACK,
            mac: Mac::zeroed(),
            is_bare: false,
        }),
        Way::Out => packet.redirect(Redirect::Out {
            device: route.device,
            is_bare: kernel.device(route.device).is_some_and(Device::is_bare),
        }),
    }
}

/// Lets an answer come in by the device by which the process has asked: the reverse-path filter wants
/// the source of a packet where routes to it lead.
#[inline(always)]
pub fn arrive<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &K,
    device: u32,
) -> Result<(), DropReason> {
    if packet.device() == device {
        return Ok(());
    }
    let row = kernel.device(device).copied();
    let row = row.unwrap_or(Device::zeroed());
    let mac = if row.bridge == Mac::zeroed() {
        row.mac
    } else {
        row.bridge
    };
    packet.redirect(Redirect::Up {
        device,
        mac,
        is_bare: row.is_bare(),
    })
}

/// Whether a masked flow has taken the tuple of these packets.
#[inline(never)]
fn is_taken<A: Family, K: Kernel<A>>(kernel: &K, tuple: &Tuple<A>) -> bool {
    let answer = tuple.reversed();
    let row = kernel.flow(Table::Confirmed, &answer);
    let row = row.or_else(|| kernel.flow(Table::HalfOpen, &answer));
    row.is_some_and(|row| row.has_role(FlowRole::UnSnat) || row.has_role(FlowRole::HostUnDnat))
}
