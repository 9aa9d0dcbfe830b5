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
    /// Ports; the Service is of type NodePort if any has a node port, unless a line of the spec has the type.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        let pod = Pod::outside(
            "web",
            crate::cluster::Namespace::named("none"),
            [192, 0, 2, 1].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
        );
        Service {
            name: "web".to_owned(),
            cluster_ips: vec![
                [10, 96, 0, 10].into(),
                [0xfd00, 0, 0, 0, 0, 0, 0, 0xa].into(),
            ],
            ports: vec![ServicePort {
                name: "80".to_owned(),
                protocol: Protocol::Tcp,
                port: 80,
                target_port: 8080,
                node_port: Some(30080),
            }],
            pods: vec![pod],
            spec_lines: vec!["externalTrafficPolicy: Local".to_owned()],
        }
    }

    #[test]
    fn manifests_say_what_the_objects_are() {
        let folder = format!("ferrule-manifests-{}", std::process::id());
        let manifests = Manifests::create(std::env::temp_dir().join(folder)).unwrap();
        let service = service();
        manifests.write(&service).unwrap();
        let objects = service.objects().unwrap();
        assert_eq!(objects[2]["spec"]["externalTrafficPolicy"], "Local");
        assert_eq!(objects[2]["spec"]["clusterIP"], "10.96.0.10");
        assert_eq!(objects[1]["endpoints"][0]["addresses"][0], "2001:db8::1");
        for object in objects {
            let text = fs::read_to_string(manifests.path(&file_name(&object))).unwrap();
            let read: Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(read, object, "{text}");
        }
        manifests.remove(&service).unwrap();
        assert_eq!(fs::read_dir(manifests.folder()).unwrap().count(), 0);
        fs::remove_dir(manifests.folder()).unwrap();
    }
}
