//! Frontend to backend: which one answers, and whether it must be masked.

use crate::family::Family;
use crate::kernel::{Kernel, Services, Way};
use crate::open::Plan;
use proxy_common::{
    Backend, BackendRef, DropReason, Frontend, FrontendKey, NodeConfig, Proto, RegionHeader, Tuple,
};

/// What a packet's destination is, if it is a frontend.
#[inline(always)]
pub fn find<A: Family, K: Services<A>>(
    kernel: &K,
    proto: Proto,
    tuple: &Tuple<A>,
) -> Option<Frontend> {
    let key = FrontendKey::new(tuple.dst, tuple.dport, proto);
    kernel.frontend(&key).copied()
}

/// As [`find`], without looking where there can be none.
#[inline(always)]
pub fn dialled<A: Family, K: Kernel<A>>(
    kernel: &K,
    proto: Proto,
    tuple: &Tuple<A>,
) -> Option<Frontend> {
    match kernel.may_be_dialled(&tuple.dst) {
        true => find(kernel, proto, tuple),
        false => None,
    }
}

/// Picks one of a service's backends, each with the same probability, for a flow to this frontend; the
/// one that is planned already, if it still exists.
///
/// A function of its own to the verifier too: the stack it needs is needed for this call only. It
/// returns no data because there is no BTF for an enum that carries a struct.
#[inline(never)]
pub fn choose<A: Family, K: Kernel<A>>(
    kernel: &K,
    frontend: Frontend,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let config = kernel.config().ok_or(DropReason::ServiceTorn)?;
    if !exists(kernel, plan.backend) {
        draw(kernel, frontend.service, &mut plan.backend)?;
    }
    let backend = known(kernel, plan.backend).ok_or(DropReason::ServiceTorn)?;
    plan.masked = must_mask(config, frontend, plan.to.src, &backend);
    let original = plan.to;
    plan.to.dst = backend.address;
    plan.to.dport = backend.port;
    plan.address_delta = A::address_delta(&original, &plan.to);
    Ok(())
}

/// The backend that a flow or socket has, if it still exists: a copy, because the row may change.
#[inline(always)]
pub fn known<A: Family, K: Services<A>>(kernel: &K, reference: BackendRef) -> Option<Backend<A>> {
    let backend = kernel.backend(reference.id).copied()?;
    (reference.generation != 0 && backend.generation == reference.generation).then_some(backend)
}

/// Whether the backend of a flow or socket still exists.
///
/// A function of its own to the verifier too: it need not follow what comes next once for each answer.
#[inline(never)]
pub fn exists<A: Family, K: Services<A>>(kernel: &K, reference: BackendRef) -> bool {
    known(kernel, reference).is_some()
}

/// Draws one of a service's backends. The service may be replaced between our look at its word and at its
/// region: the new one is complete.
#[inline(always)]
pub fn draw<A: Family, K: Services<A>>(
    kernel: &K,
    service: u32,
    drawn: &mut BackendRef,
) -> Result<(), DropReason> {
    match pick(kernel, service, drawn) {
        Err(DropReason::ServiceTorn) => pick(kernel, service, drawn),
        outcome => outcome,
    }
}

/// See [`exists`].
#[inline(never)]
fn pick<A: Family, K: Services<A>>(
    kernel: &K,
    service: u32,
    drawn: &mut BackendRef,
) -> Result<(), DropReason> {
    let torn = DropReason::ServiceTorn;
    let word = kernel.service(service);
    let region = word.region();
    if word.generation() == 0 || kernel.slot(region) != Some(word.generation()) {
        return Err(torn);
    }
    let backends = kernel.slot(region + 1).ok_or(torn)?;
    if backends == 0 {
        return Err(DropReason::NoBackend);
    }
    let slot = region + RegionHeader::WORDS + kernel.random_below(backends);
    let id = kernel.slot(slot).ok_or(torn)?;
    let generation = kernel.backend(id).ok_or(torn)?.generation;
    *drawn = BackendRef { id, generation };
    if generation == 0 { Err(torn) } else { Ok(()) }
}

/// Whether the reply would miss this node unless the source is masked: the backend would talk to
/// itself (hairpin), or it is elsewhere and the client is not known to be a pod of the cluster.
#[inline(always)]
pub fn must_mask<A: Family>(
    config: &NodeConfig,
    frontend: Frontend,
    client: A,
    backend: &Backend<A>,
) -> bool {
    if backend.address == client {
        return true;
    }
    !backend.is_local() && (frontend.is_external() || !client.in_cluster(config))
}

/// Whether a client outside gets the answers of a backend of this node by the way that it has come. It
/// would be another one if the pod is reached by the same device as the client (it has none of its own on
/// this node; what ports of a bridge have is their own), or if routes to the client lead elsewhere.
#[inline(always)]
pub fn comes_back<A: Family, K: Kernel<A>>(kernel: &K, plan: &Plan<A>, client: &A) -> bool {
    let device = kernel.device(plan.device);
    let arrival = device.map_or(plan.device, |device| device.routed_as);
    let to_client = way_out(kernel, &plan.to.dst, client, plan.device);
    let to_backend = way_out(kernel, client, &plan.to.dst, plan.device);
    (to_client == NOWHERE || to_client == arrival) && to_backend != plan.device
}

/// The device by which packets leave; [`NOWHERE`] if they don't, or if routing does not tell.
#[inline(never)]
fn way_out<A: Family, K: Kernel<A>>(kernel: &K, src: &A, dst: &A, device: u32) -> u32 {
    let route = kernel.route(Some(src), dst, device);
    match route.way {
        Way::Out => route.device,
        Way::Here | Way::Nowhere => NOWHERE,
    }
}

/// No device has this index.
const NOWHERE: u32 = 0;
