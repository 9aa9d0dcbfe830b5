//! The folder of manifests that the agents read: one YAML file per object, replaced atomically.

use super::node::Node;
use super::pod::Pod;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt;
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
        let objects = service.objects()?;
        objects
            .iter()
            .try_for_each(|object| self.write_object(object))
    }

    /// Removes what [`Manifests::write`] wrote.
    ///
    /// # Errors
    /// When a file can't be removed.
    pub fn remove(&self, service: &Service) -> Result<()> {
        // The Service goes first.
        for object in service.objects()?.iter().rev() {
            fs::remove_file(self.path(&file_name(object)))?;
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
        let mut nodes = nodes.iter();
        nodes.try_for_each(|node| self.replace(&node.name(), &yaml(&node.object())?))
    }

    fn write_object(&self, object: &Value) -> Result<()> {
        self.replace(&file_name(object), &yaml(object)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yaml"))
    }
}

/// `service-web`: the name of an object's file.
fn file_name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]).to_lowercase();
    format!("{kind}-{}", text(&object["metadata"]["name"]))
}

fn yaml(object: &Value) -> Result<String> {
    serde_saphyr::to_string(object).context("an object can't be written as YAML")
}
