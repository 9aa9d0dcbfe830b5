//! Which backend of a service: the one that there was, the one that the client has had, or any.

use crate::family::Family;
use crate::kernel::Services;
use core::hint::black_box;
use proxy_common::{
    Affinity, AffinityKey, Backend, BackendRef, DropReason, Frontend, FrontendTrait, RegionHeader,
    ServiceWord,
};

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

/// Draws one of a service's backends for a client, or recalls the one that it has had; then that is
/// remembered.
#[inline(always)]
pub fn draw<A: Family, K: Services<A>>(
    kernel: &K,
    frontend: Frontend,
    client: &AffinityKey,
    stays_local: bool,
    drawn: &mut BackendRef,
) -> Result<(), DropReason> {
    let sticks = |frontend: Frontend| frontend.has(FrontendTrait::Sticks);
    if !(sticks(frontend) && recall(kernel, client, frontend, stays_local, drawn)) {
        retried(|| pick::<A, K>(kernel, frontend.service, stays_local, drawn))?;
    }
    // Read anew: the verifier would follow all between once for each answer.
    if sticks(black_box(frontend)) {
        remember::<A, K>(kernel, client, drawn);
    }
    Ok(())
}

/// The service may be replaced between our look at its word and at its region: the new one is complete.
#[inline(always)]
pub(super) fn retried(mut work: impl FnMut() -> Result<(), DropReason>) -> Result<(), DropReason> {
    match work() {
        Err(DropReason::ServiceTorn) => work(),
        outcome => outcome,
    }
}

/// Finds the backend that a client has had not too long ago, if it may still answer. See [`exists`].
#[inline(never)]
fn recall<A: Family, K: Services<A>>(
    kernel: &K,
    client: &AffinityKey,
    frontend: Frontend,
    stays_local: bool,
    drawn: &mut BackendRef,
) -> bool {
    let Some(affinity) = kernel.affinity(client) else {
        return false;
    };
    let ticks = region::<A, K>(kernel, frontend.service)
        .ok()
        .and_then(|region| kernel.slot(region + RegionHeader::AFFINITY));
    let is_fresh = ticks.is_some_and(|ticks| kernel.now().since(affinity.since) <= ticks);
    let backend = known::<A, K>(kernel, affinity.backend);
    *drawn = affinity.backend;
    is_fresh && backend.is_some_and(|it| it.service == frontend.service && it.answers(stays_local))
}

/// See [`exists`].
#[inline(never)]
fn remember<A: Family, K: Services<A>>(kernel: &K, client: &AffinityKey, drawn: &BackendRef) {
    let affinity = Affinity {
        backend: *drawn,
        since: kernel.now(),
    };
    kernel.put_affinity(client, &affinity);
}

/// See [`exists`].
#[inline(never)]
fn pick<A: Family, K: Services<A>>(
    kernel: &K,
    service: u32,
    stays_local: bool,
    drawn: &mut BackendRef,
) -> Result<(), DropReason> {
    let torn = DropReason::ServiceTorn;
    let region = region::<A, K>(kernel, service)?;
    let window = window::<A, K>(kernel, region, stays_local)?;
    let slot = window.first + kernel.random_below(window.backends);
    let id = kernel.slot(slot).ok_or(torn)?;
    let generation = kernel.backend(id).ok_or(torn)?.generation;
    *drawn = BackendRef { id, generation };
    if generation == 0 { Err(torn) } else { Ok(()) }
}

/// Index of a service's region in `SLOTS`.
#[inline(always)]
pub fn region<A: Family, K: Services<A>>(kernel: &K, service: u32) -> Result<u32, DropReason> {
    let word: ServiceWord = kernel.service(service);
    let region = word.region();
    if word.generation() == 0 || kernel.slot(region) != Some(word.generation()) {
        return Err(DropReason::ServiceTorn);
    }
    Ok(region)
}

/// A run of words in `SLOTS`: ids of the backends that may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Index of the first.
    pub first: u32,
    /// How many there are, at least one.
    pub backends: u32,
}

/// Who of a region may answer.
#[inline(always)]
pub fn window<A: Family, K: Services<A>>(
    kernel: &K,
    region: u32,
    stays_local: bool,
) -> Result<Window, DropReason> {
    let word = |index| kernel.slot(region + index).ok_or(DropReason::ServiceTorn);
    let local = if stays_local {
        word(RegionHeader::LOCAL)?
    } else {
        0
    };
    if local != 0 {
        return Ok(Window {
            first: region + RegionHeader::WORDS,
            backends: local,
        });
    }
    let from = word(RegionHeader::CLUSTER_FROM)?;
    let backends = word(RegionHeader::CLUSTER_TO)?.wrapping_sub(from);
    match (backends, stays_local) {
        (0, _) => Err(DropReason::NoBackend),
        (_, true) => Err(DropReason::NoLocalBackend),
        (_, false) => Ok(Window {
            first: region + RegionHeader::WORDS + from,
            backends,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use proxy_common::{AddrV4, Address as _, FrontendKind, Locality, Proto, Ticks};

    const WEB: &str = "10.96.0.10:80";
    const TICKS: u32 = 10;

    /// Two backends, and clients that stay with one.
    fn world() -> World {
        let backends = [
            ("10.244.1.5:8080", Locality::Local),
            ("10.244.2.6:8080", Locality::Remote),
        ];
        World::default()
            .service(Proto::Tcp, WEB, FrontendKind::ClusterIp, &backends)
            .with_affinity(TICKS)
    }

    fn frontend(world: &World) -> Frontend {
        *world.v4.frontends.values().next().expect("the frontend")
    }

    /// What the client of this number gets.
    fn drawn(world: &World, client: u8) -> BackendRef {
        let frontend = frontend(world);
        let client = AddrV4::new([10, 244, 1, client].into());
        let key = AffinityKey::of_address(client.as_v6(), frontend.service);
        let mut drawn = BackendRef {
            id: 0,
            generation: 0,
        };
        draw::<AddrV4, _>(world, frontend, &key, false, &mut drawn).expect("a backend");
        drawn
    }

    #[test]
    fn a_client_stays_as_long_as_it_comes_back_in_time() {
        let mut world = world();
        let first = drawn(&world, 9);
        for now in (1000..1200).step_by(TICKS as usize) {
            world.now = Ticks::new(now);
            assert_eq!(drawn(&world, 9), first, "at {now}");
        }
        let later = (0..64).map(|visit| {
            world.now = Ticks::new(2000 + visit * (TICKS + 1));
            drawn(&world, 9)
        });
        assert!(later.into_iter().any(|it| it != first), "the time was over");
    }

    #[test]
    fn clients_are_told_apart() {
        let world = world();
        let first = drawn(&world, 1);
        assert!((2..64).any(|client| drawn(&world, client) != first));
    }

    #[test]
    fn a_backend_that_answers_for_another_service_now_is_not_recalled() {
        let mut world = world();
        let first = drawn(&world, 9);
        let row = world.v4.backends.get_mut(&first.id).expect("its row");
        *row = row.of_service(7);
        let others = (0..64).map(|_| drawn(&world, 9)).collect::<Vec<_>>();
        assert!(others.iter().any(|it| *it != first));
    }
}
