//! A packet at tc that goes elsewhere than where it was on its way to.

use super::skb::{ETHERNET, Skb, succeeded};
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_NET;
use aya_ebpf::bindings::{BPF_F_INGRESS, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_head,
    bpf_skb_change_tail,
};
use core::ptr::null_mut;
use proxy_common::{DropReason, Hook, Mac};
use proxy_ebpf::kernel::Gateway;
use proxy_ebpf::packet::{Hooked, Packet, Redirect};

/// What bpf_redirect returns when it has taken note (TC_ACT_REDIRECT).
const TAKEN: i64 = 7;
/// Offset of the source in an Ethernet header.
const SOURCE: usize = size_of::<Mac>();
/// Offset of the EtherType.
const ETHERTYPE: usize = 2 * size_of::<Mac>();

impl<const NETWORK: usize, const IS_PORT: bool> Hooked for Skb<NETWORK, IS_PORT> {
    const IS_PORT: bool = IS_PORT;

    #[inline(always)]
    fn device(&self) -> u32 {
        // SAFETY: the kernel hands every tc program a valid context.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn is_for_device(&self) -> bool {
        const PACKET_HOST: u32 = 0;
        // SAFETY: as above.
        unsafe { (*self.skb).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).gso_size }
    }

    #[inline(always)]
    fn sender(&self) -> Option<u16> {
        // SAFETY: as above.
        let skb = unsafe { &*self.skb };
        // SAFETY: this is what the union holds.
        let socket: *mut bpf_sock = unsafe { skb.__bindgen_anon_2.sk };
        if socket.is_null() {
            return None;
        }
        // SAFETY: non-null, and the packet holds the socket. The field is in host order.
        Some(unsafe { (*socket).src_port } as u16)
    }

    /// Cut first, so that the packet always grows again: its sum is not kept then (CHECKSUM_COMPLETE). More
    /// than up to the transport header is taken out behind the network header: no sum begins there any
    /// more.
    #[inline(always)]
    fn renew(&mut self, end: usize, length: usize) -> Result<(), DropReason> {
        const EXCESS: usize = 64;
        for length in [end, length + EXCESS] {
            // SAFETY: valid context; the helper checks the length.
            succeeded(unsafe { bpf_skb_change_tail(self.skb, length as u32, 0) })?;
        }
        let excess = -(EXCESS as i32);
        // SAFETY: as above.
        succeeded(unsafe { bpf_skb_adjust_room(self.skb, excess, BPF_ADJ_ROOM_NET, 0) })
    }

    #[inline(always)]
    fn redirect(&mut self, to: Redirect) -> Result<(), DropReason> {
        let code = match to {
            Redirect::Out { device, is_bare } => {
                if is_bare {
                    redirect(device, 0)
                } else {
                    self.dress()?;
                    // SAFETY: without parameters the kernel finds the next hop by the packet.
                    unsafe { bpf_redirect_neigh(device, null_mut(), 0, 0) }
                }
            }
            Redirect::Next {
                device,
                mut gateway,
            } => {
                self.dress()?;
                let next = (&raw mut gateway).cast();
                let size = size_of::<Gateway>() as i32;
                // SAFETY: `gateway` lies on our stack, has this size and the layout of bpf_redir_neigh.
                unsafe { bpf_redirect_neigh(device, next, size, 0) }
            }
            Redirect::Across { device, macs } => {
                self.dress()?;
                self.store(0, macs)?;
                // SAFETY: the helper takes any numbers.
                unsafe { bpf_redirect_peer(device, 0) }
            }
            Redirect::Up {
                device,
                mac,
                is_bare,
            } => {
                if !is_bare {
                    self.dress()?;
                    self.store(0, mac)?;
                }
                redirect(device, BPF_F_INGRESS.into())
            }
            Redirect::Back(hook) => {
                self.swap()?;
                let flags = match hook {
                    Hook::Ingress => 0,
                    Hook::Egress => BPF_F_INGRESS.into(),
                };
                redirect(self.device(), flags)
            }
        };
        self.is_redirected = code == TAKEN;
        succeeded(code - TAKEN)
    }

    #[inline(always)]
    fn is_redirected(&self) -> bool {
        self.is_redirected
    }

    #[inline(always)]
    fn readdress(&mut self, to: Mac) -> Result<(), DropReason> {
        match NETWORK {
            ETHERNET => self.store(0, to),
            _ => Ok(()),
        }
    }
}

impl<const NETWORK: usize, const IS_PORT: bool> Skb<NETWORK, IS_PORT> {
    /// Gives a packet that begins with an IP header an Ethernet header.
    #[inline(always)]
    fn dress(&mut self) -> Result<(), DropReason> {
        if NETWORK == ETHERNET {
            return Ok(());
        }
        let ethertype = self.ethertype().to_be();
        // SAFETY: valid context.
        succeeded(unsafe { bpf_skb_change_head(self.skb, ETHERNET as u32, 0) })?;
        self.store(ETHERTYPE, ethertype)
    }

    /// Exchanges source and destination of the Ethernet header, if there is one.
    #[inline(always)]
    fn swap(&mut self) -> Result<(), DropReason> {
        if NETWORK != ETHERNET {
            return Ok(());
        }
        let destination: Mac = self.load(0).ok_or(DropReason::RewriteFailed)?;
        let source: Mac = self.load(SOURCE).ok_or(DropReason::RewriteFailed)?;
        self.store(0, source)?;
        self.store(SOURCE, destination)
    }
}

#[inline(always)]
fn redirect(device: u32, flags: u64) -> i64 {
    // SAFETY: the helper takes any numbers.
    unsafe { bpf_redirect(device, flags) }
}
