//! What the probing program answers: one bit for each thing that this kernel's helpers take.

/// `bpf_fib_lookup` takes BPF_FIB_LOOKUP_SRC (Linux 6.7 and back-ports).
pub const SOURCE_LOOKUP: i32 = 1;
/// `bpf_l4_csum_replace` takes BPF_F_IPV6 (Linux 6.16 and back-ports).
pub const CHECKSUM_IPV6: i32 = 1 << 1;
