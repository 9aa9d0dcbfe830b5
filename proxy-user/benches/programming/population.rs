//! Services by the thousands as objects: one port, endpoints of their own.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proxy_user::source::{Event, Object};
use std::net::Ipv4Addr;

/// Address of the first Service, the others follow.
const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Address of the first endpoint, the others follow.
const FIRST_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
/// Endpoints in a slice: what kube-controller-manager makes of many.
const PER_SLICE: u32 = 100;
/// Endpoints are on so many nodes in turn.
const NODES: u32 = 1_000;

/// So many Services with so many endpoints each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Population {
    /// How many Services.
    pub(crate) services: u32,
    /// Endpoints of each of them.
    pub(crate) endpoints: u32,
}

/// A Service, and which of all endpoints are its own.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    number: u32,
    /// Numbers of its endpoints.
    endpoints: Vec<u32>,
}

impl Population {
    /// All Services.
    pub(crate) fn members(self) -> impl Iterator<Item = Member> {
        (0..self.services).map(move |number| self.member(number))
    }

    /// One of them.
    pub(crate) fn member(self, number: u32) -> Member {
        Member::new(number, number * self.endpoints, self.endpoints)
    }

    /// How many endpoints there are.
    pub(crate) fn all_endpoints(self) -> u32 {
        self.services * self.endpoints
    }
}

impl Member {
    /// With so many endpoints from the one of this number on.
    pub(crate) fn new(number: u32, first: u32, endpoints: u32) -> Self {
        Self {
            number,
            endpoints: (first..first + endpoints).collect(),
        }
    }

    /// Everything about it.
    pub(crate) fn events(&self) -> impl Iterator<Item = Event> {
        let slices = self.endpoints.chunks(PER_SLICE as usize).enumerate();
        let slices = slices.map(|(slice, endpoints)| self.slice(slice, endpoints));
        [Object::Service(Box::new(self.service()))]
            .into_iter()
            .chain(slices)
            .map(Event::Apply)
    }

    /// Another endpoint takes the place of one; the slice in which it is.
    pub(crate) fn replace(&mut self, index: u32, endpoint: u32) -> Event {
        self.endpoints[index as usize] = endpoint;
        let slice = (index / PER_SLICE) as usize;
        let endpoints = self.endpoints.chunks(PER_SLICE as usize).nth(slice);
        Event::Apply(self.slice(slice, endpoints.unwrap_or_default()))
    }

    fn name(&self) -> String {
        format!("svc-{}", self.number)
    }

    fn service(&self) -> Service {
        let address = nth(FIRST_SERVICE, self.number).to_string();
        Service {
            metadata: metadata(self.name()),
            spec: Some(ServiceSpec {
                type_: Some("ClusterIP".to_owned()),
                cluster_ip: Some(address.clone()),
                cluster_ips: Some(vec![address]),
                ip_families: Some(vec!["IPv4".to_owned()]),
                ports: Some(vec![ServicePort {
                    name: Some("http".to_owned()),
                    protocol: Some("TCP".to_owned()),
                    port: 80,
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    fn slice(&self, slice: usize, endpoints: &[u32]) -> Object {
        let mut metadata = metadata(format!("{}-{slice}", self.name()));
        metadata.labels = Some([("kubernetes.io/service-name".to_owned(), self.name())].into());
        Object::EndpointSlice(Box::new(EndpointSlice {
            metadata,
            address_type: "IPv4".to_owned(),
            endpoints: Some(endpoints.iter().map(|number| endpoint(*number)).collect()),
            ports: Some(vec![EndpointPort {
                name: Some("http".to_owned()),
                protocol: Some("TCP".to_owned()),
                port: Some(8080),
                ..EndpointPort::default()
            }]),
        }))
    }
}

fn endpoint(number: u32) -> Endpoint {
    Endpoint {
        addresses: vec![nth(FIRST_ENDPOINT, number).to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        node_name: Some(format!("node-{}", number % NODES)),
        ..Endpoint::default()
    }
}

fn nth(first: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + number)
}

fn metadata(name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some("default".to_owned()),
        ..ObjectMeta::default()
    }
}
