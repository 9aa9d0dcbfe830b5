//! Decision: one table for both families with IPv4 as mapped addresses, or one for each.

use super::state::{State, state};
use super::{DONE, FAILED};
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;

/// A tuple of IPv4 addresses, and of mapped ones.
type Key16 = [u32; 4];
type Key40 = [u32; 10];

/// Word 2 of an IPv4-mapped address (RFC 4291 section 2.5.5.2).
const MAPPED: u32 = 0xffff_u32.to_be();
/// The words of a key that are the same in all rows.
const ADDRESS: u32 = 0x0a60_0001_u32.to_be();
const PORTS: u32 = 0x1f90_0050_u32.to_be();

/// Flows of one family, values as long as of flows.
#[btf_map]
static KEYS_16: LruHashMap<Key16, [u32; 8], 262144> = LruHashMap::new();
/// Flows of both families.
#[btf_map]
static KEYS_40: LruHashMap<Key40, [u32; 14], 262144> = LruHashMap::new();

#[classifier]
fn look_up_nothing(_context: TcContext) -> i32 {
    look_up(|_, row| row != u32::MAX)
}

#[classifier]
fn look_up_16(_context: TcContext) -> i32 {
    look_up(|state, row| {
        let key = [row, ADDRESS, PORTS, state.salt];
        // SAFETY: nobody writes while the benchmark measures.
        unsafe { KEYS_16.get(key) }.is_some_and(|value| value[0] == row)
    })
}

#[classifier]
fn look_up_40(_context: TcContext) -> i32 {
    look_up(|state, row| {
        let (src, dst) = ([0, 0, MAPPED, row], [0, 0, MAPPED, ADDRESS]);
        let key = [
            src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3], PORTS, state.salt,
        ];
        // SAFETY: as above.
        unsafe { KEYS_40.get(key) }.is_some_and(|value| value[0] == row)
    })
}

#[inline(always)]
fn look_up(is_hit: impl FnOnce(&State, u32) -> bool) -> i32 {
    let Some(state) = state() else {
        return FAILED;
    };
    let run = state.next();
    let row = state.pick(run);
    if is_hit(state, row) {
        state.hits += 1;
    }
    DONE
}
