//! The object of benchmarks and of the conformance ring: what the datapath is compared with, what replays a
//! packet, and the decision about one by itself.
//!
//! BPF_PROG_TEST_RUN runs a program again and again on one packet, as the run before has left it. The
//! `replay` programs give the packet its headers back and jump to the program under test; the `vary`
//! programs also make it another client's, and `recur` that of one of the flows that `crowd` has made. The
//! rest is what is compared: `yardstick` does what every translation must and nothing else, each `step` goes
//! one further than the one before, `rewrite`, `look_up` and `choose` are both sides of decisions that
//! docs/performance.md explains.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::needless_pass_by_value,
        reason = "entry points are called by the macro"
    )
)]

#[cfg(target_arch = "bpf")]
#[path = "../bpf/mod.rs"]
mod bpf;

#[cfg(target_arch = "bpf")]
#[path = "../bpf/bench/mod.rs"]
mod bench;

/// On the host the object is nothing: `benches/packet.rs` of proxy-user loads and measures it.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
