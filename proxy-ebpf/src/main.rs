//! The BPF object: one entry point per hook, and what an outcome means there.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::needless_pass_by_value,
        reason = "entry points are called by the macro"
    )
)]

#[cfg(target_arch = "bpf")]
mod bpf;

#[cfg(target_arch = "bpf")]
mod hooks {
    use crate::bpf::maps::Maps;
    use crate::bpf::skb::{EthernetSkb, Skb};
    use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
    use aya_ebpf::macros::classifier;
    use aya_ebpf::programs::TcContext;
    use proxy_ebpf::{Fate, pipeline};

    #[classifier]
    fn ferrule_ingress(context: TcContext) -> i32 {
        action(pipeline::ingress(
            &mut EthernetSkb::new(&context),
            &mut Maps,
        ))
    }

    #[classifier]
    fn ferrule_egress(context: TcContext) -> i32 {
        action(pipeline::egress(&mut EthernetSkb::new(&context), &mut Maps))
    }

    /// For devices whose packets begin with an IP header (tunnels).
    type IpSkb = Skb<0>;

    #[classifier]
    fn ferrule_ingr_l3(context: TcContext) -> i32 {
        action(pipeline::ingress(&mut IpSkb::new(&context), &mut Maps))
    }

    #[classifier]
    fn ferrule_egr_l3(context: TcContext) -> i32 {
        action(pipeline::egress(&mut IpSkb::new(&context), &mut Maps))
    }

    /// Never TC_ACT_OK: it would end the chain before other people's programs have run.
    #[inline(always)]
    fn action(fate: Fate) -> i32 {
        Maps.count(fate);
        match fate {
            Ok(_) => TC_ACT_UNSPEC,
            Err(_) => TC_ACT_SHOT,
        }
    }
}

/// On the host the object is nothing: there the library is tested.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
