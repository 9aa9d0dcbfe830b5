//! The maps, and the kernel's answers.

use crate::bpf::route;
use aya_ebpf::Global;
use aya_ebpf::bindings::{__sk_buff, BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use core::net::{Ipv4Addr, Ipv6Addr};
use proxy_common::{
    AddrV4, AddrV6, Address, Backend, Counter, Device, Filter, Flow, FragmentKey, FragmentPorts,
    Frontend, FrontendKey, NodeConfig, Refusals, ServiceWord, Table, Ticks, Tuple,
};
use proxy_ebpf::Fate;
use proxy_ebpf::kernel::{CURSORS, Kernel, NotInserted, Route};
use proxy_ebpf::open::Plan;

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;
const MAPPED: usize = BPF_F_MMAPABLE as usize;
const EEXIST: i32 = -17;

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
static SERVICES: Array<u64, 262144> = Array::new();
#[btf_map]
pub(crate) static SLOTS: Array<u32, 2097152> = Array::new();
#[btf_map]
pub(crate) static BACKENDS_V4: Array<Backend<AddrV4>, 262144> = Array::new();
#[btf_map]
pub(crate) static BACKENDS_V6: Array<Backend<AddrV6>, 262144> = Array::new();
#[btf_map]
static FLOWS_V4: HashMap<Tuple<AddrV4>, Flow<AddrV4>, 262144> = HashMap::new();
#[btf_map]
static FLOWS_V6: HashMap<Tuple<AddrV6>, Flow<AddrV6>, 262144> = HashMap::new();
#[btf_map]
static HALF_OPEN_V4: LruHashMap<Tuple<AddrV4>, Flow<AddrV4>, 131072> = LruHashMap::new();
#[btf_map]
static HALF_OPEN_V6: LruHashMap<Tuple<AddrV6>, Flow<AddrV6>, 131072> = LruHashMap::new();
#[btf_map]
static FILTER_V4: Array<Filter, 1, MAPPED> = Array::new();
#[btf_map]
static FILTER_V6: Array<Filter, 1, MAPPED> = Array::new();
#[btf_map]
static FRAGMENTS_V4: LruHashMap<FragmentKey<AddrV4>, FragmentPorts, 8192> = LruHashMap::new();
#[btf_map]
static FRAGMENTS_V6: LruHashMap<FragmentKey<AddrV6>, FragmentPorts, 8192> = LruHashMap::new();
#[btf_map]
static REFUSALS_V4: LruHashMap<AddrV4, Refusals, 8192> = LruHashMap::new();
#[btf_map]
static REFUSALS_V6: LruHashMap<AddrV6, Refusals, 8192> = LruHashMap::new();
#[btf_map]
static SNAT_CURSORS: Array<u32, { CURSORS as usize }> = Array::new();
#[btf_map]
static DEVICES: HashMap<u32, Device, 16384, ON_DEMAND> = HashMap::new();

#[btf_map]
static PLAN_V4: PerCpuArray<Plan<AddrV4>, 1> = PerCpuArray::new();
#[btf_map]
static PLAN_V6: PerCpuArray<Plan<AddrV6>, 1> = PerCpuArray::new();

/// Whether what becomes of packets is logged; set by the agent before it loads the programs.
#[unsafe(no_mangle)]
static LOG_DECISIONS: Global<u8> = Global::new(0);

/// The maps as the library sees them, at a hook.
pub(crate) struct Maps {
    skb: *mut __sk_buff,
}

impl Maps {
    /// For the packet of a context.
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self {
            skb: context.skb.skb,
        }
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
    ($hook:ty, $addr:ty, $frontends:ident, $backends:ident) => {
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
            fn random(&self) -> u32 {
                // SAFETY: the helper has no arguments and no conditions.
                unsafe { aya_ebpf::helpers::generated::bpf_get_prandom_u32() }
            }
        }
    };
}

services_of_family!(Maps, AddrV4, FRONTENDS_V4, BACKENDS_V4);
services_of_family!(Maps, AddrV6, FRONTENDS_V6, BACKENDS_V6);

macro_rules! kernel_of_family {
    ($addr:ty, $std:ty, $flows:ident, $half_open:ident, $filter:ident, $fragments:ident, $refusals:ident, $plans:ident, $log:ident) => {
        /// A function of its own to the verifier too: its stack is not needed otherwise.
        #[inline(never)]
        fn $log(maps: &Maps, tuple: &Tuple<$addr>, counter: u32) {
            aya_log_ebpf::info!(
                maps,
                "protocol {} {:i}:{} -> {:i}:{}: counter {}",
                tuple.proto_number(),
                <$std>::from(bytemuck::cast::<_, [u8; size_of::<$addr>()]>(tuple.src)),
                tuple.sport.number(),
                <$std>::from(bytemuck::cast::<_, [u8; size_of::<$addr>()]>(tuple.dst)),
                tuple.dport.number(),
                counter,
            );
        }

        impl Kernel<$addr> for Maps {
            #[inline(always)]
            fn may_have_flow(&self, tuple: &Tuple<$addr>) -> bool {
                let filter = $filter.get(0);
                filter.is_none_or(|filter| filter.may_have_flow(&tuple.src, &tuple.dst))
            }

            #[inline(always)]
            fn may_be_dialled(&self, address: &$addr) -> bool {
                let filter = $filter.get(0);
                filter.is_none_or(|filter| filter.may_be_dialled(address))
            }

            #[inline(always)]
            fn flow(&self, table: Table, tuple: &Tuple<$addr>) -> Option<&Flow<$addr>> {
                match table {
                    // SAFETY: the row stays allocated until the program has ended (RCU); its content
                    // may be replaced by another CPU, and every content is a valid Flow.
                    Table::Confirmed => unsafe { $flows.get(tuple) },
                    // SAFETY: as above.
                    Table::HalfOpen => unsafe { $half_open.get(tuple) },
                }
            }

            #[inline(always)]
            fn flow_mut(&mut self, table: Table, tuple: &Tuple<$addr>) -> Option<&mut Flow<$addr>> {
                let row = match table {
                    Table::Confirmed => $flows.get_ptr_mut(tuple),
                    Table::HalfOpen => $half_open.get_ptr_mut(tuple),
                }?;
                // SAFETY: as for `flow`; marks and time are written by single stores, and no CPU
                // relies on what another one has written just now.
                Some(unsafe { &mut *row })
            }

            #[inline(always)]
            fn insert_flow(
                &mut self,
                table: Table,
                tuple: &Tuple<$addr>,
                flow: &Flow<$addr>,
            ) -> Result<(), NotInserted> {
                note(&$filter, tuple);
                match table {
                    Table::Confirmed => $flows.insert(tuple, flow, BPF_NOEXIST.into()),
                    Table::HalfOpen => $half_open.insert(tuple, flow, BPF_NOEXIST.into()),
                }
                .map_err(not_inserted)
            }

            #[inline(always)]
            fn replace_flow(
                &mut self,
                table: Table,
                tuple: &Tuple<$addr>,
                flow: &Flow<$addr>,
            ) -> Result<(), NotInserted> {
                note(&$filter, tuple);
                match table {
                    Table::Confirmed => $flows.insert(tuple, flow, BPF_ANY.into()),
                    Table::HalfOpen => $half_open.insert(tuple, flow, BPF_ANY.into()),
                }
                .map_err(not_inserted)
            }

            #[inline(always)]
            fn confirm_flow(&mut self, tuple: &Tuple<$addr>) -> Result<(), NotInserted> {
                // The agent may have read one table before and read the other after.
                note(&$filter, tuple);
                // SAFETY: as for `flow`. The row goes from map to map, without a copy on the stack.
                let Some(row) = (unsafe { $half_open.get(tuple) }) else {
                    // Confirmed by another CPU, or evicted.
                    return match $flows.get_ptr(tuple) {
                        Some(_) => Ok(()),
                        None => Err(NotInserted::Full),
                    };
                };
                match $flows.insert(tuple, row, BPF_NOEXIST.into()) {
                    Ok(()) | Err(EEXIST) => Ok(()),
                    Err(_) => Err(NotInserted::Full),
                }
            }

            #[inline(always)]
            fn remove_flow(&mut self, table: Table, tuple: &Tuple<$addr>) {
                // Gone already is as good.
                let _ = match table {
                    Table::Confirmed => $flows.remove(tuple),
                    Table::HalfOpen => $half_open.remove(tuple),
                };
            }

            #[inline(always)]
            fn fragment(&self, key: &FragmentKey<$addr>) -> Option<FragmentPorts> {
                // SAFETY: as for flows.
                unsafe { $fragments.get(key) }.copied()
            }

            #[inline(always)]
            fn put_fragment(&mut self, key: &FragmentKey<$addr>, ports: &FragmentPorts) {
                let _ = $fragments.insert(key, ports, BPF_ANY.into());
            }

            #[inline(always)]
            fn refusals(&self, client: $addr) -> Option<Refusals> {
                // SAFETY: as for flows.
                unsafe { $refusals.get(&client) }.copied()
            }

            #[inline(always)]
            fn put_refusals(&mut self, client: $addr, refusals: &Refusals) {
                let _ = $refusals.insert(&client, refusals, BPF_ANY.into());
            }

            #[inline(always)]
            fn cursor(&self, index: u32) -> u32 {
                SNAT_CURSORS.get(index).copied().unwrap_or(0)
            }

            #[inline(always)]
            fn put_cursor(&mut self, index: u32, cursor: u32) {
                if let Some(row) = SNAT_CURSORS.get_ptr_mut(index) {
                    // SAFETY: non-null and aligned by the map's definition; one store.
                    unsafe { row.write_volatile(cursor) };
                }
            }

            #[inline(always)]
            fn with_plan<R>(
                &mut self,
                work: impl FnOnce(&mut Self, &mut Plan<$addr>) -> R,
            ) -> Option<R> {
                let plan = $plans.get_ptr_mut(0)?;
                // SAFETY: non-null, aligned and of this size by the map's definition; any bytes that
                // the program has written are a valid Plan, and so are zeros. The row is this CPU's
                // own, a tc program does not interrupt itself, and nobody nests.
                Some(work(self, unsafe { &mut *plan }))
            }

            #[inline(always)]
            fn device(&self, index: u32) -> Option<&Device> {
                // SAFETY: as for flows.
                unsafe { DEVICES.get(&index) }
            }

            #[inline(always)]
            fn route(&self, src: Option<&$addr>, dst: &$addr, device: u32) -> Route<$addr> {
                route::ask(self.skb, src, dst, device)
            }

            #[inline(always)]
            fn has_socket(&self, tuple: &Tuple<$addr>) -> bool {
                route::has_socket(self.skb, tuple)
            }

            #[inline(always)]
            fn now(&self) -> Ticks {
                route::now()
            }

            #[inline(always)]
            fn decided(&self, tuple: &Tuple<$addr>, fate: Fate) {
                if LOG_DECISIONS.load() != 0 {
                    $log(self, tuple, Counter::from(fate).index());
                }
            }
        }
    };
}

kernel_of_family!(
    AddrV4,
    Ipv4Addr,
    FLOWS_V4,
    HALF_OPEN_V4,
    FILTER_V4,
    FRAGMENTS_V4,
    REFUSALS_V4,
    PLAN_V4,
    log_v4
);
kernel_of_family!(
    AddrV6,
    Ipv6Addr,
    FLOWS_V6,
    HALF_OPEN_V6,
    FILTER_V6,
    FRAGMENTS_V6,
    REFUSALS_V6,
    PLAN_V6,
    log_v6
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

/// Makes the filter of a family say yes to packets with these addresses.
#[inline(always)]
fn note<A: Address>(filter: &Array<Filter, 1, MAPPED>, tuple: &Tuple<A>) {
    if let Some(filter) = filter.get_ptr_mut(0) {
        // SAFETY: non-null, aligned and of this size by the map's definition, and every content is valid. Other
        // CPUs and the agent write single bytes meanwhile, and nobody relies on what they write together.
        unsafe { &mut *filter }.note(&tuple.src, &tuple.dst);
    }
}

#[inline(always)]
const fn not_inserted(code: i32) -> NotInserted {
    match code {
        EEXIST => NotInserted::Exists,
        _ => NotInserted::Full,
    }
}
