//! Where Kubernetes objects come from: something that sends batches of events.
//!
//! A source owns the sending half of a channel of [`Delivery`]s. One is what became known
//! together; the receiver acts on it as a whole.

pub mod annotations;
pub mod kube;
pub mod manifests;
mod notice;

pub use notice::{Notice, Notices};

use k8s_openapi::Resource as _;
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, PodStatus, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::fmt;
use std::time::Instant;

/// An object of one of the kinds that matter.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// `v1` Service.
    Service(Box<Service>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// `v1` Node.
    Node(Box<Node>),
    /// `v1` Pod.
    Pod(Box<Pod>),
    /// `networking.k8s.io/v1` ServiceCIDR.
    ServiceCidr(Box<ServiceCIDR>),
}

/// The kinds of objects that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// `networking.k8s.io/v1` ServiceCIDR.
    ServiceCidr,
}

/// What tells one object from all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for Nodes and ServiceCIDRs.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What became known together.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// In this order.
    pub events: Vec<Event>,
    /// When the source heard of it.
    pub heard: Instant,
}

impl From<Vec<Event>> for Delivery {
    fn from(events: Vec<Event>) -> Self {
        Self {
            events,
            heard: Instant::now(),
        }
    }
}

/// What a source has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object exists and is now like this.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectKey),
    /// Everything that existed at the start has been sent. Comes once.
    Synced,
    /// What is wrong with one origin of objects (a file, a watch): the full list, replacing the
    /// one sent before. Empty: all is well again.
    Problems {
        /// Which origin, as the operator knows it.
        origin: String,
        /// One line each.
        problems: Vec<String>,
    },
}

impl Kind {
    /// The name as manifests write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }

    /// Group and version of its API.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service => Service::API_VERSION,
            Self::EndpointSlice => EndpointSlice::API_VERSION,
            Self::Node => Node::API_VERSION,
            Self::Pod => Pod::API_VERSION,
            Self::ServiceCidr => ServiceCIDR::API_VERSION,
        }
    }

    /// Whether objects of this kind are in a namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node | Self::ServiceCidr)
    }
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::ServiceCidr(_) => Kind::ServiceCidr,
        }
    }

    /// Its key; parts that the object lacks are empty.
    pub fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey {
            kind: self.kind(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Service(service) => &service.metadata,
            Self::EndpointSlice(slice) => &slice.metadata,
            Self::Node(node) => &node.metadata,
            Self::Pod(pod) => &pod.metadata,
            Self::ServiceCidr(range) => &range.metadata,
        }
    }

    /// Its metadata.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Service(service) => &mut service.metadata,
            Self::EndpointSlice(slice) => &mut slice.metadata,
            Self::Node(node) => &mut node.metadata,
            Self::Pod(pod) => &mut pod.metadata,
            Self::ServiceCidr(range) => &mut range.metadata,
        }
    }

    /// The object without what nothing here reads: most of the metadata, and most of a Pod.
    pub fn trimmed(mut self) -> Self {
        if let Self::Pod(pod) = &mut self {
            pod.spec = pod.spec.take().map(trimmed_spec);
            pod.status = pod.status.take().map(trimmed_status);
        }
        let metadata = self.metadata_mut();
        let mut annotations = metadata.annotations.take();
        if let Some(all) = &mut annotations {
            all.retain(|name, _| annotations::is_read(name));
        }
        *metadata = ObjectMeta {
            name: metadata.name.take(),
            namespace: metadata.namespace.take(),
            uid: metadata.uid.take(),
            deletion_timestamp: metadata.deletion_timestamp.take(),
            labels: metadata.labels.take(),
            annotations: annotations.filter(|it| !it.is_empty()),
            ..ObjectMeta::default()
        };
        self
    }
}

fn trimmed_spec(spec: PodSpec) -> PodSpec {
    let names = |containers: Vec<Container>| {
        let named = containers.into_iter().map(|container| Container {
            name: container.name,
            ..Container::default()
        });
        named.collect()
    };
    PodSpec {
        node_name: spec.node_name,
        host_network: spec.host_network,
        containers: names(spec.containers),
        init_containers: spec.init_containers.map(names),
        ..PodSpec::default()
    }
}

fn trimmed_status(status: PodStatus) -> PodStatus {
    PodStatus {
        phase: status.phase,
        pod_ip: status.pod_ip,
        pod_ips: status.pod_ips,
        ..PodStatus::default()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.name();
        if self.kind.is_namespaced() {
            write!(f, "{kind} {}/{}", self.namespace, self.name)
        } else {
            write!(f, "{kind} {}", self.name)
        }
    }
}
