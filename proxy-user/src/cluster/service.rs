//! What of a Service object can be dialled.

use super::outside::{Outside, outside};
use super::{IpFamily, PortView, Protocol, Skipped, Why, address};
use crate::source::ObjectKey;
use crate::source::annotations::CLOSE_TCP;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use std::net::IpAddr;
use std::time::Duration;

const FOREIGN_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// How long a client is remembered at most, and unless the Service says otherwise, in seconds: as the API has it.
const AFFINITY_LIMIT: i32 = 86_400;
const AFFINITY_DEFAULT: i32 = 10_800;

/// A Service that a proxy serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exposed {
    /// At most one per family.
    pub(super) cluster_ips: Vec<IpAddr>,
    /// Without endpoints.
    pub(super) ports: Vec<PortView>,
    pub(super) outside: Outside,
    pub(super) affinity: Option<Duration>,
    pub(super) closes_tcp: bool,
    pub(super) stays_local: StaysLocal,
    pub(super) health_check: Option<HealthCheckPort>,
    pub(super) skipped: Vec<Skipped>,
}

/// Whose connections are for endpoints on the node alone that they reach: the traffic policies that are `Local`.
///
/// That of clients outside counts only for Services that are meant for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StaysLocal {
    /// Those of clients inside of the cluster.
    pub internal: bool,
    /// Those of clients outside.
    pub external: bool,
}

/// The port at which load balancers ask every node whether it has endpoints of the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckPort {
    /// Its number.
    pub number: u16,
    /// `metadata.uid` of the Service, by which Events find it; empty where objects have none.
    pub uid: Box<str>,
}

/// Reads a Service; `None` if it is none of a proxy's business.
pub(super) fn exposed(key: &ObjectKey, service: &Service) -> Option<Exposed> {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    if is_ignored(service, spec) {
        return None;
    }
    let mut skipped = Vec::new();
    let mut skip = |field: String, why| skipped.push(Skipped::new(key, field, why));
    let cluster_ips = cluster_ips(spec, &mut skip);
    let ports = ports(spec, &mut skip);
    let outside = outside(service, spec, &mut skip);
    let affinity = affinity(spec, &mut skip);
    let stays_local = stays_local(spec, &mut skip);
    let closes_tcp = closes_tcp(service).unwrap_or_else(|why| {
        skip(format!("metadata.annotations[{CLOSE_TCP}]"), why);
        false
    });
    let health_check = health_check(service, spec, stays_local).unwrap_or_else(|why| {
        skip("spec.healthCheckNodePort".to_owned(), why);
        None
    });
    Some(Exposed {
        cluster_ips,
        ports,
        outside,
        affinity,
        closes_tcp,
        stays_local,
        health_check,
        skipped,
    })
}

fn stays_local(spec: &ServiceSpec, skip: &mut impl FnMut(String, Why)) -> StaysLocal {
    let mut is_local = |field: &str, policy: &Option<String>| {
        let local = is_second(policy.as_deref(), ["Cluster", "Local"], "Cluster, Local");
        local.unwrap_or_else(|why| {
            skip(format!("spec.{field}"), why);
            false
        })
    };
    let internal = is_local("internalTrafficPolicy", &spec.internal_traffic_policy);
    let external = is_local("externalTrafficPolicy", &spec.external_traffic_policy);
    let is_meant_for_outside = is_meant_for_outside(spec).unwrap_or_else(|why| {
        skip("spec.type".to_owned(), why);
        false
    });
    StaysLocal {
        internal,
        external: external && is_meant_for_outside,
    }
}

fn is_meant_for_outside(spec: &ServiceSpec) -> Result<bool, Why> {
    match spec.type_.as_deref() {
        Some("NodePort" | "LoadBalancer") => Ok(true),
        None | Some("" | "ClusterIP") => Ok(spec.external_ips.iter().flatten().next().is_some()),
        Some(other) => Err(Why::UnknownValue {
            value: other.to_owned(),
            known: "ClusterIP, NodePort, LoadBalancer, ExternalName",
        }),
    }
}

/// How long a client's connections lead to the same endpoint.
fn affinity(spec: &ServiceSpec, skip: &mut impl FnMut(String, Why)) -> Option<Duration> {
    let affinity = spec.session_affinity.as_deref();
    let wanted = is_second(affinity, ["None", "ClientIP"], "None, ClientIP");
    let wanted = wanted.unwrap_or_else(|why| {
        skip("spec.sessionAffinity".to_owned(), why);
        false
    });
    let config = spec.session_affinity_config.as_ref();
    let client = config.and_then(|config| config.client_ip.as_ref());
    let seconds = match client.and_then(|client| client.timeout_seconds) {
        None => AFFINITY_DEFAULT,
        Some(seconds @ 1..=AFFINITY_LIMIT) => seconds,
        Some(seconds) => {
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            skip(field.to_owned(), Why::TimeoutOutOfRange(seconds));
            AFFINITY_DEFAULT
        }
    };
    wanted.then(|| Duration::from_secs(seconds.unsigned_abs().into()))
}

/// Which of two words a field holds; the first one, if it is absent or empty.
fn is_second(value: Option<&str>, words: [&str; 2], known: &'static str) -> Result<bool, Why> {
    match value {
        None | Some("") => Ok(false),
        Some(value) if words.contains(&value) => Ok(value == words[1]),
        Some(value) => Err(Why::UnknownValue {
            value: value.to_owned(),
            known,
        }),
    }
}

/// Only a load balancer whose connections stay on the node that they reach has to know where endpoints are.
fn health_check(
    service: &Service,
    spec: &ServiceSpec,
    stays_local: StaysLocal,
) -> Result<Option<HealthCheckPort>, Why> {
    let is_balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let number = spec.health_check_node_port.unwrap_or_default();
    // 0 is how the API server writes "none".
    if number == 0 || !is_balanced || !stays_local.external {
        return Ok(None);
    }
    Ok(Some(HealthCheckPort {
        number: address::port(number)?,
        uid: service.metadata.uid.clone().unwrap_or_default().into(),
    }))
}

fn is_ignored(service: &Service, spec: &ServiceSpec) -> bool {
    let labels = service.metadata.labels.as_ref();
    let foreign = labels.is_some_and(|labels| labels.contains_key(FOREIGN_PROXY_LABEL));
    let external_name = spec.type_.as_deref() == Some("ExternalName");
    let first = spec.cluster_ips.iter().flatten().next();
    let mut addresses = spec.cluster_ip.iter().chain(first);
    foreign || external_name || addresses.any(|text| text == "None")
}

fn closes_tcp(service: &Service) -> Result<bool, Why> {
    let annotations = service.metadata.annotations.iter().flatten();
    let mut values = annotations.filter(|(name, _)| *name == CLOSE_TCP);
    match values.next() {
        None => Ok(false),
        Some((_, value)) => value.parse().map_err(|_| Why::NotABool(value.clone())),
    }
}

/// One address per family in `ipFamilies`, paired by index.
fn cluster_ips(spec: &ServiceSpec, skip: &mut impl FnMut(String, Why)) -> Vec<IpAddr> {
    let listed = listed_cluster_ips(spec);
    if listed.is_empty() {
        skip("spec.clusterIP".to_owned(), Why::Missing);
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let mut usable: Vec<IpAddr> = Vec::new();
    for (index, (field, text)) in listed.into_iter().enumerate() {
        match cluster_ip(text, families.get(index).map(String::as_str)) {
            Ok(address) if usable.iter().any(|other| same_family(*other, address)) => {
                skip(field, Why::SecondOfFamily(address));
            }
            Ok(address) => usable.push(address),
            Err(why) => skip(field, why),
        }
    }
    usable
}

/// With the fields they are in. `clusterIP` counts only where `clusterIPs` is not filled in.
fn listed_cluster_ips(spec: &ServiceSpec) -> Vec<(String, &str)> {
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let listed = listed.iter().enumerate();
    let listed = listed.map(|(index, text)| (format!("spec.clusterIPs[{index}]"), text.as_str()));
    let mut listed: Vec<_> = listed.collect();
    if listed.is_empty() {
        let single = spec.cluster_ip.as_deref().filter(|text| !text.is_empty());
        listed.extend(single.map(|text| ("spec.clusterIP".to_owned(), text)));
    }
    listed
}

fn cluster_ip(text: &str, family: Option<&str>) -> Result<IpAddr, Why> {
    let family = match family {
        Some(name) => IpFamily::from_name(name).ok_or_else(|| Why::NotAFamily(name.to_owned()))?,
        None => IpFamily::of(address::parse(text)?),
    };
    address::parse_usable(text, family)
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    IpFamily::of(a) == IpFamily::of(b)
}

fn ports(spec: &ServiceSpec, skip: &mut impl FnMut(String, Why)) -> Vec<PortView> {
    let mut ports: Vec<PortView> = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        match port_view(port) {
            Ok(view) if ports.iter().any(|other| other.is_same(&view)) => {
                skip(
                    format!("spec.ports[{index}].name"),
                    Why::NameTaken(view.name),
                );
            }
            Ok(mut view) => {
                view.node_port = node_port(port).unwrap_or_else(|why| {
                    skip(format!("spec.ports[{index}].nodePort"), why);
                    None
                });
                ports.push(view);
            }
            Err((field, why)) => skip(format!("spec.ports[{index}].{field}"), why),
        }
    }
    if ports.is_empty() {
        skip("spec.ports".to_owned(), Why::NoUsablePort);
    }
    ports
}

fn port_view(port: &ServicePort) -> Result<PortView, (&'static str, Why)> {
    Ok(PortView {
        name: port.name.clone().unwrap_or_default(),
        protocol: Protocol::from_name(port.protocol.as_deref()).map_err(|why| ("protocol", why))?,
        port: address::port(port.port).map_err(|why| ("port", why))?,
        node_port: None,
        endpoints: Vec::new(),
    })
}

impl PortView {
    /// Whether endpoints can't tell the two apart.
    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.protocol == other.protocol
    }
}

/// 0 is how the API server writes "none".
fn node_port(port: &ServicePort) -> Result<Option<u16>, Why> {
    match port.node_port {
        None | Some(0) => Ok(None),
        Some(number) => address::port(number).map(Some),
    }
}
