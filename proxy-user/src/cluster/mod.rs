//! Mirror of the cluster's objects, merged into one plain view per Service.

mod address;
mod endpoints;
mod members;
mod name;
mod node;
mod outside;
mod pod;
mod protocol;
mod service;
mod service_cidr;
mod skipped;
mod zones;

pub use address::{Cidr, NotACidr};
pub use endpoints::{Endpoint, Trigger};
pub use name::ServiceName;
pub use node::NodeView;
pub use outside::Outside;
pub use pod::OptedOut;
pub use protocol::{IpFamily, Protocol};
pub use service::{HealthCheckPort, StaysLocal};
pub use skipped::{Skipped, Why};
pub use zones::Hint;

use crate::source::{Kind, Object, ObjectKey};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use members::Members;
use pod::PodView;
use service::Exposed;
use service_cidr::Ranges;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;
use zones::Zones;

/// A Service and its endpoints, as far as they can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Which Service.
    pub name: ServiceName,
    /// Its cluster addresses, at most one per family.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports, in its own order.
    pub ports: Vec<PortView>,
    /// How it can be dialled from outside.
    pub outside: Outside,
    /// A client's connections lead to the same endpoint, until there was none for this long.
    pub affinity: Option<Duration>,
    /// Whether TCP sockets that are connected to it are closed when their backend goes.
    pub closes_tcp: bool,
    /// Its traffic policies.
    pub stays_local: StaysLocal,
    /// Where load balancers ask after it, if they do.
    pub health_check: Option<HealthCheckPort>,
    /// What of the Service and its EndpointSlices can't be used.
    pub skipped: Vec<Skipped>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port dialled on cluster addresses.
    pub port: u16,
    /// The port dialled on node addresses.
    pub node_port: Option<u16>,
    /// Who may answer, each address and port once, in their order: IPv4 before IPv6.
    pub endpoints: Vec<Endpoint>,
}

/// What must be looked at again after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services whose view may have changed.
    pub services: Vec<ServiceName>,
    /// The Service-independent part: [`Cluster::node`] has changed.
    pub node: bool,
    /// [`Cluster::opted_out`] has changed.
    pub pods: bool,
    /// Objects that belong to no Service and can't be used, as of this change.
    pub skipped: Vec<Skipped>,
    /// What the change goes back to, if it is one of endpoints and says so.
    pub trigger: Option<Trigger>,
}

/// The mirror. Knows one node by name: its own.
#[derive(Debug)]
pub struct Cluster {
    node_name: String,
    node: Option<NodeView>,
    zones: Zones,
    members: HashMap<ServiceName, Box<Members>>,
    owners: HashMap<ObjectKey, ServiceName>,
    unowned: BTreeMap<ObjectKey, Skipped>,
    /// Those that say something of note.
    pods: BTreeMap<ObjectKey, PodView>,
    service_cidrs: BTreeMap<ObjectKey, Ranges>,
}

impl Cluster {
    /// An empty mirror, seen from the node of this name.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            node: None,
            zones: Zones::default(),
            members: HashMap::new(),
            owners: HashMap::new(),
            unowned: BTreeMap::new(),
            pods: BTreeMap::new(),
            service_cidrs: BTreeMap::new(),
        }
    }

    /// Takes in an object, new or changed.
    pub fn apply(&mut self, object: &Object) -> Dirty {
        let key = object.key();
        match object {
            Object::Service(service) => self.put_service(&key, service),
            Object::EndpointSlice(slice) => self.put_slice(key, slice),
            Object::Node(node) => self.put_node(&key, node),
            Object::Pod(pod) => {
                let view = pod::view(&key, pod, &self.node_name);
                self.set_pod(key, view)
            }
            Object::ServiceCidr(object) => {
                let ranges = service_cidr::ranges(&key, object);
                self.set_service_cidr(key, ranges)
            }
        }
    }

    /// Forgets an object; one that was not known changes nothing.
    pub fn delete(&mut self, key: &ObjectKey) -> Dirty {
        match key.kind {
            Kind::Service => self.set_service(&ServiceName::of(key), None),
            Kind::EndpointSlice => Dirty::services(self.remove_slice(key)),
            Kind::Node => self.set_node(&key.name, None),
            Kind::Pod => self.set_pod(key.clone(), PodView::default()),
            Kind::ServiceCidr => self.set_service_cidr(key.clone(), Ranges::default()),
        }
    }

    /// The Service of this name, if there is one that a proxy serves.
    pub fn view(&self, name: &ServiceName) -> Option<ServiceView> {
        let members = self.members.get(name)?;
        let service = members.service.as_ref()?;
        let mut skipped = service.skipped.clone();
        skipped.extend(members.slices().flat_map(endpoints::Slice::skipped));
        let ports = service.ports.iter().map(|port| PortView {
            endpoints: endpoints::merged(members.slices(), port, &self.zones),
            ..port.clone()
        });
        Some(ServiceView {
            name: name.clone(),
            cluster_ips: service.cluster_ips.clone(),
            outside: service.outside.clone(),
            affinity: service.affinity,
            closes_tcp: service.closes_tcp,
            stays_local: service.stays_local,
            health_check: service.health_check.clone(),
            ports: ports.collect(),
            skipped,
        })
    }

    /// How many IPv4 and IPv6 addresses a Service's endpoints have that are on this node and ready.
    pub fn local_ready(&self, name: &ServiceName) -> [usize; 2] {
        let slices = self.members.get(name).into_iter();
        endpoints::local_ready(slices.flat_map(|members| members.slices()))
    }

    /// Names of all Services that have a view.
    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        let served = |members: &Members| members.service.is_some();
        self.members
            .iter()
            .filter(move |(_, members)| served(members))
            .map(|(name, _)| name)
    }

    /// Names of the Services that have one of these cluster addresses.
    pub fn names_with(
        &self,
        is_wanted: impl Fn(&IpAddr) -> bool,
    ) -> impl Iterator<Item = &ServiceName> {
        self.members.iter().filter_map(move |(name, members)| {
            let service = members.service.as_ref()?;
            service.cluster_ips.iter().any(&is_wanted).then_some(name)
        })
    }

    /// This node, if its object is known.
    pub fn node(&self) -> Option<&NodeView> {
        self.node.as_ref()
    }

    /// Objects that belong to no Service and can't be used.
    pub fn unowned(&self) -> impl Iterator<Item = &Skipped> {
        let pods = self.pods.values().flat_map(|pod| &pod.skipped);
        let ranges = self.service_cidrs.values().flat_map(|it| &it.skipped);
        self.unowned.values().chain(pods).chain(ranges)
    }

    /// The ranges from which Services get their addresses, each once.
    pub fn service_cidrs(&self) -> BTreeSet<Cidr> {
        let ranges = self.service_cidrs.values().flat_map(|it| &it.cidrs);
        ranges.copied().collect()
    }

    /// The pods of this node whose sockets are left alone.
    pub fn opted_out(&self) -> impl Iterator<Item = &OptedOut> {
        self.pods.values().filter_map(|pod| pod.opted_out.as_ref())
    }

    fn put_service(&mut self, key: &ObjectKey, service: &Service) -> Dirty {
        self.set_service(&ServiceName::of(key), service::exposed(key, service))
    }

    fn set_service(&mut self, name: &ServiceName, service: Option<Exposed>) -> Dirty {
        let members = self.members.entry(name.clone()).or_default();
        let changed = members.service != service;
        members.service = service;
        self.drop_if_empty(name);
        Dirty::services(changed.then(|| name.clone()))
    }

    fn put_slice(&mut self, key: ObjectKey, slice: &EndpointSlice) -> Dirty {
        let Some(name) = endpoints::service_of(&key, slice) else {
            let mut dirty = Dirty::services(self.remove_slice(&key));
            dirty.skipped.extend(self.put_unowned(key, slice));
            return dirty;
        };
        let before = match self.owners.get(&key) {
            Some(owner) if *owner == name => None,
            _ => self.remove_slice(&key),
        };
        let trigger = endpoints::trigger(slice);
        let slice = endpoints::slice(&key, slice, &self.node_name, &mut self.zones);
        let members = self.members.entry(name.clone()).or_default();
        let changed = members.put(&name, &key.name, slice);
        self.owners.insert(key, name.clone());
        Dirty {
            trigger,
            ..Dirty::services(before.into_iter().chain(changed.then_some(name)))
        }
    }

    /// Returns the reason if it is new.
    fn put_unowned(&mut self, key: ObjectKey, slice: &EndpointSlice) -> Option<Skipped> {
        if endpoints::is_ignored(slice) {
            return None;
        }
        let skipped = Skipped::new(&key, endpoints::OWNER_FIELD, Why::Missing);
        let before = self.unowned.insert(key, skipped.clone());
        before.is_none().then_some(skipped)
    }

    /// Returns the Service that has lost the slice.
    fn remove_slice(&mut self, key: &ObjectKey) -> Option<ServiceName> {
        self.unowned.remove(key);
        let owner = self.owners.remove(key)?;
        if let Some(members) = self.members.get_mut(&owner) {
            members.remove(&owner, &key.name);
        }
        self.drop_if_empty(&owner);
        Some(owner)
    }

    fn put_node(&mut self, key: &ObjectKey, node: &Node) -> Dirty {
        self.set_node(&key.name, Some(node::view(key, node)))
    }

    fn set_node(&mut self, name: &str, node: Option<NodeView>) -> Dirty {
        if name != self.node_name || self.node == node {
            return Dirty::default();
        }
        self.node = node;
        let zone = self.node.as_ref().and_then(|node| node.zone.as_deref());
        let moved = self.zones.set_own(zone);
        Dirty {
            services: if moved { self.hinted() } else { Vec::new() },
            node: true,
            ..Dirty::default()
        }
    }

    /// Names of the Services that have endpoints meant for some zones.
    fn hinted(&self) -> Vec<ServiceName> {
        let is_hinted = |members: &Members| members.slices().any(endpoints::Slice::has_zones);
        let hinted = self.members.iter().filter(|(_, it)| is_hinted(it));
        hinted.map(|(name, _)| name.clone()).collect()
    }

    fn set_pod(&mut self, key: ObjectKey, pod: PodView) -> Dirty {
        let before = self.pods.remove(&key).unwrap_or_default();
        let news = pod.skipped.iter().filter(|it| !before.skipped.contains(it));
        let dirty = Dirty {
            pods: before.opted_out != pod.opted_out,
            skipped: news.cloned().collect(),
            ..Dirty::default()
        };
        if pod != PodView::default() {
            self.pods.insert(key, pod);
        }
        dirty
    }

    fn set_service_cidr(&mut self, key: ObjectKey, ranges: Ranges) -> Dirty {
        let before = self.service_cidrs.remove(&key).unwrap_or_default();
        let news = ranges.skipped.iter();
        let news = news.filter(|it| !before.skipped.contains(it));
        let dirty = Dirty {
            skipped: news.cloned().collect(),
            ..Dirty::default()
        };
        if ranges != Ranges::default() {
            self.service_cidrs.insert(key, ranges);
        }
        dirty
    }

    fn drop_if_empty(&mut self, name: &ServiceName) {
        if self.members.get(name).is_some_and(|it| it.is_empty()) {
            self.members.remove(name);
        }
    }
}

impl Dirty {
    fn services(services: impl IntoIterator<Item = ServiceName>) -> Self {
        Self {
            services: services.into_iter().collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
