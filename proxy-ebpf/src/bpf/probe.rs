//! What this kernel's helpers take, found out by calling them.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_F_PSEUDO_HDR, BPF_FIB_LOOKUP_SRC, bpf_fib_lookup as Lookup};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_l4_csum_replace};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use proxy_common::probe::{CHECKSUM_IPV6, SOURCE_LOOKUP};

/// Flags that a helper does not know.
const EINVAL: i64 = -22;
/// From Linux 6.16 on, and back-ported; newer than the bindings.
const BPF_F_IPV6: u64 = 1 << 7;
/// AF_INET.
const IPV4: u8 = 2;
/// Where a TCP header of a packet without options has its checksum.
const CHECKSUM: u32 = 14 + 20 + 16;

/// Returns one bit for each thing that works.
#[classifier]
fn ferrule_probe(context: TcContext) -> i32 {
    let mut found = 0;
    if source_lookup(&context) != EINVAL {
        found |= SOURCE_LOOKUP;
    }
    if checksum_ipv6(&context) != EINVAL {
        found |= CHECKSUM_IPV6;
    }
    found
}

/// Asks for a route to nowhere: it need not be found.
#[inline(always)]
fn source_lookup(context: &TcContext) -> i64 {
    // SAFETY: integers and unions of integers, for which all zero is valid.
    let mut lookup: Lookup = unsafe { core::mem::zeroed() };
    lookup.family = IPV4;
    // Loopback is the first device of every network namespace.
    lookup.ifindex = 1;
    let size = size_of::<Lookup>() as i32;
    // SAFETY: valid context; `lookup` lives on our stack and has this size.
    unsafe { bpf_fib_lookup(context.as_ptr(), &mut lookup, size, BPF_FIB_LOOKUP_SRC) }
}

/// Changes a checksum by nothing.
#[inline(always)]
fn checksum_ipv6(context: &TcContext) -> i64 {
    let flags = u64::from(BPF_F_PSEUDO_HDR) | BPF_F_IPV6;
    // SAFETY: valid context; the helper checks the offset.
    unsafe { bpf_l4_csum_replace(context.skb.skb, CHECKSUM, 0, 0, flags) }
}
