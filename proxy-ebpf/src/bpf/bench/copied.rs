//! A packet at tc whose bytes are copied in and out by the kernel's helpers.

use crate::bpf::skb::EthernetSkb;
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use bytemuck::Pod;
use core::mem::MaybeUninit;
use proxy_ebpf::DropReason;
use proxy_ebpf::packet::{Packet, Part, Zero};

/// As [`EthernetSkb`], but without direct access.
pub(super) struct Copied {
    skb: *mut __sk_buff,
    direct: EthernetSkb,
}

impl Copied {
    #[inline(always)]
    pub(super) fn new(context: &TcContext) -> Self {
        Self {
            skb: context.as_ptr().cast(),
            direct: EthernetSkb::new(context),
        }
    }
}

impl Packet for Copied {
    const NETWORK: usize = EthernetSkb::NETWORK;

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        self.direct.ethertype()
    }

    /// The helpers read what is not linear, too.
    #[inline(always)]
    fn make_readable(&mut self, _length: usize) {}

    #[inline(always)]
    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let to = value.as_mut_ptr().cast();
        // SAFETY: valid context; `value` has this size.
        let code = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), offset as u32, to, size_of::<T>() as u32)
        };
        // SAFETY: the helper has written all of it, or says that it has not.
        (code == 0).then(|| unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), DropReason> {
        let from = (&raw const value).cast();
        // SAFETY: valid context; `value` has this size.
        let code =
            unsafe { bpf_skb_store_bytes(self.skb, offset as u32, from, size_of::<T>() as u32, 0) };
        if code == 0 {
            Ok(())
        } else {
            Err(DropReason::RewriteFailed)
        }
    }

    #[inline(always)]
    fn store_uncovered<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), DropReason> {
        self.direct.store_uncovered(offset, value)
    }

    #[inline(always)]
    fn adjust_checksum(
        &mut self,
        offset: usize,
        delta: u32,
        part: Part,
        zero: Zero,
    ) -> Result<(), DropReason> {
        self.direct.adjust_checksum(offset, delta, part, zero)
    }
}
