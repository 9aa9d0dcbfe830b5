//! NodePorts at sockets of the node: on loopback, and what may be bound beside them.

use crate::family::Family;
use crate::kernel::Services;
use bytemuck::Zeroable as _;
use proxy_common::{
    AddrV4, AddrV6, Frontend, FrontendKey, FrontendKind, NodeFamily, Port, Proto, SocketAddress,
};

/// Whether a socket of a network namespace may be bound to an address: not to a NodePort of this node. A socket of IPv6 that is bound to any address has the port of IPv4, too.
#[inline(always)]
pub fn may_bind<K>(
    kernel: &K,
    [netns, first_netns]: [u64; 2],
    proto: Proto,
    to: &SocketAddress,
) -> bool
where
    K: Services<AddrV4> + Services<AddrV6>,
{
    let config = Services::<AddrV4>::config(kernel);
    if !config.is_some_and(|config| config.is_host_netns(netns, || first_netns)) {
        return true;
    }
    match to.as_v4() {
        Some(address) => !is_node_port(kernel, proto, address, to.port),
        None if to.as_v6() != AddrV6::zeroed() => !is_node_port(kernel, proto, to.as_v6(), to.port),
        None => {
            let any_v4 = AddrV4::zeroed();
            !is_node_port(kernel, proto, to.as_v6(), to.port)
                && !is_node_port(kernel, proto, any_v4, to.port)
        }
    }
}

/// Whether an address has a NodePort; any address has those of the node's own.
#[inline(always)]
fn is_node_port<A: Family, K: Services<A>>(
    kernel: &K,
    proto: Proto,
    address: A,
    port: Port,
) -> bool {
    let address = match kernel.config() {
        Some(config) if address == A::zeroed() => A::of_node(config).masquerade,
        _ => address,
    };
    let frontend = kernel.frontend(&FrontendKey::new(address, port, proto));
    frontend.and_then(Frontend::kind) == Some(FrontendKind::NodePort)
}

/// The NodePort that processes of the node find on loopback.
#[inline(always)]
pub fn on_loopback<A: Family, K: Services<A>>(
    kernel: &K,
    node: &NodeFamily<A>,
    proto: Proto,
    port: Port,
) -> Option<Frontend> {
    if node.loopback == A::zeroed() {
        return None;
    }
    let key = FrontendKey::new(node.loopback, port, proto);
    let frontend = kernel.frontend(&key).copied()?;
    frontend.is(FrontendKind::NodePort).then_some(frontend)
}
