//! The maps, and the kernel's answers read from them.

use aya_ebpf::bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::macros::btf_map;
use core::net::{Ipv4Addr, Ipv6Addr};
use proxy_common::{
    AddrV4, AddrV6, Backend, Counter, Flow, Frontend, FrontendKey, NodeConfig, ServiceWord, Tuple,
};
use proxy_ebpf::Fate;
use proxy_ebpf::kernel::{Kernel, NotInserted};

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;
const EEXIST: i32 = -17;

#[btf_map]
static CONFIG: Array<NodeConfig, 1> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { Counter::COUNT }> = PerCpuArray::new();
#[btf_map]
static FRONTENDS_V4: HashMap<FrontendKey<AddrV4>, Frontend, 262144, ON_DEMAND> = HashMap::new();
#[btf_map]
static FRONTENDS_V6: HashMap<FrontendKey<AddrV6>, Frontend, 262144, ON_DEMAND> = HashMap::new();
#[btf_map]
static SERVICES: Array<u64, 262144> = Array::new();
#[btf_map]
static SLOTS: Array<u32, 2097152> = Array::new();
#[btf_map]
static BACKENDS_V4: Array<Backend<AddrV4>, 262144> = Array::new();
#[btf_map]
static BACKENDS_V6: Array<Backend<AddrV6>, 262144> = Array::new();
#[btf_map]
static FLOWS_V4: LruHashMap<Tuple<AddrV4>, Flow<AddrV4>, 262144> = LruHashMap::new();
#[btf_map]
static FLOWS_V6: LruHashMap<Tuple<AddrV6>, Flow<AddrV6>, 262144> = LruHashMap::new();

/// The maps as the library sees them.
pub(crate) struct Maps;

impl Maps {
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

macro_rules! kernel_of_family {
    ($addr:ty, $std:ty, $flows:ident, $frontends:ident, $backends:ident) => {
        impl Kernel<$addr> for Maps {
            #[inline(always)]
            fn flow(&self, tuple: &Tuple<$addr>) -> Option<&Flow<$addr>> {
                // SAFETY: the row stays allocated until the program has ended (RCU); its content
                // may be replaced by another CPU, and every content is a valid Flow.
                unsafe { $flows.get(tuple) }
            }

            #[inline(always)]
            fn insert_flow(
                &mut self,
                tuple: &Tuple<$addr>,
                flow: &Flow<$addr>,
            ) -> Result<(), NotInserted> {
                $flows
                    .insert(tuple, flow, BPF_NOEXIST.into())
                    .map_err(not_inserted)
            }

            #[inline(always)]
            fn replace_flow(
                &mut self,
                tuple: &Tuple<$addr>,
                flow: &Flow<$addr>,
            ) -> Result<(), NotInserted> {
                $flows
                    .insert(tuple, flow, BPF_ANY.into())
                    .map_err(not_inserted)
            }

            #[inline(always)]
            fn close_flow(&mut self, tuple: &Tuple<$addr>) {
                if let Some(flow) = $flows.get_ptr_mut(tuple) {
                    // SAFETY: as for `flow`; one byte is written, whoever else may write it.
                    unsafe { (*flow).close() };
                }
            }

            #[inline(always)]
            fn remove_flow(&mut self, tuple: &Tuple<$addr>) {
                // Gone already is as good.
                let _ = $flows.remove(tuple);
            }

            #[inline(always)]
            fn frontend(&self, key: &FrontendKey<$addr>) -> Option<&Frontend> {
                // SAFETY: as for flows.
                unsafe { $frontends.get(key) }
            }

            #[inline(always)]
            fn backend(&self, id: u32) -> Option<&Backend<$addr>> {
                $backends.get(id)
            }

            #[inline(always)]
            fn service(&self, id: u32) -> ServiceWord {
                service_word(id)
            }

            #[inline(always)]
            fn slot(&self, index: u32) -> Option<u32> {
                SLOTS.get(index).copied()
            }

            #[inline(always)]
            fn config(&self) -> Option<&NodeConfig> {
                CONFIG.get(0)
            }

            #[inline(always)]
            fn decided(&self, tuple: &Tuple<$addr>, fate: Fate) {
                aya_log_ebpf::info!(
                    self,
                    "protocol {} {:i}:{} -> {:i}:{}: counter {}",
                    tuple.proto_number(),
                    <$std>::from(bytemuck::cast::<_, [u8; size_of::<$addr>()]>(tuple.src)),
                    tuple.sport.number(),
                    <$std>::from(bytemuck::cast::<_, [u8; size_of::<$addr>()]>(tuple.dst)),
                    tuple.dport.number(),
                    Counter::from(fate).index(),
                );
            }

            #[inline(always)]
            fn random(&self) -> u32 {
                // SAFETY: the helper has no arguments and no conditions.
                unsafe { bpf_get_prandom_u32() }
            }
        }
    };
}

kernel_of_family!(AddrV4, Ipv4Addr, FLOWS_V4, FRONTENDS_V4, BACKENDS_V4);
kernel_of_family!(AddrV6, Ipv6Addr, FLOWS_V6, FRONTENDS_V6, BACKENDS_V6);

#[inline(always)]
fn service_word(id: u32) -> ServiceWord {
    let Some(word) = SERVICES.get_ptr(id) else {
        return ServiceWord::NONE;
    };
    // SAFETY: non-null and aligned by the map's definition. Volatile makes it one load, so that
    // region and generation are of one read while the agent replaces the word.
    ServiceWord::from_word(unsafe { word.read_volatile() })
}

#[inline(always)]
const fn not_inserted(code: i32) -> NotInserted {
    match code {
        EEXIST => NotInserted::Exists,
        _ => NotInserted::Full,
    }
}
