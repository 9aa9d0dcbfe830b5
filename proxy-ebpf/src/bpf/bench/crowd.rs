//! A crowd of established flows: rows as the product makes them, without the packets.

use super::state::{State, state};
use super::{DONE, FAILED};
use crate::bpf::maps::Maps;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use bytemuck::Zeroable as _;
use proxy_common::{AddrV4, BackendRef, Flow, FlowRole, Port, Proto, Table, Tuple};
use proxy_ebpf::checksum::{Delta, negated};
use proxy_ebpf::kernel::{Kernel as _, Services};

/// The first client port, above those of `vary`.
const FIRST_PORT: u32 = 20_000;
/// Where all packets of the crowd go.
const BACKEND: u32 = 0x0af5_0001_u32.to_be();
const BACKEND_PORT: u16 = 8080;

/// One flow more in each run, until there are `spread`. They are numbered from 1 on.
#[classifier]
fn crowd_v4(context: TcContext) -> i32 {
    let Some(state) = state() else {
        return FAILED;
    };
    if state.hits < state.spread {
        let original = tuple(state, state.hits + 1);
        if open(&mut Maps::new(&context), &original).is_none() {
            return FAILED;
        }
    }
    state.hits += 1;
    DONE
}

/// The low part of the client's address: clients take turns.
#[inline(always)]
pub(super) fn client(number: u32) -> u32 {
    (number & 0x3fff).to_be()
}

/// Ports of the way there.
#[inline(always)]
pub(super) fn ports(saved: u32, number: u32) -> u32 {
    let client = FIRST_PORT + (number >> 14);
    ((u32::from_be(saved) & 0xffff) | client << 16).to_be()
}

#[inline(always)]
fn tuple(state: &State, number: u32) -> Tuple<AddrV4> {
    let src = AddrV4::from_be(state.saved[3] | client(number));
    let dst = AddrV4::from_be(state.saved[4]);
    let ports = u32::from_be(ports(state.saved[5], number));
    let (sport, dport) = (Port::new((ports >> 16) as u16), Port::new(ports as u16));
    Tuple::new(Proto::Tcp, (src, sport), (dst, dport))
}

/// The answer's row first, as everywhere.
#[inline(always)]
fn open(maps: &mut Maps, original: &Tuple<AddrV4>) -> Option<()> {
    let backend = (AddrV4::from_be(BACKEND), Port::new(BACKEND_PORT));
    let mut to = *original;
    (to.dst, to.dport) = backend;
    let addresses = Delta::default().replace(original.dst.be(), to.dst.be());
    let ports = Delta::default().replace(original.dport.be().into(), to.dport.be().into());
    let deltas = (addresses.folded(), ports.folded());
    let back = (negated(deltas.0), negated(deltas.1));
    let now = <Maps as Services<AddrV4>>::now(maps);
    let nobody = BackendRef::zeroed();
    let answer = Flow::new(FlowRole::UnDnat, &original.reversed(), back, nobody, now);
    maps.insert_flow(Table::Confirmed, &to.reversed(), &answer)
        .ok()?;
    let flow = Flow::new(FlowRole::Dnat, &to, deltas, nobody, now);
    maps.insert_flow(Table::Confirmed, original, &flow).ok()
}
