//! The BPF object: one entry point per hook, and what an outcome means there.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// The kernel's functions have no helpers' numbers.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::needless_pass_by_value,
        reason = "entry points are called by the macro"
    )
)]

#[cfg(target_arch = "bpf")]
#[macro_use]
mod bpf;

#[cfg(target_arch = "bpf")]
#[path = "bpf/tunnel.rs"]
mod tunnel;

#[cfg(target_arch = "bpf")]
#[path = "bpf/sockets.rs"]
mod sockets;

#[cfg(target_arch = "bpf")]
#[path = "bpf/errno.rs"]
mod errno;

#[cfg(target_arch = "bpf")]
#[path = "bpf/iterators.rs"]
mod iterators;

#[cfg(target_arch = "bpf")]
mod hooks {
    use crate::bpf::maps::Maps;
    use crate::bpf::skb::{ETHERNET, EthernetSkb, Skb};
    use crate::errno::{Errno, fail_with};
    use crate::sockets::{Bound, Caller, SocketMaps};
    use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC};
    use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, classifier};
    use aya_ebpf::programs::{SockAddrContext, SockContext, TcContext};
    use proxy_common::SocketCall;
    use proxy_ebpf::packet::Hooked;
    use proxy_ebpf::socket::Socket;
    use proxy_ebpf::{Fate, expiry, pipeline, socket};

    /// At a port of a bridge.
    type PortSkb = Skb<ETHERNET, true>;
    /// Of a device whose packets begin with an IP header.
    type BareSkb = Skb<0, false>;

    #[classifier]
    fn ferrule_ingress(context: TcContext) -> i32 {
        ingress(&context, &mut EthernetSkb::new(&context))
    }

    #[classifier]
    fn ferrule_egress(context: TcContext) -> i32 {
        egress(&context, &mut EthernetSkb::new(&context))
    }

    /// For ports of a bridge. What leaves by them needs nothing else than elsewhere.
    #[classifier]
    fn ferrule_ingr_br(context: TcContext) -> i32 {
        ingress(&context, &mut PortSkb::new(&context))
    }

    /// For devices whose packets begin with an IP header (tunnels).
    #[classifier]
    fn ferrule_ingr_l3(context: TcContext) -> i32 {
        let mut packet = BareSkb::new(&context);
        if packet.is_taken_in_again() {
            return TC_ACT_REDIRECT;
        }
        ingress(&context, &mut packet)
    }

    #[classifier]
    fn ferrule_egr_l3(context: TcContext) -> i32 {
        egress(&context, &mut BareSkb::new(&context))
    }

    /// Attached nowhere: the agent runs it, on a list of flows that nobody uses any more. Returns how many
    /// of them are gone.
    #[classifier]
    fn ferrule_expire(context: TcContext) -> i32 {
        let mut maps = Maps::new(&context);
        expiry::remove_unused(&mut EthernetSkb::new(&context), &mut maps) as i32
    }

    #[cgroup_sock_addr(connect4)]
    fn ferrule_conn4(context: SockAddrContext) -> i32 {
        connect(&mut Caller::<false>::new(&context))
    }

    #[cgroup_sock_addr(connect6)]
    fn ferrule_conn6(context: SockAddrContext) -> i32 {
        connect(&mut Caller::<true>::new(&context))
    }

    #[cgroup_sock_addr(sendmsg4)]
    fn ferrule_send4(context: SockAddrContext) -> i32 {
        send(&mut Caller::<false>::new(&context))
    }

    #[cgroup_sock_addr(sendmsg6)]
    fn ferrule_send6(context: SockAddrContext) -> i32 {
        send(&mut Caller::<true>::new(&context))
    }

    #[cgroup_sock_addr(recvmsg4)]
    fn ferrule_recv4(context: SockAddrContext) -> i32 {
        socket::receive(&mut Caller::<false>::new(&context));
        ALLOWED
    }

    #[cgroup_sock_addr(recvmsg6)]
    fn ferrule_recv6(context: SockAddrContext) -> i32 {
        socket::receive(&mut Caller::<true>::new(&context));
        ALLOWED
    }

    #[cgroup_sock_addr(getpeername4)]
    fn ferrule_peer4(context: SockAddrContext) -> i32 {
        socket::name_peer(&mut Caller::<false>::new(&context));
        ALLOWED
    }

    #[cgroup_sock_addr(getpeername6)]
    fn ferrule_peer6(context: SockAddrContext) -> i32 {
        socket::name_peer(&mut Caller::<true>::new(&context));
        ALLOWED
    }

    #[cgroup_sock(post_bind4)]
    fn ferrule_bind4(context: SockContext) -> i32 {
        bind(Bound::<false>::new(&context).is_allowed())
    }

    #[cgroup_sock(post_bind6)]
    fn ferrule_bind6(context: SockContext) -> i32 {
        bind(Bound::<true>::new(&context).is_allowed())
    }

    /// A hook of cgroups lets the call go on.
    const ALLOWED: i32 = 1;
    /// It ends the call, with EPERM if nothing else has been set.
    const REFUSED: i32 = 0;

    #[inline(always)]
    fn connect(socket: &mut impl Socket) -> i32 {
        end(socket::connect(socket, &SocketMaps))
    }

    #[inline(always)]
    fn send(socket: &mut impl Socket) -> i32 {
        end(socket::send(socket, &SocketMaps))
    }

    #[inline(always)]
    fn bind(is_allowed: bool) -> i32 {
        if is_allowed {
            return ALLOWED;
        }
        fail_with(Errno::AddressInUse);
        REFUSED
    }

    /// Where the kernel does not let us choose the error, the devices answer.
    #[inline(always)]
    fn end(call: Option<SocketCall>) -> i32 {
        let Some(call) = call else {
            return ALLOWED;
        };
        SocketMaps::count(call);
        match call {
            SocketCall::Refused if fail_with(Errno::ConnectionRefused) => REFUSED,
            SocketCall::Connected | SocketCall::Sent | SocketCall::Refused | SocketCall::Left => {
                ALLOWED
            }
        }
    }

    #[inline(always)]
    fn ingress(context: &TcContext, packet: &mut impl Hooked) -> i32 {
        let mut maps = Maps::new(context);
        let fate = pipeline::ingress(packet, &mut maps);
        action(&maps, packet, fate)
    }

    #[inline(always)]
    fn egress(context: &TcContext, packet: &mut impl Hooked) -> i32 {
        let mut maps = Maps::new(context);
        let fate = pipeline::egress(packet, &mut maps);
        action(&maps, packet, fate)
    }

    /// Never TC_ACT_OK: it would end the chain before other people's programs have run.
    #[inline(always)]
    fn action(maps: &Maps, packet: &impl Hooked, fate: Fate) -> i32 {
        maps.count(fate);
        match fate {
            Ok(_) if packet.is_redirected() => TC_ACT_REDIRECT,
            Ok(_) => TC_ACT_UNSPEC,
            Err(_) => TC_ACT_SHOT,
        }
    }
}

/// On the host the object is nothing: there the library is tested.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
