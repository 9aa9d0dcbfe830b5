//! A frontend without backends refuses its clients: an ICMP error takes the packet's place and goes back.

use crate::checksum::{self, Delta};
use crate::family::Family;
use crate::kernel::Kernel;
use crate::network::{Ipv4Header, Ipv6Header};
use crate::packet::{Hooked, Redirect};
use crate::parse::{Headers, transport_length};
use crate::{DropReason, Fate, Verdict};
use bytemuck::{Pod, Zeroable};
use proxy_common::{Hook, Refusals};

/// Errors that a client gets in one step of time.
const LIMIT: u32 = 1024;
/// Bytes of the transport header that are quoted: ports, and a segment's number, without which a client
/// does not believe the error (RFC 5927).
const QUOTED: usize = 8;
/// The time to live of errors.
const TTL: u8 = 64;

/// RFC 792, RFC 4443 section 2.1.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Message {
    kind: u8,
    code: u8,
    checksum: u16,
    unused: u32,
}

/// What is kept of a packet: its network header, in words, and the first bytes behind it.
struct Quoted<const WORDS: usize> {
    network: [u32; WORDS],
    transport: [u32; QUOTED / 4],
}

/// What becomes of the first packet of a flow for which there is no backend.
///
/// A function of its own to the verifier too: the stack it needs is needed for this call only.
#[inline(never)]
pub fn refuse<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &mut P,
    kernel: &mut K,
    headers: &Headers<A>,
    hook: Hook,
) -> Fate {
    if !may_answer(packet, headers) || !take_turn(kernel, headers.tuple.src) {
        return Err(DropReason::NoBackend);
    }
    let end = P::NETWORK + A::HEADER + transport_length(headers.proto);
    A::refuse(packet, end)?;
    packet.redirect(Redirect::Back(hook))?;
    Ok(Verdict::Refused)
}

/// Whether an error may be sent about a packet (RFC 1122 section 3.2.2, RFC 4443 section 2.4), and can be:
/// behind options there is none.
#[inline(always)]
fn may_answer<A: Family, P: Hooked>(packet: &P, headers: &Headers<A>) -> bool {
    let is_plain = headers.transport() == Some(P::NETWORK + A::HEADER);
    is_plain && headers.tuple.src.is_one_host() && !is_for_many(packet)
}

/// Whether a frame is addressed to a group (IEEE 802).
#[inline(always)]
fn is_for_many<P: Hooked>(packet: &P) -> bool {
    let address: Option<[u8; 6]> = packet.load(0);
    P::NETWORK != 0 && address.is_some_and(|address| address[0] & 1 != 0)
}

/// Whether a client may be answered once more. Of what CPUs count at the same time some may be lost.
#[inline(always)]
fn take_turn<A: Family, K: Kernel<A>>(kernel: &mut K, client: A) -> bool {
    let now = kernel.now();
    let known = kernel.refusals(client).filter(|it| it.during == now);
    let count = known.map_or(0, |known| known.count);
    if count >= LIMIT {
        return false;
    }
    let refusals = Refusals {
        during: now,
        count: count + 1,
    };
    kernel.put_refusals(client, &refusals);
    true
}

/// Makes an IPv4 packet, whose transport header ends at `end`, a refusal of itself.
#[inline(always)]
pub(crate) fn ipv4<P: Hooked>(packet: &mut P, end: usize) -> Result<(), DropReason> {
    const HEADER: usize = size_of::<Ipv4Header>();
    const DONT_FRAGMENT: u16 = 0x4000;
    let quoted: Quoted<{ HEADER / 4 }> = quote(packet)?;
    let old: Ipv4Header = bytemuck::cast(quoted.network);
    let mut new = Ipv4Header {
        version_ihl: 0x45,
        tos: 0,
        total_length: (length(HEADER) as u16).to_be(),
        id: 0,
        fragment: DONT_FRAGMENT.to_be(),
        ttl: TTL,
        protocol: 1,
        checksum: 0,
        src: old.dst,
        dst: old.src,
    };
    let words: [u32; HEADER / 4] = bytemuck::cast(new);
    new.checksum = checksum::of(sum(Delta::default(), &words));
    packet.renew(end, P::NETWORK + length(HEADER))?;
    packet.store(P::NETWORK, new)?;
    write(packet, (3, 3), Delta::default(), &quoted)
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn ipv6<P: Hooked>(packet: &mut P, end: usize) -> Result<(), DropReason> {
    const HEADER: usize = size_of::<Ipv6Header>();
    const ICMP: u8 = 58;
    let quoted: Quoted<{ HEADER / 4 }> = quote(packet)?;
    let old: Ipv6Header = bytemuck::cast(quoted.network);
    let payload = (length(HEADER) - HEADER) as u16;
    let new = Ipv6Header {
        version_class_flow: 0x6000_0000_u32.to_be(),
        payload_length: payload.to_be(),
        next_header: ICMP,
        hop_limit: TTL,
        src: old.dst,
        dst: old.src,
    };
    let pseudo = sum(Delta::default(), &new.src.be());
    let pseudo = sum(pseudo, &new.dst.be());
    let pseudo = sum(
        pseudo,
        &[u32::from(payload).to_be(), u32::from(ICMP).to_be()],
    );
    packet.renew(end, P::NETWORK + length(HEADER))?;
    packet.store(P::NETWORK, new)?;
    write(packet, (1, 4), pseudo, &quoted)
}

/// Length of a refusal from its network header on.
const fn length(network: usize) -> usize {
    network + size_of::<Message>() + network + QUOTED
}

#[inline(always)]
fn quote<P: Hooked, const WORDS: usize>(packet: &P) -> Result<Quoted<WORDS>, DropReason>
where
    [u32; WORDS]: Pod,
{
    let read = || {
        Some(Quoted {
            network: packet.load(P::NETWORK)?,
            transport: packet.load(P::NETWORK + size_of::<[u32; WORDS]>())?,
        })
    };
    read().ok_or(DropReason::RewriteFailed)
}

/// Writes the message behind the network header.
#[inline(always)]
fn write<P: Hooked, const WORDS: usize>(
    packet: &mut P,
    (kind, code): (u8, u8),
    pseudo_header: Delta,
    quoted: &Quoted<WORDS>,
) -> Result<(), DropReason>
where
    [u32; WORDS]: Pod,
{
    let mut message = Message {
        kind,
        code,
        checksum: 0,
        unused: 0,
    };
    let words: [u32; size_of::<Message>() / 4] = bytemuck::cast(message);
    let all = sum(sum(pseudo_header, &words), &quoted.network);
    message.checksum = checksum::of(sum(all, &quoted.transport));
    let at = P::NETWORK + size_of::<[u32; WORDS]>();
    packet.store(at, message)?;
    let at = at + size_of::<Message>();
    packet.store(at, quoted.network)?;
    packet.store(at + size_of::<[u32; WORDS]>(), quoted.transport)
}

#[inline(always)]
fn sum<const WORDS: usize>(start: Delta, words: &[u32; WORDS]) -> Delta {
    words.iter().fold(start, |sum, word| sum.add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, run_hook, udp};
    use proxy_common::{FrontendKind, Proto, Ticks};

    #[test]
    fn a_client_is_refused_a_limited_number_of_times_in_a_step_of_time() {
        let frontend = "10.96.0.10:53";
        let mut world =
            World::default().service(Proto::Udp, frontend, FrontendKind::ClusterIp, &[]);
        let mut ask = |client: &str, now: u32| {
            world.now = Ticks::new(now);
            run_hook(&mut world, Hook::Ingress, &udp(client, frontend).build()).0
        };
        for port in 1..=1024 {
            let fate = ask(&format!("10.244.1.9:{port}"), 7);
            assert_eq!(fate, Ok(Verdict::Refused));
        }
        assert_eq!(ask("10.244.1.9:2000", 7), Err(DropReason::NoBackend));
        assert_eq!(ask("10.244.1.8:2000", 7), Ok(Verdict::Refused));
        assert_eq!(ask("10.244.1.9:2000", 8), Ok(Verdict::Refused));
    }
}
