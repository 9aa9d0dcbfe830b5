//! What a packet lets us do.

use crate::kernel::Gateway;
use bytemuck::Pod;
use proxy_common::{DropReason, Hook, Mac};

/// How a delta enters a transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Addresses: part of the pseudo header, which even an unfinished sum (CHECKSUM_PARTIAL) holds.
    PseudoHeader,
    /// Ports: part of what the device still sums when the checksum is unfinished.
    Payload,
}

/// What a zero in a checksum field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// A sum like any other (TCP).
    Sum,
    /// "No checksum" (UDP, RFC 768): stays zero, and no sum may become it.
    NoChecksum,
}

/// A packet at a tc or XDP hook. Offsets are in bytes from its first byte.
pub trait Packet {
    /// Offset of the network header: the length of the link-layer header.
    const NETWORK: usize;

    /// The EtherType, in host order.
    fn ethertype(&self) -> u16;

    /// Makes the first `length` bytes readable by [`Packet::load`], or all if there are fewer.
    fn make_readable(&mut self, length: usize);

    /// The value at `offset`; `None` beyond the readable bytes.
    fn load<T: Pod>(&self, offset: usize) -> Option<T>;

    /// Overwrites bytes whose change the caller balances with a checksum inside the same header.
    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), DropReason>;

    /// Overwrites bytes that no header checksum covers (IPv6 addresses), so that a sum over the
    /// whole packet taken by the device (CHECKSUM_COMPLETE) stays right.
    fn store_uncovered<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), DropReason>;

    /// Adds `delta` to the transport checksum at `offset`.
    fn adjust_checksum(
        &mut self,
        offset: usize,
        delta: u32,
        part: Part,
        zero: Zero,
    ) -> Result<(), DropReason>;
}

/// Where a packet goes instead of on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Out by a device, to the next hop that the kernel finds there.
    Out {
        /// Its index.
        device: u32,
        /// Whether packets of the device begin with an IP header.
        is_bare: bool,
    },
    /// Out by a device, to this next hop.
    Next {
        /// Its index.
        device: u32,
        /// Who is next.
        gateway: Gateway,
    },
    /// In at the other end of a device, in another network namespace.
    Across {
        /// Its index.
        device: u32,
        /// Destination and source of the frame.
        macs: [Mac; 2],
    },
    /// Up the stack, as if it had come in by a device.
    Up {
        /// Its index.
        device: u32,
        /// Its own address; zero where packets have no Ethernet header.
        mac: Mac,
        /// Whether packets of the device begin with an IP header.
        is_bare: bool,
    },
    /// Back to who has sent it: from ingress out by the device, from egress up the stack.
    Back(Hook),
}

/// A packet at a hook of a device.
pub trait Hooked: Packet {
    /// Whether the device is a port of a bridge.
    const IS_PORT: bool;

    /// Index of the device.
    fn device(&self) -> u32;

    /// Whether its frame is addressed to the device.
    fn is_for_device(&self) -> bool;

    /// How long it is, in bytes from its first one on.
    fn length(&self) -> u32;

    /// How much payload each packet has that it is still to be cut into; 0: it is one.
    fn segment(&self) -> u32;

    /// The port of the socket of this node that has sent the packet; `None` if none has. 0: a socket
    /// without a port.
    fn sender(&self) -> Option<u16>;

    /// Makes the packet `length` bytes long and lets its link-layer header alone stay; the rest is to be
    /// written, and nothing is left of it for a device to sum (CHECKSUM_PARTIAL). `end` is where the transport
    /// header ends.
    fn renew(&mut self, end: usize, length: usize) -> Result<(), DropReason>;

    /// Sends the packet elsewhere once its program has let it through.
    fn redirect(&mut self, to: Redirect) -> Result<(), DropReason>;

    /// Whether it is sent elsewhere.
    fn is_redirected(&self) -> bool;

    /// Addresses its Ethernet frame to another device, if it has one.
    fn readdress(&mut self, to: Mac) -> Result<(), DropReason>;
}
