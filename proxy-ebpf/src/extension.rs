//! The extension headers of IPv6.

use crate::network::{Network, Part, part};
use crate::packet::Packet;
use bytemuck::{Pod, Zeroable};
use proxy_common::AddrV6;

/// Fragment offset and more-fragments flag of a fragment header (RFC 8200 section 4.5).
const OFFSET_MASK_V6: u16 = 0xfff8;
const MORE_FRAGMENTS_V6: u16 = 0x0001;
/// Extension headers of IPv6 (RFC 8200 section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
/// How many of them are stepped over.
const EXTENSIONS: usize = 6;

/// The first eight bytes of an extension header; of a fragment header all.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Extension {
    next_header: u8,
    length: u8,
    /// Offset and flags of a fragment header; type of a routing header, and segments left.
    fragment: u16,
    id: u32,
}

/// Steps over the extension headers of a packet, if that can be done; its header's length is then that of
/// all of them.
///
/// In place: handed on by value, what was found would be copied byte by byte.
#[inline(always)]
pub(crate) fn step_over<P: Packet>(packet: &mut P, found: &mut Network<AddrV6>) -> bool {
    for _ in 0..EXTENSIONS {
        if is_at_end(found) {
            return true;
        }
        if !step(packet, found) {
            return false;
        }
    }
    is_at_end(found)
}

/// What follows the header of a later fragment is no header, whatever it is called.
#[inline(always)]
fn is_at_end(found: &Network<AddrV6>) -> bool {
    !is_extension(found.proto) || found.part == Part::Later
}

/// A function of its own to the verifier too: what it finds lies in memory then, and one step looks like
/// the other. See [`crate::unusual`].
#[inline(never)]
fn step<P: Packet>(packet: &mut P, found: &mut Network<AddrV6>) -> bool {
    let at = P::NETWORK + found.length();
    packet.make_readable(at + size_of::<Extension>());
    let Some(extension) = packet.load::<Extension>(at) else {
        return false;
    };
    let is_fragment = found.proto == FRAGMENT;
    // Not there yet: the transport checksum is over an address that is not in the network header.
    let is_under_way = found.proto == ROUTING && extension.fragment.to_ne_bytes()[1] != 0;
    if found.proto == AUTHENTICATION || is_under_way || (is_fragment && extension.length != 0) {
        return false;
    }
    if is_fragment {
        found.part = part(extension.fragment, OFFSET_MASK_V6, MORE_FRAGMENTS_V6);
        found.id = extension.id;
    }
    // In units of eight bytes, the first one not counted. A fragment header has a zero there.
    let length = (u16::from(extension.length) + 1) * 8;
    found.extend(length, extension.next_header);
    true
}

/// Whether a next header is one of those that come before the transport header.
#[inline(always)]
pub(crate) const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}
