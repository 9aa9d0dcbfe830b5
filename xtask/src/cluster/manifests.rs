//! The folder of manifests that the agents read: one YAML file per object, replaced atomically.

use super::node::Node;
use super::pod::Pod;
use super::shape::Families;
use anyhow::{Context, Result};
use std::fmt::{self, Write};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name of the port.
    pub name: String,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// Port of the Service's addresses.
    pub port: u16,
    /// Port of the pods.
    pub target_port: u16,
    /// Port of all nodes, if any.
    pub node_port: Option<u16>,
}

/// A Service and the pods behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name, in namespace `default`.
    pub name: String,
    /// Cluster addresses; their families are the Service's, and there is one EndpointSlice for each.
    pub cluster_ips: Vec<IpAddr>,
    /// Ports; the Service is of type NodePort if any has a node port.
    pub ports: Vec<ServicePort>,
    /// Pods that are ready.
    pub pods: Vec<Pod>,
    /// More lines of the spec, such as `externalTrafficPolicy: Local`.
    pub spec_lines: Vec<String>,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    pub(crate) fn create(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)
            .with_context(|| format!("can't create {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Where the files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the Service and one EndpointSlice per family, slices first.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write(&self, service: &Service) -> Result<()> {
        for address in &service.cluster_ips {
            let name = slice_name(&service.name, *address);
            self.replace(&format!("endpointslice-{name}"), &slice(service, *address))?;
        }
        self.replace(&format!("service-{}", service.name), &object(service))
    }

    /// Removes what [`Manifests::write`] wrote.
    ///
    /// # Errors
    /// When a file can't be removed.
    pub fn remove(&self, service: &Service) -> Result<()> {
        fs::remove_file(self.path(&format!("service-{}", service.name)))?;
        for address in &service.cluster_ips {
            let name = slice_name(&service.name, *address);
            fs::remove_file(self.path(&format!("endpointslice-{name}")))?;
        }
        Ok(())
    }

    /// Writes any object under a name of the caller's choice, replacing what had that name.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn replace(&self, name: &str, yaml: &str) -> Result<()> {
        // Readers must never see half a file; a name that starts with a dot is not a manifest.
        let draft = self.folder.join(format!(".{name}"));
        fs::write(&draft, yaml)?;
        fs::rename(&draft, self.path(name)).with_context(|| format!("can't write {name}"))
    }

    pub(crate) fn write_nodes(&self, nodes: &[Node]) -> Result<()> {
        nodes
            .iter()
            .try_for_each(|node| self.replace(&node.name(), &node_object(node)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yaml"))
    }
}

fn node_object(node: &Node) -> String {
    let (name, plan) = (node.name(), node.plan());
    let families = node.shape().families;
    let addresses = node.addresses().into_iter().filter(|it| families.has(*it));
    let addresses: String = addresses
        .map(|it| format!("  - address: \"{it}\"\n    type: InternalIP\n"))
        .collect();
    let pods = match families {
        Families::Both => vec![plan.pod_cidr_v4(), plan.pod_cidr_v6()],
        Families::V4 => vec![plan.pod_cidr_v4()],
        Families::V6 => vec![plan.pod_cidr_v6()],
    };
    let first = &pods[0];
    let pods: String = pods.iter().map(|it| format!("  - {it}\n")).collect();
    format!(
        "apiVersion: v1
kind: Node
metadata:
  labels:
    kubernetes.io/hostname: {name}
  name: {name}
spec:
  podCIDR: {first}
  podCIDRs:
{pods}status:
  addresses:
{addresses}  - address: {name}
    type: Hostname
"
    )
}

fn object(service: &Service) -> String {
    let name = &service.name;
    let kind = match service.ports.iter().any(|port| port.node_port.is_some()) {
        true => "NodePort",
        false => "ClusterIP",
    };
    let mut yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n"
    );
    for line in &service.spec_lines {
        let _ = writeln!(yaml, "  {line}");
    }
    if let Some(first) = service.cluster_ips.first() {
        let _ = writeln!(yaml, "  clusterIP: \"{first}\"");
    }
    yaml += "  clusterIPs:\n";
    for address in &service.cluster_ips {
        let _ = writeln!(yaml, "  - \"{address}\"");
    }
    yaml += "  ipFamilies:\n";
    for address in &service.cluster_ips {
        let _ = writeln!(yaml, "  - {}", family(*address));
    }
    let policy = match service.cluster_ips.len() {
        2 => "RequireDualStack",
        _ => "SingleStack",
    };
    let _ = writeln!(yaml, "  ipFamilyPolicy: {policy}\n  ports:");
    service
        .ports
        .iter()
        .for_each(|port| yaml += &service_port(port));
    let _ = writeln!(yaml, "  selector:\n    app: {name}\n  type: {kind}");
    yaml
}

fn service_port(port: &ServicePort) -> String {
    let node_port = port
        .node_port
        .map_or_else(String::new, |number| format!("    nodePort: {number}\n"));
    format!(
        "  - name: {}\n{node_port}    port: {}\n    protocol: {}\n    targetPort: {}\n",
        port.name, port.port, port.protocol, port.target_port
    )
}

fn slice(service: &Service, address: IpAddr) -> String {
    let name = slice_name(&service.name, address);
    let mut yaml = format!(
        "addressType: {}\napiVersion: discovery.k8s.io/v1\nendpoints:\n",
        family(address)
    );
    if service.pods.is_empty() {
        yaml = yaml.replace("endpoints:\n", "endpoints: []\n");
    }
    service
        .pods
        .iter()
        .for_each(|pod| yaml += &endpoint(pod, address));
    let _ = write!(
        yaml,
        "kind: EndpointSlice
metadata:
  labels:
    endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
    kubernetes.io/service-name: {service}
  name: {name}
  namespace: default
ports:
",
        service = service.name
    );
    for port in &service.ports {
        let _ = writeln!(
            yaml,
            "- name: {}\n  port: {}\n  protocol: {}",
            port.name, port.target_port, port.protocol
        );
    }
    yaml
}

fn endpoint(pod: &Pod, family_of: IpAddr) -> String {
    let address = pod.addresses()[usize::from(family_of.is_ipv6())];
    let node = pod
        .node()
        .map_or_else(String::new, |node| format!("  nodeName: {node}\n"));
    format!(
        "- addresses:
  - \"{address}\"
  conditions:
    ready: true
    serving: true
    terminating: false
{node}  targetRef:
    kind: Pod
    name: {}
    namespace: default
",
        pod.name()
    )
}

fn slice_name(service: &str, address: IpAddr) -> String {
    format!("{service}-{}", family(address).to_lowercase())
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
