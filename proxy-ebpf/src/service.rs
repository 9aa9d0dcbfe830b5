//! Frontend to backend: who answers, whether nobody does, and whether the client must be masked.

mod draw;

pub use draw::{Window, draw, exists, known, region, window};

use crate::family::Family;
use crate::kernel::{Kernel, Services, Way};
use crate::open::Plan;
use draw::retried;
use proxy_common::{
    AffinityKey, Backend, Detection, DeviceTrait, DropReason, Frontend, FrontendKey, FrontendTrait,
    NodeConfig, NodeOption, Proto, RegionHeader, Tuple,
};

/// Where a client is, as far as traffic policies are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Origin {
    /// It is a process of this node.
    is_node: bool,
    /// It is a pod.
    is_pod: bool,
}

impl Origin {
    /// A process of this node.
    pub const NODE: Self = Self {
        is_node: true,
        is_pod: false,
    };
    /// A pod.
    pub const POD: Self = Self {
        is_node: false,
        is_pod: true,
    };
    /// Outside of the cluster, or it can't be told.
    pub const OUTSIDE: Self = Self {
        is_node: false,
        is_pod: false,
    };

    /// The same as a name, for whoever tells of it.
    pub const fn place(self) -> Place {
        match self {
            Self { is_node: true, .. } => Place::Node,
            Self { is_pod: true, .. } => Place::Pod,
            _ => Place::Outside,
        }
    }

    #[inline(always)]
    const fn is_outside(self) -> bool {
        !(self.is_node | self.is_pod)
    }
}

/// See [`Origin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A process of this node.
    Node,
    /// A pod.
    Pod,
    /// Outside of the cluster, or it can't be told.
    Outside,
}

/// What a packet's destination is, if it is a frontend.
#[inline(always)]
pub fn find<A: Family, K: Services<A>>(
    kernel: &K,
    proto: Proto,
    tuple: &Tuple<A>,
) -> Option<Frontend> {
    let key = FrontendKey::new(tuple.dst, tuple.dport, proto);
    kernel.frontend(&key).copied()
}

/// As [`find`], without looking where there can be none.
#[inline(always)]
pub fn dialled<A: Family, K: Services<A>>(
    kernel: &K,
    proto: Proto,
    tuple: &Tuple<A>,
) -> Option<Frontend> {
    match kernel.may_be_dialled(&tuple.dst) {
        true => find(kernel, proto, tuple),
        false => None,
    }
}

/// What there is at an address and port that is no frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Elsewhere {
    /// Nothing of a Service's.
    Unrelated,
    /// A Service's cluster address, which has no such port.
    NoPort,
    /// An address for Services, which none has.
    NoService,
}

/// Tells which. To be asked for what is no frontend.
#[inline(always)]
pub fn elsewhere<A: Family, K: Services<A>>(kernel: &K, address: &A) -> Elsewhere {
    if has_service(kernel, address) {
        Elsewhere::NoPort
    } else if is_for_services(kernel, address) {
        Elsewhere::NoService
    } else {
        Elsewhere::Unrelated
    }
}

/// Whether an address is one of those that only Services have.
#[inline(always)]
fn is_for_services<A: Family, K: Services<A>>(kernel: &K, address: &A) -> bool {
    let config = kernel.config();
    config.is_some_and(|config| A::of_node(config).services.contain(address))
}

/// Whether a packet that leaves this node is for an address of Services that none has. That nobody has made it
/// another's until now means that nobody will; what the node sends to itself does not leave it.
#[inline(never)]
pub fn is_nobodys<A: Family, K: Kernel<A>>(kernel: &K, address: &A, device: u32) -> bool {
    is_for_services(kernel, address)
        && !has_service(kernel, address)
        && kernel.route(None, address, device).way != Way::Here
}

/// Whether it is a Service's cluster address.
#[inline(always)]
pub fn has_service<A: Family, K: Services<A>>(kernel: &K, address: &A) -> bool {
    let key = FrontendKey::of_address(*address);
    kernel.may_be_dialled(address) && kernel.frontend(&key).is_some()
}

/// Picks the backend of a flow to this frontend: the one that is planned already, if it still exists; the
/// one that the client has had, if it is to stay there; else any that may answer, each with the same
/// probability.
///
/// Its steps are functions of their own to the verifier, too, which follows each of them once: what one has found
/// out the next one reads from the plan, of whose content the verifier keeps nothing. They return no data because
/// there is no BTF for an enum that carries a struct.
#[inline(never)]
pub fn choose<A: Family, K: Services<A>>(
    kernel: &K,
    frontend: Frontend,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    locate(kernel, plan);
    if !exists(kernel, plan.backend) {
        admit(kernel, frontend, &plan.to.src)?;
        draw_planned(kernel, frontend, plan)?;
    }
    lead(kernel, frontend, plan)
}

/// See [`choose`].
#[inline(never)]
fn locate<A: Family, K: Services<A>>(kernel: &K, plan: &mut Plan<A>) {
    plan.origin = match kernel.config() {
        Some(config) => origin(kernel, config, plan),
        None => Origin::OUTSIDE,
    };
}

/// See [`choose`].
#[inline(never)]
fn draw_planned<A: Family, K: Services<A>>(
    kernel: &K,
    frontend: Frontend,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let client = AffinityKey::of_address(plan.to.src.as_v6(), frontend.service);
    let stays_local = stays_local(frontend, plan.origin);
    draw(kernel, frontend, &client, stays_local, &mut plan.backend)
}

/// Plans the way to the backend that has been drawn. See [`choose`].
#[inline(never)]
fn lead<A: Family, K: Services<A>>(
    kernel: &K,
    frontend: Frontend,
    plan: &mut Plan<A>,
) -> Result<(), DropReason> {
    let config = kernel.config().ok_or(DropReason::ServiceTorn)?;
    let backend = known(kernel, plan.backend).ok_or(DropReason::ServiceTorn)?;
    mask(config, frontend, &backend, plan);
    let original = plan.to;
    plan.to.dst = backend.address;
    plan.to.dport = backend.port;
    plan.address_delta = A::address_delta(&original, &plan.to);
    Ok(())
}

/// Where the client of a plan is.
#[inline(always)]
pub fn origin<A: Family, K: Services<A>>(
    kernel: &K,
    config: &NodeConfig,
    plan: &Plan<A>,
) -> Origin {
    if plan.is_host {
        return Origin::NODE;
    }
    let family = A::of_node(config);
    let is_pod = match family.detection() {
        Detection::None => false,
        Detection::BySource => family.pods.contains(&plan.to.src),
        Detection::ByDevice => {
            let device = kernel.device(plan.device);
            device.is_some_and(|device| device.is(DeviceTrait::OfPods))
        }
    };
    Origin {
        is_node: false,
        is_pod,
    }
}

/// Whether only backends on this node may answer. An external address is dialled inside of the cluster as
/// if the load balancer had been asked: any backend will do.
#[inline(always)]
pub fn stays_local(frontend: Frontend, origin: Origin) -> bool {
    frontend.has(FrontendTrait::StaysLocal) & (!frontend.is_external() | origin.is_outside())
}

/// Whether clients of this origin are masked, as far as the traffic policy is concerned.
#[inline(always)]
pub fn policy_masks<A: Family>(config: &NodeConfig, frontend: Frontend, origin: Origin) -> bool {
    if frontend.is_external() {
        return !frontend.has(FrontendTrait::StaysLocal) | origin.is_node;
    }
    let is_known = A::of_node(config).detection() as u32 != Detection::None as u32;
    config.options.has(NodeOption::MasqueradeAll) | (is_known & !origin.is_pod)
}

/// Plans whether the client is masked: if its backend would else talk to itself (hairpin), or if the policy
/// says so. A backend of this node answers through it anyway, so its client is spared if answers come back
/// by the way that it has come; see [`comes_back`].
#[inline(always)]
fn mask<A: Family>(
    config: &NodeConfig,
    frontend: Frontend,
    backend: &Backend<A>,
    plan: &mut Plan<A>,
) {
    let is_wanted = policy_masks::<A>(config, frontend, plan.origin);
    let is_spared = backend.is_local() & !config.options.has(NodeOption::MasqueradeLocal);
    let is_hairpin = backend.address == plan.to.src;
    plan.masked = is_hairpin | (is_wanted & !is_spared);
    plan.is_spared = is_wanted & is_spared & !is_hairpin;
}

/// Whether a client may dial the frontend: addresses of load balancers may be for some only.
#[inline(always)]
fn admit<A: Family, K: Services<A>>(
    kernel: &K,
    frontend: Frontend,
    client: &A,
) -> Result<(), DropReason> {
    if frontend.has(FrontendTrait::Restricted) {
        retried(|| is_admitted(kernel, frontend.service, client))
    } else {
        Ok(())
    }
}

/// See [`exists`].
#[inline(never)]
fn is_admitted<A: Family, K: Services<A>>(
    kernel: &K,
    service: u32,
    client: &A,
) -> Result<(), DropReason> {
    let region_seen = region::<A, K>(kernel, service)?;
    let set = kernel.slot(region_seen + RegionHeader::SOURCES);
    match set.ok_or(DropReason::ServiceTorn)? {
        0 => Ok(()),
        set if kernel.is_in_set(set, client) => Ok(()),
        // A set goes after the region that leads to it.
        _ if region::<A, K>(kernel, service) == Ok(region_seen) => {
            Err(DropReason::SourceNotAllowed)
        }
        _ => Err(DropReason::ServiceTorn),
    }
}

/// Whether a client outside gets the answers of a backend of this node by the way that it has come. It
/// would be another one if the pod is reached by the same device as the client (it has none of its own on
/// this node; what ports of a bridge have is their own), or if routes to the client lead elsewhere.
#[inline(always)]
pub fn comes_back<A: Family, K: Kernel<A>>(kernel: &K, plan: &Plan<A>, client: &A) -> bool {
    let device = kernel.device(plan.device);
    let arrival = device.map_or(plan.device, |device| device.routed_as);
    let to_client = way_out(kernel, &plan.to.dst, client, plan.device);
    let to_backend = way_out(kernel, client, &plan.to.dst, plan.device);
    (to_client == NOWHERE || to_client == arrival) && to_backend != plan.device
}

/// The device by which packets leave; [`NOWHERE`] if they don't, or if routing does not tell.
#[inline(never)]
fn way_out<A: Family, K: Kernel<A>>(kernel: &K, src: &A, dst: &A, device: u32) -> u32 {
    let route = kernel.route(Some(src), dst, device);
    match route.way {
        Way::Out => route.device,
        Way::Here | Way::Nowhere => NOWHERE,
    }
}

/// No device has this index.
const NOWHERE: u32 = 0;
