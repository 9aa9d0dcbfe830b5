//! Cases of what kube-proxy makes of objects, and the objects as the agent sees them.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proxy_user::cluster::{Cluster, Endpoint, IpFamily, ServiceName, ServiceView};
use proxy_user::frontend::{NodeContext, ServicePort, service_ports};
use proxy_user::source::Object;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// One of the objects in the files.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Case {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) node: NodeFacts,
    #[serde(default)]
    pub(crate) services: Vec<Service>,
    #[serde(default, rename = "endpointslices")]
    pub(crate) slices: Vec<EndpointSlice>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) previous: Vec<Option<EndpointSlice>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) current: Vec<Option<EndpointSlice>>,
    /// Of flows.
    #[serde(default)]
    pub(crate) before: Vec<Flow>,
    #[serde(default)]
    pub(crate) after: Vec<Flow>,
    #[serde(default)]
    pub(crate) node_port_addresses: Vec<String>,
    #[serde(default)]
    pub(crate) interfaces: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(crate) expect: Value,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeFacts {
    #[serde(default)]
    pub(crate) node_name: String,
    #[serde(default)]
    ip_family: Option<String>,
    #[serde(default)]
    node_labels: BTreeMap<String, String>,
}

/// A row of netfilter's connection tracking.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Flow {
    pub(crate) protocol: String,
    /// Empty: any address of the node.
    pub(crate) orig_dst: String,
    pub(crate) orig_dst_port: u16,
    pub(crate) reply_src: String,
    pub(crate) reply_src_port: u16,
}

impl Case {
    /// All of a kind.
    pub(crate) fn of_kind(file: &str, kind: &str) -> Vec<Self> {
        let cases = read(file).into_iter().filter(|case| case["kind"] == kind);
        let cases = cases.map(|case| serde_json::from_value(case).unwrap());
        cases.collect()
    }

    pub(crate) fn family(&self) -> IpFamily {
        match self.node.ip_family.as_deref() {
            Some("IPv6") => IpFamily::V6,
            _ => IpFamily::V4,
        }
    }

    /// The mirror of the node and the case's Services, without their endpoints.
    pub(crate) fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::new(&self.node.node_name);
        let mut node = Node::default();
        node.metadata.name = Some(self.node.node_name.clone());
        node.metadata.labels = Some(self.node.node_labels.clone());
        cluster.apply(&Object::Node(Box::new(node)));
        for service in &self.services {
            cluster.apply(&Object::Service(Box::new(service.clone())));
        }
        cluster
    }

    /// The mirror of all of the case's objects.
    pub(crate) fn full_cluster(&self) -> Cluster {
        let mut cluster = self.cluster();
        for slice in &self.slices {
            put(&mut cluster, slice);
        }
        cluster
    }

    /// The service ports of the only Service, in the case's family.
    pub(crate) fn service_ports(&self) -> Vec<ServicePort> {
        let cluster = self.full_cluster();
        let view = views(&cluster).pop().unwrap();
        let mut ports = service_ports(&view, &node());
        ports.retain(|port| port.family == self.family());
        ports
    }

    /// Services that have all ports of these slices: kube-proxy's tests go without.
    pub(crate) fn services_of<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<Service> {
        let mut ports: BTreeMap<(String, String), BTreeSet<(String, String)>> = BTreeMap::new();
        for slice in slices {
            let namespace = slice.metadata.namespace.clone().unwrap();
            let labels = slice.metadata.labels.as_ref().unwrap();
            let service = labels["kubernetes.io/service-name"].clone();
            let of_slice = slice.ports.iter().flatten();
            let of_slice = of_slice.map(|port| {
                let protocol = port.protocol.clone().unwrap();
                (port.name.clone().unwrap_or_default(), protocol)
            });
            ports
                .entry((namespace, service))
                .or_default()
                .extend(of_slice);
        }
        ports.into_iter().map(service).collect()
    }
}

fn service(((namespace, name), ports): ((String, String), BTreeSet<(String, String)>)) -> Service {
    let ports = ports.iter().zip(1..).map(|((name, protocol), port)| {
        serde_json::json!({ "name": name, "protocol": protocol, "port": port })
    });
    serde_json::from_value(serde_json::json!({
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "clusterIP": "10.96.0.1", "ports": ports.collect::<Vec<_>>() },
    }))
    .unwrap()
}

/// All cases of a file.
pub(crate) fn read(file: &str) -> Vec<Value> {
    // A virtual machine has them elsewhere than where the test was built.
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let path = Path::new(&package).join("tests/conformance").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Some lists are null.
fn or_empty<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A node that serves NodePorts in both families.
pub(crate) fn node() -> NodeContext {
    NodeContext {
        node_port_addresses: ["192.0.2.254", "2001:db8::254"]
            .map(|ip| ip.parse().unwrap())
            .into(),
        external_ips: true,
        ..NodeContext::default()
    }
}

/// Applies a slice; returns which Services that changes.
pub(crate) fn put(cluster: &mut Cluster, slice: &EndpointSlice) -> Vec<ServiceName> {
    let object = Object::EndpointSlice(Box::new(slice.clone()));
    cluster.apply(&object).services
}

/// All Services, by name.
pub(crate) fn views(cluster: &Cluster) -> Vec<ServiceView> {
    let names: BTreeSet<&ServiceName> = cluster.names().collect();
    let views = names.into_iter().map(|name| cluster.view(name).unwrap());
    views.collect()
}

/// The endpoints of all ports that have any in this family, as the files have them.
pub(crate) fn endpoints(cluster: &Cluster, family: IpFamily) -> Value {
    let mut all = serde_json::Map::new();
    for view in views(cluster) {
        for port in &view.ports {
            let endpoints = port.endpoints.iter();
            let mut endpoints: Vec<&Endpoint> = endpoints
                .filter(|it| IpFamily::of(it.address) == family)
                .collect();
            // By their texts, as kube-proxy sorts them.
            endpoints.sort_by_key(|it| at(it.address, it.port));
            if !endpoints.is_empty() {
                let name = format!("{}:{}/{}", view.name, port.name, port.protocol.name());
                all.insert(name, endpoints.into_iter().map(endpoint).collect());
            }
        }
    }
    Value::Object(all)
}

fn endpoint(endpoint: &Endpoint) -> Value {
    serde_json::json!({
        "endpoint": at(endpoint.address, endpoint.port),
        "isLocal": endpoint.local,
        "ready": endpoint.ready,
        "serving": endpoint.serving,
        "terminating": endpoint.terminating,
    })
}

/// Address and port, as the files have them.
pub(crate) fn at(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}
