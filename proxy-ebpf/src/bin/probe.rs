//! The object that `datapath/features.rs` of proxy-user asks what the kernel's helpers take. It has no
//! maps, and is attached nowhere.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::needless_pass_by_value,
        reason = "entry points are called by the macro"
    )
)]

#[cfg(target_arch = "bpf")]
#[path = "../bpf/object.rs"]
mod object;

#[cfg(target_arch = "bpf")]
#[path = "../bpf/probe.rs"]
mod probe;

/// On the host the object is nothing: the agent loads and runs it.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
