//! A packet in memory.

use crate::DropReason;
use crate::checksum;
use crate::packet::{Hooked, Packet, Part, Redirect, Zero};
use bytemuck::Pod;
use proxy_common::Mac;

/// A packet in memory of which, as in a socket buffer, not all can be read at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPacket {
    pub(super) bytes: Vec<u8>,
    readable: usize,
    redirect: Option<Redirect>,
}

impl MemoryPacket {
    /// From the Ethernet header on, which alone is readable.
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            readable: bytes.len().min(Self::NETWORK),
            redirect: None,
        }
    }
}

impl Packet for MemoryPacket {
    const NETWORK: usize = 14;

    fn ethertype(&self) -> u16 {
        self.load::<u16>(12).map_or(0, u16::from_be)
    }

    fn make_readable(&mut self, length: usize) {
        self.readable = self.readable.max(length.min(self.bytes.len()));
    }

    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        let readable = &self.bytes[..self.readable];
        let bytes = readable.get(offset..offset + size_of::<T>())?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }

    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), DropReason> {
        if offset + size_of::<T>() > self.readable {
            return Err(DropReason::RewriteFailed);
        }
        self.store_uncovered(offset, value)
    }

    fn store_uncovered<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), DropReason> {
        let range = offset..offset + size_of::<T>();
        let bytes = self.bytes.get_mut(range).ok_or(DropReason::RewriteFailed)?;
        bytes.copy_from_slice(bytemuck::bytes_of(&value));
        Ok(())
    }

    fn adjust_checksum(
        &mut self,
        offset: usize,
        delta: u32,
        _part: Part,
        zero: Zero,
    ) -> Result<(), DropReason> {
        // The kernel's helper reads beyond the linear part.
        self.make_readable(offset + size_of::<u16>());
        let old: u16 = self.load(offset).ok_or(DropReason::RewriteFailed)?;
        if zero == Zero::NoChecksum && old == 0 {
            return Ok(());
        }
        let new = checksum::adjusted(old, delta);
        let new = if zero == Zero::NoChecksum && new == 0 {
            0xffff
        } else {
            new
        };
        self.store_uncovered(offset, new)
    }
}

/// Loopback, the first device of every network namespace; the kernel's test run is there too, and its
/// packets have a socket without a port.
const DEVICE: u32 = 1;

impl Hooked for MemoryPacket {
    const IS_PORT: bool = false;

    fn device(&self) -> u32 {
        DEVICE
    }

    fn is_for_device(&self) -> bool {
        self.load(0) == Some(Mac::default())
    }

    fn length(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn segment(&self) -> u32 {
        0
    }

    fn sender(&self) -> Option<u16> {
        Some(0)
    }

    fn renew(&mut self, _end: usize, length: usize) -> Result<(), DropReason> {
        self.bytes.truncate(Self::NETWORK);
        self.bytes.resize(length, 0);
        self.readable = length;
        Ok(())
    }

    fn redirect(&mut self, to: Redirect) -> Result<(), DropReason> {
        if matches!(to, Redirect::Back(_)) {
            let (destination, source) = self.bytes[..12].split_at_mut(6);
            destination.swap_with_slice(source);
        }
        self.redirect = Some(to);
        Ok(())
    }

    fn is_redirected(&self) -> bool {
        self.redirect.is_some()
    }

    fn readdress(&mut self, to: Mac) -> Result<(), DropReason> {
        self.store(0, to)
    }
}
