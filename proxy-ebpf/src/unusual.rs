//! Packets whose transport header is not where it usually is, or not there: fragments, and IPv6 behind
//! extension headers.

use crate::family::Family;
use crate::kernel::Kernel;
use crate::network::{Network, Part};
use crate::packet::Packet;
use crate::parse::{self, Headers, Ports, TCP_LENGTH, TcpFlags, transport_length};
use core::hint::black_box;
use proxy_common::{FragmentKey, FragmentPorts, Proto, Tuple, Verdict};

/// Finds the headers of such a packet. The ports of a datagram's first fragment are remembered for its
/// others; one that comes before it passes.
///
/// A function of its own to the verifier too: the stack it needs is needed for this call only. What it
/// finds must look to the verifier like what the usual way finds, or it would go through all that follows
/// once more: it lies in memory, in words of which the verifier keeps no bounds.
#[inline(never)]
pub fn read<A: Family, P: Packet, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &mut Headers<A>,
) -> Result<(), Verdict> {
    let mut found = A::network(packet, P::NETWORK).ok_or(Verdict::Malformed)?;
    if !A::step_over(packet, &mut found) {
        return Err(Verdict::ExtensionHeader);
    }
    let proto = match Proto::of_packet(found.proto) {
        Some(proto) => proto,
        None if found.part == Part::Later => return Err(Verdict::Fragment),
        None => return Err(parse::untranslated(found.proto)),
    };
    let [src, dst] = found.addresses;
    let key = FragmentKey::new(src, dst, found.id, proto);
    if found.part == Part::Later {
        let ports = kernel.fragment(&key).ok_or(Verdict::Fragment)?;
        let tuple = Tuple::new(proto, (src, ports.sport), (dst, ports.dport));
        *headers = Headers::of_later_fragment(tuple, proto, found.checksum);
        return Ok(());
    }
    let transport = P::NETWORK + found.length();
    let header = transport_header(packet, &found, proto)?;
    *headers = Headers::new(found.addresses, found.checksum, proto, transport, header);
    if found.part == Part::First {
        let ports = FragmentPorts {
            sport: headers.tuple.sport,
            dport: headers.tuple.dport,
        };
        kernel.put_fragment(&key, &ports);
    }
    Ok(())
}

/// The transport header; a first fragment may be too short for that.
#[inline(always)]
fn transport_header<A, P: Packet>(
    packet: &mut P,
    found: &Network<A>,
    proto: Proto,
) -> Result<(Ports, TcpFlags), Verdict> {
    let short = match found.part {
        Part::First | Part::Later => Verdict::Fragment,
        Part::Whole => Verdict::Malformed,
    };
    if found.total() < found.length() + transport_length(proto) {
        return Err(short);
    }
    // Where the packet lies is read anew: the compiler would carry it along in 32 bits, which the verifier
    // does not take for a pointer any more.
    let packet = black_box(packet);
    let transport = P::NETWORK + found.length();
    packet.make_readable(transport + TCP_LENGTH);
    let header = parse::transport_header(packet, transport, proto);
    header.map_err(|_| short)
}
