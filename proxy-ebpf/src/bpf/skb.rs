//! A packet at tc: direct access to what lies in the linear part of a socket buffer.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::generated::{bpf_l4_csum_replace, bpf_skb_pull_data, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use bytemuck::Pod;
use proxy_common::DropReason;
use proxy_ebpf::packet::{Hooked, Packet, Part, Zero};

/// Length of an Ethernet header without tags; VLAN tags are kept beside the packet by the kernel.
pub(crate) const ETHERNET: usize = 14;

/// EtherType of a tagged frame (IEEE 802.1Q): the business of the VLAN's own device.
const VLAN: u16 = 0x8100;

/// The number of a VLAN in its tag.
const VLAN_ID: u32 = 0xfff;

/// A socket buffer whose network header lies at a known offset.
pub(crate) struct Skb<const NETWORK: usize, const IS_PORT: bool> {
    pub(crate) skb: *mut __sk_buff,
    pub(super) is_redirected: bool,
}

/// One that starts with an Ethernet header.
pub(crate) type EthernetSkb = Skb<ETHERNET, false>;

impl<const NETWORK: usize, const IS_PORT: bool> Skb<NETWORK, IS_PORT> {
    /// Of the context that a tc program is called with.
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self {
            skb: context.skb.skb,
            is_redirected: false,
        }
    }

    #[inline(always)]
    fn linear(&self) -> (usize, usize) {
        // SAFETY: the kernel hands every tc program a valid context.
        let skb = unsafe { &*self.skb };
        (skb.data as usize, skb.data_end as usize)
    }

    /// Where a `T` at `offset` lies, if it lies wholly in the linear part.
    #[inline(always)]
    fn locate<T>(&self, offset: usize) -> Option<*mut T> {
        let (data, end) = self.linear();
        let start = data + offset;
        (start + size_of::<T>() <= end).then_some(start as *mut T)
    }
}

impl<const NETWORK: usize, const IS_PORT: bool> Packet for Skb<NETWORK, IS_PORT> {
    const NETWORK: usize = NETWORK;

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        // SAFETY: the kernel hands every tc program a valid context.
        let skb = unsafe { &*self.skb };
        // Of VLAN 0, which is only a priority, there is no device.
        if skb.vlan_present != 0 && skb.vlan_tci & VLAN_ID != 0 {
            return VLAN;
        }
        u16::from_be(skb.protocol as u16)
    }

    #[inline(always)]
    fn make_readable(&mut self, length: usize) {
        let (data, end) = self.linear();
        let whole = Hooked::length(self) as usize;
        let wanted = if length < whole { length } else { whole };
        if data + wanted > end {
            // SAFETY: valid context. A failure leaves the packet as it is: `load` finds nothing.
            unsafe { bpf_skb_pull_data(self.skb, wanted as u32) };
        }
    }

    #[inline(always)]
    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        // SAFETY: bounds were checked. The address may be unaligned for T: the BPF target turns
        // this into loads of T's fields, which the kernel allows to be unaligned in packets
        // wherever the machine does (all that Ferrule is built for), and refuses at load elsewhere.
        self.locate::<T>(offset).map(|at| unsafe { at.read() })
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), DropReason> {
        let at = self.locate::<T>(offset).ok_or(DropReason::RewriteFailed)?;
        // SAFETY: as for `load`; the kernel unshares a cloned packet before a program that writes.
        unsafe { at.write(value) };
        Ok(())
    }

    #[inline(always)]
    fn store_uncovered<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), DropReason> {
        // Recompute: keeps a CHECKSUM_COMPLETE sum right. bpf_l4_csum_replace takes the pseudo
        // header's change off that sum as if an IPv4 header checksum had balanced it (before
        // BPF_F_IPV6, Linux 6.16), and this adds it again.
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        let from = (&raw const value).cast();
        // SAFETY: valid context; `value` lives on our stack and has this size.
        let code = unsafe {
            bpf_skb_store_bytes(self.skb, offset as u32, from, size_of::<T>() as u32, flags)
        };
        succeeded(code)
    }

    #[inline(always)]
    fn adjust_checksum(
        &mut self,
        offset: usize,
        delta: u32,
        part: Part,
        zero: Zero,
    ) -> Result<(), DropReason> {
        let part = match part {
            Part::PseudoHeader => BPF_F_PSEUDO_HDR,
            Part::Payload => 0,
        };
        let zero = match zero {
            Zero::Sum => 0,
            Zero::NoChecksum => BPF_F_MARK_MANGLED_0,
        };
        // Size 0 in the flags: `to` is a difference.
        let flags = u64::from(part | zero);
        // SAFETY: valid context; the helper checks the offset.
        let code =
            unsafe { bpf_l4_csum_replace(self.skb, offset as u32, 0, u64::from(delta), flags) };
        succeeded(code)
    }
}

#[inline(always)]
pub(super) const fn succeeded(code: i64) -> Result<(), DropReason> {
    if code == 0 {
        Ok(())
    } else {
        Err(DropReason::RewriteFailed)
    }
}
