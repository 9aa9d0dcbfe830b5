//! A packet gets its headers back, then goes to the program under test.

use super::state::{State, state};
use super::{FAILED, crowd};
use crate::bpf::skb::EthernetSkb;
use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use bytemuck::Pod;
use proxy_ebpf::packet::Packet;

/// Words of an IPv4 header without options and of a TCP header.
type V4 = [u32; 10];
/// Words of an IPv6 header and of a TCP header.
type V6 = [u32; 15];

/// The program under test.
#[btf_map]
static UNDER_TEST: ProgramArray<1> = ProgramArray::new();

#[classifier]
fn replay_v4(context: TcContext) -> i32 {
    restore::<V4>(&context, |state| words(&state.saved))
}

#[classifier]
fn replay_v6(context: TcContext) -> i32 {
    restore::<V6>(&context, |state| words(&state.saved))
}

#[classifier]
fn vary_v4(context: TcContext) -> i32 {
    restore::<V4>(&context, |state| {
        let run = state.next();
        let mut headers: V4 = words(&state.saved);
        headers[3] |= client(run);
        headers[4] = offset(headers[4], state.pick(run));
        headers[5] = ports(headers[5], run);
        headers
    })
}

/// A packet of one of the crowd's flows, as many as `spread`.
#[classifier]
fn recur_v4(context: TcContext) -> i32 {
    restore::<V4>(&context, |state| {
        let run = state.next();
        let number = 1 + state.pick(run);
        let mut headers: V4 = words(&state.saved);
        headers[3] |= crowd::client(number);
        headers[5] = crowd::ports(headers[5], number);
        headers
    })
}

#[classifier]
fn vary_v6(context: TcContext) -> i32 {
    restore::<V6>(&context, |state| {
        let run = state.next();
        let mut headers: V6 = words(&state.saved);
        headers[5] |= client(run);
        headers[9] = offset(headers[9], state.pick(run));
        headers[10] = ports(headers[10], run);
        headers
    })
}

#[inline(always)]
fn restore<T: Pod>(context: &TcContext, headers: impl FnOnce(&mut State) -> T) -> i32 {
    let Some(state) = state() else {
        return FAILED;
    };
    let headers = headers(state);
    if EthernetSkb::new(context)
        .store(EthernetSkb::NETWORK, headers)
        .is_err()
    {
        return FAILED;
    }
    // SAFETY: nothing here has to be dropped.
    unsafe { UNDER_TEST.tail_call(context, 0) };
    FAILED
}

#[inline(always)]
fn words<const N: usize>(saved: &[u32; 15]) -> [u32; N] {
    core::array::from_fn(|index| saved[index])
}

/// The low part of the last word of the client's address: 14 bits of the run's number.
#[inline(always)]
fn client(run: u32) -> u32 {
    ((run >> 14) & 0x3fff).to_be()
}

/// The client's port: the other 14 bits, above the well-known ports.
#[inline(always)]
fn ports(saved: u32, run: u32) -> u32 {
    let client = 1024 + (run & 0x3fff);
    ((u32::from_be(saved) & 0xffff) | client << 16).to_be()
}

#[inline(always)]
fn offset(address: u32, by: u32) -> u32 {
    u32::from_be(address).wrapping_add(by).to_be()
}
