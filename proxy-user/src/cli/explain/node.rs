//! The node that manifests are seen from.

use super::MANIFESTS;
use crate::cluster::Cidr;
use crate::config::one_of_each_family;
use crate::explain::{Facts, Offline};
use crate::frontend::{DetectLocal, NodePortAddresses};
use crate::source::{Event, Kind, Object, manifests};
use crate::sync::Followed;
use anyhow::{Context as _, Result, bail};
use clap::{ArgAction, Args};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

/// What is known of it besides its object, as flags of the agent say it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = MANIFESTS)]
pub struct NodeFlags {
    /// Name of this node's object. [default: that of the only Node in the folder, else the host's name]
    #[arg(
        long,
        visible_alias = "node-name",
        value_name = "NAME",
        requires = "manifests"
    )]
    pub hostname_override: Option<String>,
    /// An address of this node, besides those of its object; may be repeated. The first of each family is its primary
    /// one.
    #[arg(long, value_name = "IP", requires = "manifests")]
    pub node_address: Vec<IpAddr>,
    /// Where the pods' addresses come from, at most one range of each family.
    #[arg(
        long,
        value_name = "CIDR,..",
        value_delimiter = ',',
        requires = "manifests"
    )]
    pub cluster_cidr: Vec<Cidr>,
    /// How packets of pods are told from others: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.
    #[arg(long, value_name = "MODE", requires = "manifests")]
    pub detect_local_mode: Option<String>,
    /// The pods' bridge, for --detect-local-mode BridgeInterface.
    #[arg(long, value_name = "DEV", requires = "manifests")]
    pub pod_bridge_interface: Option<String>,
    /// How the names of the pods' devices start, for --detect-local-mode InterfaceNamePrefix.
    #[arg(long, value_name = "PREFIX", requires = "manifests")]
    pub pod_interface_name_prefix: Option<String>,
    /// On which of the node's addresses NodePorts are served. [default: primary]
    #[arg(
        long,
        value_name = "CIDR|primary|localhost|all,..",
        requires = "manifests"
    )]
    pub nodeport_addresses: Option<NodePortAddresses>,
    /// NodePorts answer on 127.0.0.1 and ::1 too, for processes of the node.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", requires = "manifests")]
    pub localhost_nodeports: Option<bool>,
    /// Mask all flows to ClusterIPs, those of pods too.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", requires = "manifests")]
    pub masquerade_all: Option<bool>,
    /// Mask clients of backends of this node, too, wherever kube-proxy does.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", requires = "manifests")]
    pub masquerade_local_backends: Option<bool>,
    /// Serve Services on their externalIPs. [default: true]
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", requires = "manifests")]
    pub allow_service_external_ips: Option<bool>,
}

impl NodeFlags {
    /// Reads a folder as the agent of this node would; says on standard error what can't be used.
    ///
    /// # Errors
    /// The folder can't be read; the node's name can't be told; flags contradict each other.
    pub(super) fn read(&self, folder: &Path) -> Result<Offline> {
        let events = manifests::read(folder);
        let events = events.with_context(|| format!("reading {}", folder.display()))?;
        let mut objects = Vec::new();
        for event in events {
            match event {
                Event::Apply(object) => objects.push(object),
                Event::Problems { problems, .. } => problems.iter().for_each(|it| note(it)),
                Event::Delete(_) | Event::Synced => {}
            }
        }
        let offline = Offline::new(&self.facts(&objects)?, objects)?;
        offline.skipped().iter().for_each(|it| note(it));
        Ok(offline)
    }

    fn facts(&self, objects: &[Object]) -> Result<Facts> {
        one_of_each_family(&self.cluster_cidr)?;
        Ok(Facts {
            node_name: self.node_name(objects)?,
            node_addresses: self.node_address.clone(),
            followed: Followed {
                cluster_cidrs: self.cluster_cidr.clone(),
                node_ports: self.nodeport_addresses.clone().unwrap_or_default(),
                detect_local: self.detect_local()?,
                masquerade_all: self.masquerade_all.unwrap_or_default(),
                masquerade_local_backends: self.masquerade_local_backends.unwrap_or_default(),
                external_ips: self.allow_service_external_ips.unwrap_or(true),
            },
            localhost_node_ports: self.localhost_nodeports.unwrap_or_default(),
        })
    }

    fn detect_local(&self) -> Result<DetectLocal> {
        let text = |flag: &Option<String>| flag.clone().unwrap_or_default();
        let mode = text(&self.detect_local_mode);
        let (bridge, prefix) = (&self.pod_bridge_interface, &self.pod_interface_name_prefix);
        DetectLocal::of(mode.trim(), &text(bridge), &text(prefix)).context("--detect-local-mode")
    }

    fn node_name(&self, objects: &[Object]) -> Result<String> {
        if let Some(name) = &self.hostname_override {
            return Ok(name.trim().to_lowercase());
        }
        let nodes = objects.iter().filter(|object| object.kind() == Kind::Node);
        let names: BTreeSet<String> = nodes.map(|object| object.key().name).collect();
        match (names.len(), names.into_iter().next()) {
            (1, Some(name)) => Ok(name),
            (0, _) => {
                let path = "/proc/sys/kernel/hostname";
                let name = std::fs::read_to_string(path).context("reading the host name")?;
                Ok(name.trim().to_lowercase())
            }
            _ => bail!("the folder has several Nodes: say which this is by --hostname-override"),
        }
    }
}

fn note(problem: &str) {
    eprintln!("ferrule: {problem}");
}
