//! What the programs at devices know besides services.

use crate::bpf::maps::{
    FILTER_V4, FILTER_V6, FLOWS_V4, FLOWS_V6, FRAGMENTS_V4, FRAGMENTS_V6, HALF_OPEN_V4,
    HALF_OPEN_V6, MAPPED, Maps, PLAN_V4, PLAN_V6, REFUSALS_V4, REFUSALS_V6, SNAT_CURSORS,
};
use crate::bpf::route;
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::btf_maps::Array;
use core::cell::Cell;
use core::net::{Ipv4Addr, Ipv6Addr};
use proxy_common::{
    AddrV4, AddrV6, Address, Counter, Filter, Flow, FragmentKey, FragmentPorts, Hook, Refusals,
    Table, Tuple,
};
use proxy_ebpf::Fate;
use proxy_ebpf::kernel::{Hop, Journey, Kernel, NextHop, NotInserted, Route};
use proxy_ebpf::lane::Lane;
use proxy_ebpf::open::Plan;

const EEXIST: i32 = -17;

/// Whether what becomes of packets is logged; set by the agent before it loads the programs.
#[unsafe(no_mangle)]
static LOG_DECISIONS: Global<u8> = Global::new(0);

/// Whether flows may pass the stack by; the same. To the verifier what is for them alone is not there else.
#[unsafe(no_mangle)]
static FAST_LANE: Global<u8> = Global::new(0);

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
            fn may_have_flow(&self, hook: Hook, tuple: &Tuple<$addr>) -> bool {
                let filter = $filter.get(0);
                filter.is_none_or(|filter| filter.may_have_flow(hook, &tuple.src, &tuple.dst))
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
                note(&$filter, tuple, flow);
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
                note(&$filter, tuple, flow);
                match table {
                    Table::Confirmed => $flows.insert(tuple, flow, BPF_ANY.into()),
                    Table::HalfOpen => $half_open.insert(tuple, flow, BPF_ANY.into()),
                }
                .map_err(not_inserted)
            }

            #[inline(always)]
            fn confirm_flow(&mut self, tuple: &Tuple<$addr>) -> Result<(), NotInserted> {
                // SAFETY: as for `flow`. The row goes from map to map, without a copy on the stack.
                let Some(row) = (unsafe { $half_open.get(tuple) }) else {
                    // Confirmed by another CPU, or evicted.
                    return match $flows.get_ptr(tuple) {
                        Some(_) => Ok(()),
                        None => Err(NotInserted::Full),
                    };
                };
                // The agent may have read one table before and read the other after.
                note(&$filter, tuple, row);
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
            fn route(&self, src: Option<&$addr>, dst: &$addr, device: u32) -> Route<$addr> {
                route::ask(self.skb, src, dst, device)
            }

            #[inline(always)]
            fn has_fast_lane(&self) -> bool {
                FAST_LANE.load() != 0
            }

            #[inline(always)]
            fn find_hop(&self, journey: &Journey<$addr>) -> Hop {
                route::find_hop(self.skb, journey)
            }

            #[inline(always)]
            fn found_hop(&self) -> Option<NextHop> {
                route::found_hop()
            }

            #[inline(always)]
            fn lane(&self) -> Option<&Cell<Lane>> {
                route::lane()
            }

            #[inline(always)]
            fn has_socket(&self, tuple: &Tuple<$addr>) -> bool {
                route::has_socket(self.skb, tuple)
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

/// Makes the filter of a family say yes to packets that find a row.
#[inline(always)]
fn note<A: Address>(filter: &Array<Filter, 1, MAPPED>, tuple: &Tuple<A>, row: &Flow<A>) {
    if let Some(filter) = filter.get_ptr_mut(0) {
        // SAFETY: non-null, aligned and of this size by the map's definition, and every content is valid. Other
        // CPUs and the agent write single bytes meanwhile, and nobody relies on what they write together.
        unsafe { &mut *filter }.note(tuple, row);
    }
}

#[inline(always)]
const fn not_inserted(code: i32) -> NotInserted {
    match code {
        EEXIST => NotInserted::Exists,
        _ => NotInserted::Full,
    }
}
