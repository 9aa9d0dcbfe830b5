//! Services, EndpointSlices, Nodes and Pods of the cluster as Kubernetes objects: the one source for
//! manifests and API server.

use super::manifests::{Service, ServicePort};
use super::node::Node;
use super::pod::Pod;
use super::shape::Families;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

impl Service {
    /// The Service and one EndpointSlice per family, slices first.
    ///
    /// # Errors
    /// When a line of the spec is no YAML.
    pub fn objects(&self) -> Result<Vec<Value>> {
        let addresses = self.cluster_ips.iter();
        let mut objects: Vec<Value> = addresses.map(|address| slice(self, *address)).collect();
        objects.push(self.object()?);
        Ok(objects)
    }

    fn object(&self) -> Result<Value> {
        let mut spec: Map<String, Value> = match self.spec_lines.is_empty() {
            true => Map::new(),
            false => serde_saphyr::from_str(&self.spec_lines.join("\n"))
                .with_context(|| format!("lines of the spec of {}", self.name))?,
        };
        let is_node_port = self.ports.iter().any(|port| port.node_port.is_some());
        let kind = if is_node_port {
            "NodePort"
        } else {
            "ClusterIP"
        };
        let policy = match self.cluster_ips.len() {
            2 => "RequireDualStack",
            _ => "SingleStack",
        };
        let families: Vec<&str> = self.cluster_ips.iter().map(|ip| family(*ip)).collect();
        let ports: Vec<Value> = self.ports.iter().map(service_port).collect();
        if let Some(first) = self.cluster_ips.first() {
            spec.insert("clusterIP".to_owned(), first.to_string().into());
        }
        spec.extend([
            ("clusterIPs".to_owned(), json!(self.cluster_ips)),
            ("ipFamilies".to_owned(), json!(families)),
            ("ipFamilyPolicy".to_owned(), policy.into()),
            ("ports".to_owned(), ports.into()),
            ("selector".to_owned(), json!({"app": self.name})),
        ]);
        // A load balancer's has node ports, too.
        spec.entry("type").or_insert_with(|| kind.into());
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": spec,
        }))
    }
}

impl Node {
    /// The Node.
    #[must_use]
    pub fn object(&self) -> Value {
        let (name, plan) = (self.name(), self.plan());
        let families = self.shape().families;
        let own = self.addresses().into_iter();
        let own = own.filter(|address| families.has(*address));
        let mut addresses: Vec<Value> = own
            .map(|address| json!({"address": address, "type": "InternalIP"}))
            .collect();
        addresses.push(json!({"address": name, "type": "Hostname"}));
        let pods = match families {
            Families::Both => vec![plan.pod_cidr_v4(), plan.pod_cidr_v6()],
            Families::V4 => vec![plan.pod_cidr_v4()],
            Families::V6 => vec![plan.pod_cidr_v6()],
        };
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {"podCIDR": pods[0], "podCIDRs": pods},
            "status": {"addresses": addresses},
        })
    }
}

impl Pod {
    /// The Pod; `None` for what is outside of all nodes.
    #[must_use]
    pub fn object(&self) -> Option<Value> {
        let node = self.node()?;
        let addresses = self.addresses().into_iter();
        let addresses = addresses.filter(|address| self.families().has(*address));
        let addresses: Vec<IpAddr> = addresses.collect();
        let listed = addresses.iter().map(|address| json!({"ip": address}));
        Some(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name(), "namespace": "default"},
            "spec": {"nodeName": node, "containers": [{"name": "app", "image": "app"}]},
            "status": {
                "phase": "Running",
                "podIP": addresses.first(),
                "podIPs": listed.collect::<Vec<_>>(),
            },
        }))
    }
}

fn service_port(port: &ServicePort) -> Value {
    let mut value = json!({
        "name": port.name,
        "port": port.port,
        "protocol": port.protocol.to_string(),
        "targetPort": port.target_port,
    });
    if let Some(number) = port.node_port {
        value["nodePort"] = number.into();
    }
    value
}

fn slice(service: &Service, address: IpAddr) -> Value {
    let endpoints = service.pods.iter().map(|pod| endpoint(pod, address));
    let ports = service.ports.iter().map(|port| {
        json!({
            "name": port.name,
            "port": port.target_port,
            "protocol": port.protocol.to_string(),
        })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-{}", service.name, family(address).to_lowercase()),
            "namespace": "default",
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": service.name,
            },
        },
        "addressType": family(address),
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    })
}

fn endpoint(pod: &Pod, family_of: IpAddr) -> Value {
    let mut value = json!({
        "addresses": [pod.addresses()[usize::from(family_of.is_ipv6())]],
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "name": pod.name(), "namespace": "default"},
    });
    if let Some(node) = pod.node() {
        value["nodeName"] = node.into();
    }
    value
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
