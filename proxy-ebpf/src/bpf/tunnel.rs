//! A packet that leaves a tunnel with the outer headers still before it.

use crate::bpf::skb::Skb;
use aya_ebpf::bindings::bpf_hdr_start_off::BPF_HDR_START_NET;
use aya_ebpf::bindings::{BPF_F_INGRESS, TC_ACT_REDIRECT};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_load_bytes_relative};
use proxy_ebpf::packet::{Hooked, Packet};

impl Skb<0, false> {
    /// Takes a packet in once more that still begins with the headers of its tunnel, as ipip hands them
    /// over before Linux 5.14: a redirection to the same device cuts them off. True if that is under way.
    #[inline(always)]
    pub(crate) fn is_taken_in_again(&self) -> bool {
        match (self.load::<u64>(0), self.network_header()) {
            (Some(first), Some(network)) if first != network => self.take_in_again(),
            _ => false,
        }
    }

    /// The first bytes of the network header, where the kernel says that it lies.
    #[inline(always)]
    fn network_header(&self) -> Option<u64> {
        let mut bytes = 0_u64;
        let to = (&raw mut bytes).cast();
        let length = size_of::<u64>() as u32;
        // SAFETY: valid context; the helper writes as many bytes as there are.
        let code = unsafe {
            bpf_skb_load_bytes_relative(self.skb.cast(), 0, to, length, BPF_HDR_START_NET)
        };
        (code == 0).then_some(bytes)
    }

    #[inline(always)]
    fn take_in_again(&self) -> bool {
        // SAFETY: the helper takes any numbers.
        let code = unsafe { bpf_redirect(self.device(), BPF_F_INGRESS.into()) };
        code == i64::from(TC_ACT_REDIRECT)
    }
}
