//! Decision: direct access to packets, or copies by helpers. The same parser and the same rewrite.

use super::copied::Copied;
use super::{DONE, FAILED};
use crate::bpf::maps::Maps;
use crate::bpf::skb::EthernetSkb;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use bytemuck::Zeroable as _;
use proxy_common::{AddrV4, BackendRef, Flow, FlowRole, Port, Ticks, Verdict};
use proxy_ebpf::nat::{self, Translation};
use proxy_ebpf::packet::Packet;
use proxy_ebpf::parse::{self, Place};

#[classifier]
fn rewrite_direct(context: TcContext) -> i32 {
    rewrite(&context, &mut EthernetSkb::new(&context))
}

#[classifier]
fn rewrite_copied(context: TcContext) -> i32 {
    rewrite(&context, &mut Copied::new(&context))
}

/// Gives the packet another destination; any will do, and so will any deltas.
#[inline(always)]
fn rewrite<P: Packet>(context: &TcContext, packet: &mut P) -> i32 {
    let mut place = Place::uninit();
    let Ok(headers) = parse::ipv4(packet, &mut place) else {
        return FAILED;
    };
    let backend = (AddrV4::from_be(0x0100_f40a), Port::new(8080));
    let mut to = headers.tuple;
    (to.dst, to.dport) = backend;
    let flow = Flow::new(
        FlowRole::Dnat,
        &to,
        (0x1234, 0x5678),
        BackendRef::zeroed(),
        Ticks::new(0),
    );
    match nat::apply(packet, headers, &Translation::known(&flow)) {
        Ok(()) => {
            Maps::new(context).count(Ok(Verdict::Established));
            DONE
        }
        Err(_) => FAILED,
    }
}
