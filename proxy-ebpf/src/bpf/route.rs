//! What the kernel knows beside the maps: routes, sockets, the time.

use crate::bpf::maps::NEXT_HOP;
use aya_ebpf::Global;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_SRC,
    bpf_fib_lookup as Lookup, bpf_sock_tuple as SocketTuple,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_sk_lookup_udp, bpf_sk_release,
    bpf_skc_lookup_tcp,
};
use core::cell::Cell;
use core::hint::black_box;
use proxy_common::{AddrV4, AddrV6, Address, Mac, Proto, Ticks, Tuple};
use proxy_ebpf::kernel::{Hop, Journey, NextHop, Onward, Route, Way};
use proxy_ebpf::lane::Lane;

/// Whether the kernel tells source addresses; set by the agent before it loads the programs.
#[unsafe(no_mangle)]
static SOURCE_LOOKUP: Global<u8> = Global::new(0);
/// Whether it has a clock that is cheap to read; the same.
#[unsafe(no_mangle)]
static COARSE_CLOCK: Global<u8> = Global::new(0);

/// Memory of zeros, word by word: for a structure of zeros the compiler calls memset, which is a loop
/// over bytes.
struct Zeros<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Zeros<WORDS> {
    #[inline(always)]
    fn new() -> Self {
        // A number that the compiler does not know.
        let zero = black_box(0);
        Self([zero; WORDS])
    }

    #[inline(always)]
    fn words(&mut self) -> *mut u64 {
        self.0.as_mut_ptr()
    }
}

/// How the kernel's structures hold addresses of a family.
pub(crate) trait Routed: Address {
    /// AF_INET or AF_INET6.
    const FAMILY: u8;
    /// Bytes of a socket's addresses and ports.
    const SOCKET_TUPLE: u32;
    fn put(lookup: &mut Lookup, dst: &Self);
    fn put_source(lookup: &mut Lookup, src: &Self);
    fn source(lookup: &Lookup) -> Self;
    /// Puts the tuple of an answer into a key.
    fn put_answer(key: &mut SocketTuple, tuple: &Tuple<Self>);
}

/// Asks for the way of a packet that has come in by the device.
#[inline(always)]
pub(crate) fn ask<A: Routed>(
    skb: *mut __sk_buff,
    src: Option<&A>,
    dst: &A,
    device: u32,
) -> Route<A> {
    let mut zeros = Zeros::<{ size_of::<Lookup>() / 8 }>::new();
    // SAFETY: of the same size, and aligned better; any bits are valid integers.
    let lookup = unsafe { &mut *zeros.words().cast::<Lookup>() };
    lookup.family = A::FAMILY;
    lookup.ifindex = device;
    A::put(lookup, dst);
    if let Some(src) = src {
        A::put_source(lookup, src);
    }
    let tells_source = SOURCE_LOOKUP.load() != 0;
    let flags = if tells_source { BPF_FIB_LOOKUP_SRC } else { 0 };
    let size = size_of::<Lookup>() as i32;
    // SAFETY: valid context; `lookup` lives on our stack and has this size.
    let code = unsafe { bpf_fib_lookup(skb.cast(), lookup, size, flags) };
    Route {
        way: way(code),
        device: lookup.ifindex,
        src: A::source(lookup),
    }
}

/// A question for a next hop, and its answer: beside the stack, of which the whole question would take much.
#[repr(C)]
pub(super) struct Search {
    lookup: Lookup,
    found: NextHop,
    lane: Cell<Lane>,
}

/// Asks for the next hop of a packet.
#[inline(always)]
pub(crate) fn find_hop<A: Routed>(skb: *mut __sk_buff, journey: &Journey<A>) -> Hop {
    const NOWHERE: Hop = Hop {
        onward: Onward::No,
        device: 0,
    };
    const LONGEST: u32 = u16::MAX as u32;
    let Some(search) = NEXT_HOP.get_ptr_mut(0) else {
        return NOWHERE;
    };
    // SAFETY: non-null, aligned and of this size by the map's definition; any bits are valid integers. The row is
    // this CPU's own, and a tc program does not interrupt itself.
    let Search { lookup, found, .. } = unsafe { &mut *search };
    lookup.family = A::FAMILY;
    // One after the other: see `Zeros`.
    let zero = black_box(0);
    lookup.l4_protocol = zero as u8;
    lookup.sport = zero;
    lookup.dport = zero;
    lookup.__bindgen_anon_1.tot_len = journey.length.min(LONGEST) as u16;
    lookup.ifindex = journey.device;
    lookup.__bindgen_anon_2.flowinfo = 0;
    A::put(lookup, journey.dst);
    A::put_source(lookup, journey.src);
    let size = size_of::<Lookup>() as i32;
    // SAFETY: valid context; `lookup` has this size.
    let code = unsafe { bpf_fib_lookup(skb.cast(), lookup, size, 0) };
    found.device = lookup.ifindex;
    found.gateway.family = lookup.family.into();
    // SAFETY: any bits are valid integers.
    found.gateway.address = unsafe { lookup.__bindgen_anon_4.ipv6_dst };
    found.macs = [lookup.dmac, lookup.smac].map(Mac::new);
    let onward = onward(code);
    Hop {
        onward,
        // Without a way it is that of the question.
        device: match onward {
            Onward::Known | Onward::Unknown => lookup.ifindex,
            Onward::TooLong | Onward::No => 0,
        },
    }
}

/// What has been found.
#[inline(always)]
pub(crate) fn found_hop() -> Option<NextHop> {
    let search = NEXT_HOP.get_ptr(0)?;
    // SAFETY: as above.
    Some(unsafe { (*search).found })
}

/// Which way a packet takes.
#[inline(always)]
pub(crate) fn lane<'a>() -> Option<&'a Cell<Lane>> {
    let search = NEXT_HOP.get_ptr(0)?;
    // SAFETY: as above; zero is a lane, and nothing else is written than lanes.
    Some(unsafe { &(*search).lane })
}

#[inline(always)]
const fn onward(code: i64) -> Onward {
    const KNOWN: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
    const NO_NEIGHBOUR: i64 = BPF_FIB_LKUP_RET_NO_NEIGH as i64;
    const TOO_LONG: i64 = BPF_FIB_LKUP_RET_FRAG_NEEDED as i64;
    match code {
        KNOWN => Onward::Known,
        NO_NEIGHBOUR => Onward::Unknown,
        TOO_LONG => Onward::TooLong,
        _ => Onward::No,
    }
}

#[inline(always)]
const fn way(code: i64) -> Way {
    const OUT: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
    const NO_NEIGHBOUR: i64 = BPF_FIB_LKUP_RET_NO_NEIGH as i64;
    const TOO_LONG: i64 = BPF_FIB_LKUP_RET_FRAG_NEEDED as i64;
    const HERE: i64 = BPF_FIB_LKUP_RET_NOT_FWDED as i64;
    match code {
        OUT | NO_NEIGHBOUR | TOO_LONG => Way::Out,
        HERE => Way::Here,
        _ => Way::Nowhere,
    }
}

/// Looks for a socket that would get the answers to packets of this tuple.
#[inline(always)]
pub(crate) fn has_socket<A: Routed>(skb: *mut __sk_buff, tuple: &Tuple<A>) -> bool {
    let mut zeros = Zeros::<{ size_of::<SocketTuple>().div_ceil(8) }>::new();
    // SAFETY: not smaller, and aligned better; any bits are valid integers.
    let key = unsafe { &mut *zeros.words().cast::<SocketTuple>() };
    A::put_answer(key, tuple);
    let netns = BPF_F_CURRENT_NETNS as u64;
    let socket = if tuple.proto_number() == Proto::Tcp as u32 {
        // SAFETY: valid context; `key` lives on our stack and has this size.
        unsafe { bpf_skc_lookup_tcp(skb.cast(), key, A::SOCKET_TUPLE, netns, 0) }
    } else {
        // SAFETY: as above.
        unsafe { bpf_sk_lookup_udp(skb.cast(), key, A::SOCKET_TUPLE, netns, 0) }
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: non-null, and released once.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}

/// The time, as rows have it.
#[inline(always)]
pub(crate) fn now() -> Ticks {
    let nanoseconds = if COARSE_CLOCK.load() != 0 {
        // SAFETY: the helper has no arguments and no conditions.
        unsafe { bpf_ktime_get_coarse_ns() }
    } else {
        // SAFETY: as above.
        unsafe { bpf_ktime_get_ns() }
    };
    Ticks::of_nanoseconds(nanoseconds)
}

impl Routed for AddrV4 {
    const FAMILY: u8 = 2;
    const SOCKET_TUPLE: u32 = 12;

    #[inline(always)]
    fn put(lookup: &mut Lookup, dst: &Self) {
        lookup.__bindgen_anon_4.ipv4_dst = dst.be();
    }

    #[inline(always)]
    fn put_source(lookup: &mut Lookup, src: &Self) {
        lookup.__bindgen_anon_3.ipv4_src = src.be();
    }

    #[inline(always)]
    fn source(lookup: &Lookup) -> Self {
        // SAFETY: any bits are a valid integer.
        Self::from_be(unsafe { lookup.__bindgen_anon_3.ipv4_src })
    }

    #[inline(always)]
    fn put_answer(key: &mut SocketTuple, tuple: &Tuple<Self>) {
        key.__bindgen_anon_1.ipv4.saddr = tuple.dst.be();
        key.__bindgen_anon_1.ipv4.daddr = tuple.src.be();
        key.__bindgen_anon_1.ipv4.sport = tuple.dport.be();
        key.__bindgen_anon_1.ipv4.dport = tuple.sport.be();
    }
}

impl Routed for AddrV6 {
    const FAMILY: u8 = 10;
    const SOCKET_TUPLE: u32 = 36;

    #[inline(always)]
    fn put(lookup: &mut Lookup, dst: &Self) {
        lookup.__bindgen_anon_4.ipv6_dst = dst.be();
    }

    #[inline(always)]
    fn put_source(lookup: &mut Lookup, src: &Self) {
        lookup.__bindgen_anon_3.ipv6_src = src.be();
    }

    #[inline(always)]
    fn source(lookup: &Lookup) -> Self {
        // SAFETY: any bits are valid integers.
        Self::from_be(unsafe { lookup.__bindgen_anon_3.ipv6_src })
    }

    #[inline(always)]
    fn put_answer(key: &mut SocketTuple, tuple: &Tuple<Self>) {
        key.__bindgen_anon_1.ipv6.saddr = tuple.dst.be();
        key.__bindgen_anon_1.ipv6.daddr = tuple.src.be();
        key.__bindgen_anon_1.ipv6.sport = tuple.dport.be();
        key.__bindgen_anon_1.ipv6.dport = tuple.sport.be();
    }
}
