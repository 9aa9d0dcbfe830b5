//! Decision: a service's backends in a region of an array, or hashed by service and slot.

use super::state::state;
use super::{DONE, FAILED};
use crate::bpf::maps::Maps;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use proxy_common::{AddrV4, Backend, RegionHeader};
use proxy_ebpf::kernel::Services;

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// By service and slot: in slot 0 how many backends there are, then address and port of each.
#[btf_map]
static HASHED_SLOTS: HashMap<[u32; 2], [u32; 2], 1048576, ON_DEMAND> = HashMap::new();

#[classifier]
fn choose_nothing(context: TcContext) -> i32 {
    choose(|_| {
        Some(<Maps as Services<AddrV4>>::random_below(
            &Maps::new(&context),
            1,
        ))
    })
}

#[classifier]
fn choose_regions(context: TcContext) -> i32 {
    choose(|service| {
        let backend = by_region(&Maps::new(&context), service)?;
        Some(backend.port.be().into())
    })
}

#[classifier]
fn choose_hashed(context: TcContext) -> i32 {
    choose(|service| {
        // SAFETY: nobody writes while the benchmark measures.
        let [backends, _] = *unsafe { HASHED_SLOTS.get([service, 0]) }?;
        let slot = 1 + <Maps as Services<AddrV4>>::random_below(&Maps::new(&context), backends);
        // SAFETY: as above.
        let [_, port] = *unsafe { HASHED_SLOTS.get([service, slot]) }?;
        Some(port)
    })
}

/// As `service::choose` does it, without what it then finds out about the backend.
#[inline(always)]
fn by_region<K: Services<AddrV4>>(kernel: &K, service: u32) -> Option<Backend<AddrV4>> {
    let word = kernel.service(service);
    let region = word.region();
    if word.generation() == 0 || kernel.slot(region) != Some(word.generation()) {
        return None;
    }
    let backends = kernel.slot(region + RegionHeader::BACKENDS)?;
    let slot = region + RegionHeader::WORDS + kernel.random_below(backends);
    let backend = *kernel.backend(kernel.slot(slot)?)?;
    (backend.generation != 0).then_some(backend)
}

/// Services are numbered from 1 on.
#[inline(always)]
fn choose(port: impl FnOnce(u32) -> Option<u32>) -> i32 {
    let Some(state) = state() else {
        return FAILED;
    };
    let run = state.next();
    if port(1 + state.pick(run)).is_some_and(|port| port != state.salt) {
        state.hits += 1;
    }
    DONE
}
