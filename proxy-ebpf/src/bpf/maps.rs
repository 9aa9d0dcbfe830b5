//! The maps, and the services in them.

use crate::bpf::route::Search;
use aya_ebpf::Global;
use aya_ebpf::bindings::{__sk_buff, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use proxy_common::{
    AddrV4, AddrV6, Affinity, AffinityKey, Backend, Counter, Device, Filter, Flow, FragmentKey,
    FragmentPorts, Frontend, FrontendKey, NodeConfig, Refusals, ServiceWord, SourceRange, Tuple,
};
use proxy_ebpf::Fate;
use proxy_ebpf::kernel::CURSORS;
use proxy_ebpf::open::Plan;

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;
pub(super) const MAPPED: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
pub(crate) static CONFIG: Array<NodeConfig, 1> = Array::new();
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { Counter::COUNT }> = PerCpuArray::new();
#[btf_map]
pub(crate) static FRONTENDS_V4: HashMap<FrontendKey<AddrV4>, Frontend, 262144, ON_DEMAND> =
    HashMap::new();
#[btf_map]
pub(crate) static FRONTENDS_V6: HashMap<FrontendKey<AddrV6>, Frontend, 262144, ON_DEMAND> =
    HashMap::new();
#[btf_map]
static SERVICES: Array<u64, 262144, MAPPED> = Array::new();
#[btf_map]
pub(crate) static SLOTS: Array<u32, 2097152, MAPPED> = Array::new();
#[btf_map]
pub(crate) static BACKENDS_V4: Array<Backend<AddrV4>, 262144, MAPPED> = Array::new();
#[btf_map]
pub(crate) static BACKENDS_V6: Array<Backend<AddrV6>, 262144, MAPPED> = Array::new();
#[btf_map]
pub(super) static FLOWS_V4: HashMap<Tuple<AddrV4>, Flow<AddrV4>, 131072> = HashMap::new();
#[btf_map]
pub(super) static FLOWS_V6: HashMap<Tuple<AddrV6>, Flow<AddrV6>, 131072> = HashMap::new();
#[btf_map]
pub(super) static HALF_OPEN_V4: LruHashMap<Tuple<AddrV4>, Flow<AddrV4>, 65536> = LruHashMap::new();
#[btf_map]
pub(super) static HALF_OPEN_V6: LruHashMap<Tuple<AddrV6>, Flow<AddrV6>, 65536> = LruHashMap::new();
#[btf_map]
pub(crate) static FILTER_V4: Array<Filter, 1, MAPPED> = Array::new();
#[btf_map]
pub(crate) static FILTER_V6: Array<Filter, 1, MAPPED> = Array::new();
#[btf_map]
pub(super) static FRAGMENTS_V4: LruHashMap<FragmentKey<AddrV4>, FragmentPorts, 8192> =
    LruHashMap::new();
#[btf_map]
pub(super) static FRAGMENTS_V6: LruHashMap<FragmentKey<AddrV6>, FragmentPorts, 8192> =
    LruHashMap::new();
#[btf_map]
pub(super) static REFUSALS_V4: LruHashMap<AddrV4, Refusals, 8192> = LruHashMap::new();
#[btf_map]
pub(super) static REFUSALS_V6: LruHashMap<AddrV6, Refusals, 8192> = LruHashMap::new();
/// Whose connections lead to which backend. The agent may make it larger.
#[btf_map]
pub(crate) static AFFINITIES: LruHashMap<AffinityKey, Affinity, 65536> = LruHashMap::new();
#[btf_map]
pub(crate) static SOURCE_RANGES_V4: LpmTrie<SourceRange<AddrV4>, u32, 262144> = LpmTrie::new();
#[btf_map]
pub(crate) static SOURCE_RANGES_V6: LpmTrie<SourceRange<AddrV6>, u32, 262144> = LpmTrie::new();
#[btf_map]
pub(super) static SNAT_CURSORS: Array<u32, { CURSORS as usize }> = Array::new();
#[btf_map]
pub(crate) static DEVICES: HashMap<u32, Device, 16384, ON_DEMAND> = HashMap::new();

#[btf_map]
pub(super) static PLAN_V4: PerCpuArray<Plan<AddrV4>, 1> = PerCpuArray::new();
#[btf_map]
pub(super) static PLAN_V6: PerCpuArray<Plan<AddrV6>, 1> = PerCpuArray::new();
#[btf_map]
pub(super) static NEXT_HOP: PerCpuArray<Search, 1> = PerCpuArray::new();

/// Whether random bits come with each packet, in the first word of its control block: for test runs, where it
/// is set before the programs are loaded. Else that branch is dead to the verifier.
#[unsafe(no_mangle)]
static RANDOM_IN_PACKET: Global<u8> = Global::new(0);

/// The maps as the library sees them, at a hook.
pub(crate) struct Maps {
    pub(super) skb: *mut __sk_buff,
}

impl Maps {
    /// For the packet of a context.
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self {
            skb: context.skb.skb,
        }
    }

    /// Thirty-two random bits.
    #[inline(always)]
    fn draw(&self) -> u32 {
        if RANDOM_IN_PACKET.load() != 0 {
            // SAFETY: the context of a tc program, whose control block it may read.
            return unsafe { (*self.skb).cb[0] };
        }
        // SAFETY: the helper has no arguments and no conditions.
        unsafe { bpf_get_prandom_u32() }
    }

    /// Adds one to what this packet came to.
    #[inline(always)]
    pub(crate) fn count(&self, fate: Fate) {
        if let Some(counter) = COUNTERS.get_ptr_mut(Counter::from(fate).index()) {
            // SAFETY: non-null, aligned and of this size by the map's definition; the row is this
            // CPU's own, and a tc program does not interrupt itself.
            unsafe { *counter += 1 };
        }
    }
}

/// The service maps of a family, as the library sees them from a kind of hook.
macro_rules! services_of_family {
    ($hook:ty, $addr:ty, $frontends:ident, $backends:ident, $filter:ident, $ranges:ident) => {
        impl proxy_ebpf::kernel::Services<$addr> for $hook {
            #[inline(always)]
            fn frontend(
                &self,
                key: &proxy_common::FrontendKey<$addr>,
            ) -> Option<&proxy_common::Frontend> {
                // SAFETY: as for flows.
                unsafe { $crate::bpf::maps::$frontends.get(key) }
            }

            #[inline(always)]
            fn may_be_dialled(&self, address: &$addr) -> bool {
                let filter = $crate::bpf::maps::$filter.get(0);
                filter.is_none_or(|filter| filter.may_be_dialled(address))
            }

            #[inline(always)]
            fn backend(&self, id: u32) -> Option<&proxy_common::Backend<$addr>> {
                $crate::bpf::maps::$backends.get(id)
            }

            #[inline(always)]
            fn service(&self, id: u32) -> proxy_common::ServiceWord {
                $crate::bpf::maps::service_word(id)
            }

            #[inline(always)]
            fn slot(&self, index: u32) -> Option<u32> {
                $crate::bpf::maps::SLOTS.get(index).copied()
            }

            #[inline(always)]
            fn config(&self) -> Option<&proxy_common::NodeConfig> {
                $crate::bpf::maps::CONFIG.get(0)
            }

            #[inline(always)]
            fn device(&self, index: u32) -> Option<&proxy_common::Device> {
                // SAFETY: as for flows.
                unsafe { $crate::bpf::maps::DEVICES.get(&index) }
            }

            #[inline(always)]
            fn is_in_set(&self, set: u32, address: &$addr) -> bool {
                let range = proxy_common::SourceRange {
                    set,
                    address: *address,
                };
                let bits = size_of::<proxy_common::SourceRange<$addr>>() as u32 * u8::BITS;
                let key = aya_ebpf::btf_maps::lpm_trie::Key::new(bits, range);
                $crate::bpf::maps::$ranges.get(&key).is_some()
            }

            #[inline(always)]
            fn affinity(&self, key: &proxy_common::AffinityKey) -> Option<proxy_common::Affinity> {
                // SAFETY: as for flows; another CPU may write it meanwhile, so whatever comes of it is compared
                // with its backend's generation.
                unsafe { $crate::bpf::maps::AFFINITIES.get(key) }.copied()
            }

            #[inline(always)]
            fn put_affinity(
                &self,
                key: &proxy_common::AffinityKey,
                affinity: &proxy_common::Affinity,
            ) {
                let any = aya_ebpf::bindings::BPF_ANY.into();
                let _ = $crate::bpf::maps::AFFINITIES.insert(key, affinity, any);
            }

            #[inline(always)]
            fn now(&self) -> proxy_common::Ticks {
                $crate::bpf::route::now()
            }

            #[inline(always)]
            fn random(&self) -> u32 {
                self.draw()
            }
        }
    };
}

services_of_family!(
    Maps,
    AddrV4,
    FRONTENDS_V4,
    BACKENDS_V4,
    FILTER_V4,
    SOURCE_RANGES_V4
);
services_of_family!(
    Maps,
    AddrV6,
    FRONTENDS_V6,
    BACKENDS_V6,
    FILTER_V6,
    SOURCE_RANGES_V6
);

#[inline(always)]
pub(crate) fn service_word(id: u32) -> ServiceWord {
    let Some(word) = SERVICES.get_ptr(id) else {
        return ServiceWord::NONE;
    };
    // SAFETY: non-null and aligned by the map's definition. Volatile makes it one load, so that
    // region and generation are of one read while the agent replaces the word.
    ServiceWord::from_word(unsafe { word.read_volatile() })
}
