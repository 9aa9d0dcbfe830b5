//! What may be dialled, and which backends answer.

mod detect;
mod dialled;
mod health_checks;
mod locality;
mod node_ports;
mod topology;

pub use crate::cluster::{Cidr, IpFamily, Protocol, ServiceName, StaysLocal};
pub use detect::{DetectLocal, NotAMode, NotAName};
pub use health_checks::{HealthCheck, health_check, health_check_addresses};
pub use locality::{LocalGaps, local_gaps};
pub use node_ports::{NodePortAddresses, NodePortItem, NotAnItem};

use crate::cluster::{Endpoint, PortView, ServiceView};
use dialled::InFamily;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use topology::backends;

/// What must be known of the node besides the Service itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeContext {
    /// Its own IPv4 address.
    pub primary_v4: Option<Ipv4Addr>,
    /// Its own IPv6 address.
    pub primary_v6: Option<Ipv6Addr>,
    /// Addresses on which NodePorts are served.
    pub node_port_addresses: Vec<IpAddr>,
    /// Whether addresses that Services claim to have outside are served.
    pub external_ips: bool,
    /// Addresses of the node's devices, each with the name of a device that has it.
    pub local_addresses: LocalAddresses,
}

/// Addresses, each with the name of a device of this node that has it.
pub type LocalAddresses = BTreeMap<IpAddr, String>;

impl NodeContext {
    /// From the node's addresses, the preferred ones first (the first of each family is its primary address),
    /// those of its devices, and which of these serve NodePorts.
    pub fn of(
        addresses: impl IntoIterator<Item = IpAddr>,
        local_addresses: LocalAddresses,
        node_ports: &NodePortAddresses,
    ) -> Self {
        let mut node = Self {
            local_addresses,
            external_ips: true,
            ..Self::default()
        };
        for address in addresses {
            match address {
                IpAddr::V4(v4) => node.primary_v4 = node.primary_v4.or(Some(v4)),
                IpAddr::V6(v6) => node.primary_v6 = node.primary_v6.or(Some(v6)),
            }
        }
        let v4 = node.primary_v4.map(IpAddr::V4).into_iter();
        let primary: Vec<IpAddr> = v4.chain(node.primary_v6.map(IpAddr::V6)).collect();
        node.node_port_addresses = node_ports.of_node(&primary, &node.local_addresses);
        node
    }

    /// Its own address of a family.
    pub fn primary(&self, family: IpFamily) -> Option<IpAddr> {
        match family {
            IpFamily::V4 => self.primary_v4.map(IpAddr::V4),
            IpFamily::V6 => self.primary_v6.map(IpAddr::V6),
        }
    }
}

/// One port of a Service in one IP family: the unit that is balanced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name of the port; empty if it has none.
    pub name: String,
    /// Family of all its addresses.
    pub family: IpFamily,
    /// Where it can be dialled, sorted.
    pub frontends: Vec<Frontend>,
    /// Who answers, and who only goes on with what it has begun, sorted by address and port.
    pub backends: Vec<Backend>,
    /// Whose connections are for backends on this node alone; of clients outside only if they have a way in.
    pub stays_local: StaysLocal,
    /// A client's connections lead to the same backend, until there was none for this long.
    pub affinity: Option<Duration>,
    /// Who may dial addresses of load balancers; `None`: there is no such address, or everybody may.
    pub source_ranges: Option<Vec<Cidr>>,
    /// Whether TCP sockets that are connected to it are closed when their backend goes.
    pub closes_tcp: bool,
}

/// Address, port and protocol that clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Dialled address.
    pub address: IpAddr,
    /// Dialled port.
    pub port: u16,
    /// Dialled protocol.
    pub protocol: Protocol,
    /// How it came to be.
    pub kind: FrontendKind,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = SocketAddr::new(self.address, self.port);
        write!(f, "{at}/{}", self.protocol.name())
    }
}

/// How a frontend came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// From a cluster address.
    ClusterIp,
    /// From a node port, on one of this node's addresses.
    NodePort,
    /// From an address that the Service claims to have outside.
    ExternalIp,
    /// From an address of the Service's load balancer.
    LoadBalancer,
}

/// An endpoint as the datapath sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address of the pod or host.
    pub address: IpAddr,
    /// Port it listens on.
    pub port: u16,
    /// Whether it runs on this node.
    pub local: bool,
    /// Whether it is one of those that answer under policy Local.
    pub in_local: bool,
    /// Whether it is one of those that answer under policy Cluster.
    pub in_cluster: bool,
}

/// The service ports of a Service, in the order of its ports, IPv4 before IPv6.
///
/// A family in which the Service has no cluster address does not exist for it.
pub fn service_ports(view: &ServiceView, node: &NodeContext) -> Vec<ServicePort> {
    let mut cluster_ips = view.cluster_ips.clone();
    cluster_ips.sort_unstable();
    let in_families = cluster_ips.into_iter().map(|cluster_ip| InFamily {
        view,
        node,
        cluster_ip,
    });
    let ports = view.ports.iter();
    let ports = ports.flat_map(|port| {
        let in_families = in_families.clone();
        in_families.map(move |service| service_port(service, port))
    });
    ports.collect()
}

/// The Service's cluster addresses that this node itself has: what listens there (a cache of DNS, say)
/// answers, so they are no frontends. Each with the name of its device.
pub fn left_alone<'a>(
    view: &'a ServiceView,
    node: &'a NodeContext,
) -> impl Iterator<Item = (IpAddr, &'a str)> {
    view.cluster_ips.iter().filter_map(|ip| {
        let device = node.local_addresses.get(ip)?;
        Some((*ip, device.as_str()))
    })
}

fn service_port(service: InFamily<'_>, port: &PortView) -> ServicePort {
    let view = service.view;
    ServicePort {
        name: port.name.clone(),
        family: service.family(),
        frontends: service.frontends(port),
        backends: backends(of_family(&port.endpoints, service.family())),
        stays_local: service.stays_local(port),
        affinity: view.affinity,
        source_ranges: service.source_ranges(),
        closes_tcp: view.closes_tcp,
    }
}

/// IPv4 comes first.
fn of_family(endpoints: &[Endpoint], family: IpFamily) -> &[Endpoint] {
    let (v4, v6) = endpoints.split_at(endpoints.partition_point(|it| it.address.is_ipv4()));
    match family {
        IpFamily::V4 => v4,
        IpFamily::V6 => v6,
    }
}

#[cfg(test)]
mod tests;
