//! The programs of the benchmarks.

mod choose;
mod copied;
mod crowd;
mod judge;
mod ladder;
mod look_up;
mod replay;
mod rewrite;
mod state;
mod yardstick;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// What the product's programs return for a packet that they let through.
const DONE: i32 = TC_ACT_UNSPEC;
/// Something did not go as planned; the benchmark stops.
const FAILED: i32 = TC_ACT_SHOT;

#[classifier]
fn empty(_context: TcContext) -> i32 {
    DONE
}
