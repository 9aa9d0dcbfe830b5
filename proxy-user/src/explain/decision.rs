//! The programs' decision, asked for everything that it can come to.

use super::Maps;
use bytemuck::Zeroable as _;
use proxy_common::{
    BackendRef, Detection, DropReason, Frontend, FrontendTrait, NodeConfig, Proto, Tuple,
};
use proxy_ebpf::family::Family;
use proxy_ebpf::kernel::Services;
use proxy_ebpf::open::Plan;
use proxy_ebpf::service::{self, Elsewhere, Origin};
use proxy_ebpf::socket;
use std::net::SocketAddr;

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<A> {
    pub(super) proto: Proto,
    pub(super) tuple: Tuple<A>,
    /// The device that it comes in by; 0: not known.
    pub(super) device: u32,
    /// Whether the node itself sends it.
    pub(super) is_own: bool,
}

/// What is decided about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) origin: Origin,
    pub(super) way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is for no frontend.
    Elsewhere(Elsewhere),
    /// It is for a frontend.
    Led(Led),
}

/// What is decided about packets to a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Led {
    /// What was dialled: on loopback it is dialled at another address.
    pub(super) at: SocketAddr,
    pub(super) frontend: Frontend,
    /// Whether only backends on this node may answer.
    pub(super) stays_local: bool,
    /// Whether kube-proxy masks clients like this by policy.
    pub(super) policy_masks: bool,
    /// Whether it masks this one: also if nobody else can answer than the client itself.
    pub(super) is_masked_there: bool,
    /// What can come of it, draw by draw: the same each time if the client goes on with a backend that it has had.
    pub(super) choices: Result<Vec<Choice>, DropReason>,
}

/// A backend, and what becomes of the client's address on the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) backend: SocketAddr,
    pub(super) is_masked: bool,
    /// The policy wants it masked, but it need not be because the backend is on this node.
    pub(super) is_spared: bool,
}

/// Asks for it. `None`: nothing is known of the node.
pub(super) fn decide<A: Family>(maps: &Maps, packet: &Packet<A>) -> Option<Decision>
where
    Maps: Services<A>,
{
    let config = Services::<A>::config(maps)?;
    let origin = service::origin(maps, config, &packet.plan());
    let way = match dialled(maps, packet) {
        None => Way::Elsewhere(service::elsewhere(maps, &packet.tuple.dst)),
        Some((at, frontend)) => {
            let there = as_kube_proxy_sees_it(maps, config, packet);
            let origin_there = service::origin(maps, config, &there.plan());
            let policy_masks = service::policy_masks::<A>(config, frontend, origin_there);
            let stays_local = service::stays_local(frontend, origin);
            Way::Led(Led {
                at,
                frontend,
                stays_local,
                policy_masks,
                is_masked_there: policy_masks
                    || choices(maps, &there, frontend, stays_local)
                        .is_ok_and(|choices| are_masked(&choices)),
                choices: choices(maps, packet, frontend, stays_local),
            })
        }
    };
    Some(Decision { origin, way })
}

/// kube-proxy asks first whether a source is in the pods' range, then whether it is the node's own.
fn as_kube_proxy_sees_it<A: Family>(
    maps: &Maps,
    config: &NodeConfig,
    packet: &Packet<A>,
) -> Packet<A>
where
    Maps: Services<A>,
{
    let as_others = Packet {
        is_own: false,
        ..*packet
    };
    let is_by_source = A::of_node(config).detection() == Detection::BySource;
    let is_pod = service::origin(maps, config, &as_others.plan()) == Origin::POD;
    match is_by_source && is_pod {
        true => as_others,
        false => *packet,
    }
}

fn are_masked(choices: &[Choice]) -> bool {
    choices.iter().all(|it| it.is_masked)
}

impl<A: Family> Packet<A> {
    /// As the programs begin with it.
    fn plan(&self) -> Plan<A> {
        let mut plan = Plan {
            to: self.tuple,
            address_delta: 0,
            backend: BackendRef::zeroed(),
            origin: Origin::OUTSIDE,
            masked: false,
            is_spared: false,
            renews: false,
            is_host: self.is_own,
            displaces: false,
            device: self.device,
            is_fast: false,
            comes_by: 0,
            leaves_by: 0,
        };
        plan.begin(&self.tuple, self.device, self.is_own);
        plan
    }
}

impl Led {
    pub(super) fn has(&self, what: FrontendTrait) -> bool {
        self.frontend.has(what)
    }
}

/// The frontend; loopback is for sockets, which find there what the node's own address has.
fn dialled<A: Family>(maps: &Maps, packet: &Packet<A>) -> Option<(SocketAddr, Frontend)>
where
    Maps: Services<A>,
{
    let (to, port) = (packet.tuple.dst, packet.tuple.dport);
    if !to.is_loopback() {
        let found = service::dialled(maps, packet.proto, &packet.tuple)?;
        return Some((SocketAddr::new(to.ip(), port.number()), found));
    }
    if !packet.is_own || packet.proto == Proto::Sctp {
        return None;
    }
    let node = A::of_node(Services::<A>::config(maps)?);
    let found = socket::on_loopback(maps, node, packet.proto, port)?;
    Some((SocketAddr::new(node.loopback.ip(), port.number()), found))
}

/// What comes of each draw.
fn choices<A: Family>(
    maps: &Maps,
    packet: &Packet<A>,
    frontend: Frontend,
    stays_local: bool,
) -> Result<Vec<Choice>, DropReason>
where
    Maps: Services<A>,
{
    // Whatever is wrong is found in the programs' own order.
    choose(maps, packet, frontend)?;
    let region = service::region::<A, Maps>(maps, frontend.service)?;
    let window = service::window::<A, Maps>(maps, region, stays_local)?;
    let drawn = (0..window.backends).map(|nth| {
        maps.will_draw(nth, window.backends);
        choose(maps, packet, frontend)
    });
    drawn.collect()
}

fn choose<A: Family>(
    maps: &Maps,
    packet: &Packet<A>,
    frontend: Frontend,
) -> Result<Choice, DropReason>
where
    Maps: Services<A>,
{
    let mut plan = packet.plan();
    service::choose(maps, frontend, &mut plan)?;
    Ok(Choice {
        backend: SocketAddr::new(plan.to.dst.ip(), plan.to.dport.number()),
        is_masked: plan.masked,
        is_spared: plan.is_spared,
    })
}
