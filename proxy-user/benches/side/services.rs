//! The Services of all contestants: the same addresses, and the same endpoints behind them.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::Ipv4Addr;

/// Port of all Services, TCP and UDP.
pub(crate) const PORT: u16 = 80;
/// The first of the ports on which the server listens; Services take turns.
pub(crate) const FIRST_PORT: u16 = 8000;
/// So many of them: flows through many Services to few endpoints would clash as they do nowhere else.
pub(crate) const PORTS: u16 = 100;
/// So many Services are dialled.
pub(crate) const DIALLED: u32 = 1_000;
/// Address of the first Service, the others follow.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// A number of Services with one endpoint for each of their two ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Services {
    /// How many.
    pub(crate) count: u32,
    /// Where all endpoints are.
    pub(crate) server: Ipv4Addr,
}

impl Services {
    /// What is dialled for one.
    pub(crate) fn address(number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST.to_bits() + number)
    }

    /// Where its endpoint listens.
    pub(crate) fn target(number: u32) -> u16 {
        FIRST_PORT + (number % u32::from(PORTS)) as u16
    }

    /// Its name.
    pub(crate) fn name(number: u32) -> String {
        format!("svc-{number}")
    }

    /// All of them.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u32> {
        0..self.count
    }

    /// Those that are dialled, in no order, some twice; the same for all contestants.
    pub(crate) fn dialled(self) -> Vec<u32> {
        // A multiplicative generator (Park and Miller).
        let mut state = 48_271_u64;
        let mut next = || {
            state = state * 48_271 % 2_147_483_647;
            state as u32 % self.count
        };
        (0..DIALLED.min(self.count)).map(|_| next()).collect()
    }

    /// Its object.
    pub(crate) fn service(number: u32) -> Service {
        let port = |protocol: &str| ServicePort {
            name: Some(protocol.to_lowercase()),
            protocol: Some(protocol.to_owned()),
            port: PORT.into(),
            target_port: Some(IntOrString::Int(Self::target(number).into())),
            ..ServicePort::default()
        };
        let address = Self::address(number).to_string();
        Service {
            metadata: metadata(&Self::name(number)),
            spec: Some(ServiceSpec {
                cluster_ip: Some(address.clone()),
                cluster_ips: Some(vec![address]),
                ip_families: Some(vec!["IPv4".to_owned()]),
                ports: Some(vec![port("TCP"), port("UDP")]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    /// The slice with its endpoints.
    pub(crate) fn slice(number: u32, endpoints: &[Ipv4Addr]) -> EndpointSlice {
        let port = |protocol: &str| EndpointPort {
            name: Some(protocol.to_lowercase()),
            protocol: Some(protocol.to_owned()),
            port: Some(Self::target(number).into()),
            ..EndpointPort::default()
        };
        let endpoints = endpoints.iter().map(|address| Endpoint {
            addresses: vec![address.to_string()],
            node_name: Some("node2".to_owned()),
            ..Endpoint::default()
        });
        let name = Self::name(number);
        let mut metadata = metadata(&format!("{name}-v4"));
        metadata.labels = Some([("kubernetes.io/service-name".to_owned(), name)].into());
        EndpointSlice {
            metadata,
            address_type: "IPv4".to_owned(),
            endpoints: Some(endpoints.collect()),
            ports: Some(vec![port("TCP"), port("UDP")]),
        }
    }
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("default".to_owned()),
        ..ObjectMeta::default()
    }
}
