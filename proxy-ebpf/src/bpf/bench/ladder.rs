//! An established packet at ingress, step by step: each program goes one step further than the one before.

use super::{DONE, FAILED};
use crate::bpf::maps::Maps;
use crate::bpf::skb::EthernetSkb;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use core::hint::black_box;
use proxy_common::{AddrV4, Flow, Hook, Table, Ticks, Verdict};
use proxy_ebpf::checksum;
use proxy_ebpf::family::Family as _;
use proxy_ebpf::flow;
use proxy_ebpf::kernel::{Kernel as _, Services};
use proxy_ebpf::packet::{Hooked as _, Packet as _, Part, Redirect, Zero};
use proxy_ebpf::parse::{self, Headers, Place};

/// EtherType of IPv4 (IEEE 802 numbers).
const IPV4: u16 = 0x0800;
/// Offset of the checksum in a TCP header (RFC 9293 section 3.1).
const TCP_CHECKSUM: usize = 16;

/// How far a program goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Parse,
    Filter,
    LookUp,
    Time,
    Rewrite,
    AddressSum,
    PortSum,
    Counter,
    Redirect,
}

macro_rules! steps {
    ($($program:ident: $step:ident,)*) => {
        $(
            #[classifier]
            fn $program(context: TcContext) -> i32 {
                climb(&context, Step::$step)
            }
        )*
    };
}

steps! {
    step_parse: Parse,
    step_filter: Filter,
    step_look_up: LookUp,
    step_time: Time,
    step_rewrite: Rewrite,
    step_address_sum: AddressSum,
    step_port_sum: PortSum,
    step_counter: Counter,
    step_redirect: Redirect,
}

/// What the product does to an established packet, in its order, until `last`.
#[inline(always)]
fn climb(context: &TcContext, last: Step) -> i32 {
    let mut packet = EthernetSkb::new(context);
    let mut maps = Maps::new(context);
    let mut place = Place::uninit();
    if packet.ethertype() != IPV4 {
        return FAILED;
    }
    let Ok(headers) = parse::ipv4(&mut packet, &mut place) else {
        return FAILED;
    };
    let headers: &Headers<AddrV4> = black_box(&*headers);
    if last == Step::Parse {
        return DONE;
    }
    if !maps.may_have_flow(Hook::Ingress, &headers.tuple) {
        return FAILED;
    }
    if last == Step::Filter {
        return DONE;
    }
    let Some(flow) = maps.flow(Table::Confirmed, &headers.tuple) else {
        return FAILED;
    };
    if last == Step::LookUp {
        return DONE;
    }
    let is_news = flow::is_news(flow, headers.flags, now(&maps));
    if last > Step::Time && translate(&mut packet, headers, flow, last).is_none() {
        return FAILED;
    }
    if is_news {
        flow::note(&mut maps, Table::Confirmed, headers);
    }
    if last >= Step::Counter {
        maps.count(Ok(Verdict::Established));
    }
    if last == Step::Redirect {
        return redirect(&mut packet);
    }
    DONE
}

#[inline(always)]
fn now(maps: &Maps) -> Ticks {
    <Maps as Services<AddrV4>>::now(maps)
}

/// As `nat::apply`.
#[inline(always)]
fn translate(
    packet: &mut EthernetSkb,
    headers: &Headers<AddrV4>,
    flow: &Flow<AddrV4>,
    last: Step,
) -> Option<()> {
    let (address_delta, port_delta) = (flow.address_delta, flow.port_delta);
    let transport = headers.transport()?;
    packet.store(transport, [flow.sport, flow.dport]).ok()?;
    let addresses = [flow.src, flow.dst];
    AddrV4::store_addresses(packet, headers, addresses, address_delta).ok()?;
    let (field, zero) = (transport + TCP_CHECKSUM, Zero::Sum);
    if last >= Step::AddressSum {
        let part = Part::PseudoHeader;
        packet
            .adjust_checksum(field, address_delta, part, zero)
            .ok()?;
    }
    if last >= Step::PortSum && checksum::is_change(port_delta) {
        packet
            .adjust_checksum(field, port_delta, Part::Payload, zero)
            .ok()?;
    }
    Some(())
}

/// Only the note that the packet is to go elsewhere: a run of a test sends nothing.
#[inline(always)]
fn redirect(packet: &mut EthernetSkb) -> i32 {
    let to = Redirect::Out {
        device: packet.device(),
        is_bare: true,
    };
    match packet.redirect(to) {
        Ok(()) => DONE,
        Err(_) => FAILED,
    }
}
