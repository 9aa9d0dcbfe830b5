//! Flags to settings. Names are kube-proxy's where it has the flag.

mod conntrack;
mod empty;
mod environment;
mod file;
mod gates;
mod given;
mod go_duration;
mod kube_proxy;
mod listen;
mod load;
mod meaning;
mod ports;
mod schema;
mod settings;
mod source;
mod timeouts;

pub use conntrack::ConntrackFlags;
pub use empty::without_empty;
pub use environment::with_environment;
pub use file::{FieldReport, File, Wrong};
pub use gates::FeatureGates;
pub use given::Given;
pub use kube_proxy::{KubeProxyFlags, ProxyMode};
pub use listen::{Listen, ListenFlags};
pub use load::Loaded;
pub use ports::{NODE_PORTS, default_snat_ports, port_range};
pub use source::{ApiServer, SourceFlags};
pub use timeouts::TimeoutFlags;

use crate::cluster::Cidr;
use crate::datapath::attach::Method;
use crate::datapath::devices::DeviceNames;
use crate::datapath::features::Features;
use crate::datapath::object::Sizes;
use crate::datapath::sysctl::{Conntrack, processors};
use crate::flows::Timeouts;
use crate::frontend::{DetectLocal, NotAMode};
use crate::sync::Followed;
use anyhow::{Context as _, Result, anyhow, bail};
use clap::{ArgAction, Args, ValueEnum};
use ports::{ephemeral_ports, overlaps};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// Rows in each of the two flow tables where nobody says otherwise: room for what kube-proxy lets netfilter
/// track at least, in both families together, and for all maps in 100 MB.
pub const MAX_FLOWS: u32 = 131_072;

/// Rows in each of the two tables of backends where nobody says otherwise.
pub const MAX_BACKENDS: u32 = 262_144;
/// There are not many more words in the lists of backends.
const MOST_BACKENDS: i64 = 2_097_152;

/// Where things are on this node.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Mount of bpffs; maps and links are pinned in its folder `ferrule`.
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// Folder of the agent's socket and lock, readable by its owner only.
    #[arg(long, value_name = "PATH", default_value = "/run/ferrule")]
    pub run_dir: PathBuf,
}

/// Flags of `ferrule run`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  ferrule run --api-servers 192.0.2.10,192.0.2.11
  ferrule run --kubeconfig /etc/ferrule/kubeconfig --cluster-cidr 10.244.0.0/16
  ferrule run --manifests /etc/ferrule/manifests --hostname-override node-1
  ferrule run --manifests ./objects --cluster-cidr 10.244.0.0/16,fd00:10:244::/48")]
pub struct Run {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the type is documented")]
    pub given: Given,
    /// kube-proxy's configuration file (KubeProxyConfiguration, v1alpha1). Its fields count instead of flags of the
    /// same meaning; it is watched.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub source: SourceFlags,
    /// Name of this node's object; the host's name if not given.
    #[arg(
        long,
        visible_alias = "node-name",
        value_name = "NAME",
        env = "NODE_NAME"
    )]
    pub hostname_override: Option<String>,
    /// The address of this node in its family, instead of the one in its object.
    #[arg(long, value_name = "IP")]
    pub bind_address: Option<IpAddr>,
    /// Where the pods' addresses come from, at most one range of each family. Clients from elsewhere
    /// are masked on their way to another node.
    #[arg(long, value_name = "CIDR,..", value_delimiter = ',', action = ArgAction::Set, num_args = 1)]
    pub cluster_cidr: Vec<Cidr>,
    /// Mask clients of backends of this node, too, wherever kube-proxy does. Otherwise such backends see their
    /// clients' addresses, because answers come back through this node anyway.
    #[arg(long)]
    pub masquerade_local_backends: bool,
    /// Serve Services on their externalIPs, whoever has these addresses. [default: true, or what the feature gate
    /// AllowServiceExternalIPs says]
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub allow_service_external_ips: Option<bool>,
    /// Whose sockets get a backend when they connect or send: then packets need no translation.
    #[arg(long, value_enum, value_name = "WHOSE", default_value = "full")]
    pub socket_lb: SocketLb,
    /// The cgroup (v2) whose processes are this node's clients; found by itself if not given.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// NodePorts answer on 127.0.0.1 and ::1 too, for processes in the node's network namespace. It takes
    /// --socket-lb.
    #[arg(long)]
    pub localhost_nodeports: bool,
    /// Close TCP connections of sockets whose backend is gone. Those of datagram sockets always are; the
    /// annotation ferrule.dev/close-tcp does it for one Service. It takes --socket-lb.
    #[arg(long)]
    pub close_tcp: bool,
    /// Refuse bind(2) to a NodePort in the node's network namespace. It takes --socket-lb.
    #[arg(long)]
    pub bind_protection: bool,
    /// How programs are attached to devices.
    #[arg(long, value_enum, default_value = "auto")]
    pub attach: Attach,
    /// Devices between which Service traffic passes the node's stack by, and with it the firewall, the policies and
    /// the accounting of others: names, or their starts with a * behind. It needs --cluster-cidr.
    #[arg(long, value_name = "off|DEV,..", default_value = "off")]
    pub fast_lane: DeviceNames,
    /// Rows in each of the two flow tables; a connection needs two, or four when it is masked.
    #[arg(long, value_name = "N", default_value_t = Sizes::DEFAULT.max_flows, value_parser = clap::value_parser!(u32).range(1024..))]
    pub max_flows: u32,
    /// Rows in each of the two tables of backends: an endpoint takes one for each port of its Service.
    #[arg(long, value_name = "N", default_value_t = Sizes::DEFAULT.max_backends, value_parser = clap::value_parser!(u32).range(1024..=MOST_BACKENDS))]
    pub max_backends: u32,
    /// Clients of Services with session affinity that are remembered, one for each port of a Service; those that
    /// were not seen for the longest time go first.
    #[arg(long, value_name = "N", default_value_t = Sizes::DEFAULT.max_affinities, value_parser = clap::value_parser!(u32).range(1024..))]
    pub max_affinities: u32,
    /// Source ports of masked flows, as MIN-MAX; the widest range beside the ephemeral ports and
    /// the NodePorts if not given.
    #[arg(long, value_name = "MIN-MAX", value_parser = port_range)]
    pub snat_ports: Option<RangeInclusive<u16>>,
    /// Log what becomes of every packet. Slow: for looking into a problem.
    #[arg(long)]
    pub log_decisions: bool,
    /// What is logged, for example `info` or `proxy_user::sync=debug`. [default: info]
    #[arg(long, value_name = "FILTER", env = "FERRULE_LOG")]
    pub log: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub place: Place,
    // Last, because what follows would be under their headings in the help.
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub timeouts: TimeoutFlags,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub conntrack: ConntrackFlags,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub listen: ListenFlags,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub kube_proxy: KubeProxyFlags,
}

/// Values of `--socket-lb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketLb {
    /// Those of all processes, in pods and outside.
    Full,
    /// Those in the node's own network namespace.
    HostOnly,
    /// Nobody's: packets are translated at devices.
    Off,
}

/// Values of `--attach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// tcx where the kernel has it, else clsact.
    Auto,
    /// As tcx links (Linux 6.6).
    Tcx,
    /// As filters of a clsact qdisc.
    Clsact,
}

impl Attach {
    /// The method to use on a kernel with these features.
    pub fn method(self, features: &Features) -> Method {
        match self {
            Self::Auto => Method::best(features),
            Self::Tcx => Method::Tcx,
            Self::Clsact => Method::Clsact,
        }
    }
}

impl Run {
    /// Name of this node's object.
    ///
    /// # Errors
    /// There is neither a flag nor a host name.
    pub fn node_name(&self) -> Result<String> {
        let name = match &self.hostname_override {
            Some(name) => name.clone(),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")
                .context("reading the host name")?,
        };
        let name = name.trim().to_lowercase();
        if name.is_empty() {
            bail!("the node has no name: give --hostname-override");
        }
        Ok(name)
    }

    /// The address in `--bind-address`, if it is one of its own.
    pub fn node_addresses(&self) -> Vec<IpAddr> {
        self.bind_address
            .filter(|address| !address.is_unspecified())
            .into_iter()
            .collect()
    }

    /// Where `/healthz` and `/livez` are served; `None`: nowhere.
    pub fn healthz_bind_address(&self) -> Option<SocketAddr> {
        self.listen.healthz(self.bind_address)
    }

    /// Where `/metrics` and `/proxyMode` are served; `None`: nowhere.
    pub fn metrics_bind_address(&self) -> Option<SocketAddr> {
        self.listen.metrics(self.bind_address)
    }

    /// Whether the agent ends if one of these two can't be bound.
    pub fn bind_address_hard_fail(&self) -> bool {
        self.listen.bind_address_hard_fail
    }

    /// kube-proxy's time between two full syncs. The agent has none; a change that waits for twice this time
    /// makes it unhealthy.
    pub fn sync_period(&self) -> Duration {
        self.kube_proxy.sync_period()
    }

    /// Whether NodePorts answer on loopback, for processes of the node.
    pub fn has_localhost_nodeports(&self) -> bool {
        self.localhost_nodeports || self.kube_proxy.iptables_localhost_nodeports
    }

    /// What is logged.
    pub fn log_filter(&self) -> &str {
        self.log.as_deref().unwrap_or(self.kube_proxy.log_filter())
    }

    /// What the loop follows while it runs.
    ///
    /// # Errors
    /// As for [`Run::cluster_cidrs`]; a way to detect pods lacks its name.
    pub fn followed(&self) -> Result<Followed> {
        let kube_proxy = &self.kube_proxy;
        let gate = kube_proxy.feature_gates.external_ips();
        Ok(Followed {
            cluster_cidrs: self.cluster_cidrs()?,
            node_ports: kube_proxy.node_ports(),
            detect_local: self.detect_local()?,
            masquerade_all: kube_proxy.masquerade_all,
            masquerade_local_backends: self.masquerade_local_backends,
            external_ips: self.allow_service_external_ips.or(gate).unwrap_or(true),
        })
    }

    fn detect_local(&self) -> Result<DetectLocal> {
        self.kube_proxy.detect_local().map_err(|error| {
            let flag = match error {
                NotAMode::Unknown(_) => "detect-local-mode",
                NotAMode::Bridge(_) => "pod-bridge-interface",
                NotAMode::Prefix(_) => "pod-interface-name-prefix",
            };
            anyhow!("--{flag}: {error}")
        })
    }

    /// How long flows last.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts.timeouts(&self.conntrack)
    }

    /// What is asked of netfilter's conntrack on this machine.
    pub fn netfilter(&self) -> Conntrack {
        self.conntrack.netfilter(processors())
    }

    /// Source ports of masked flows.
    ///
    /// # Errors
    /// The node's ephemeral range can't be read.
    pub fn snat_ports(&self) -> Result<RangeInclusive<u16>> {
        match &self.snat_ports {
            Some(range) => Ok(range.clone()),
            None => default_snat_ports(),
        }
    }

    /// What is wrong with these source ports of masked flows, which overlap others' ports.
    ///
    /// # Errors
    /// The node's ephemeral range can't be read.
    pub fn overlaps(snat_ports: &RangeInclusive<u16>) -> Result<Vec<String>> {
        Ok(overlaps(snat_ports, &ephemeral_ports()?))
    }

    /// At most one range of each family.
    ///
    /// # Errors
    /// A family has several; there is none, but a fast lane.
    pub fn cluster_cidrs(&self) -> Result<Vec<Cidr>> {
        one_of_each_family(&self.cluster_cidr)?;
        if self.cluster_cidr.is_empty() && !self.fast_lane.is_off() {
            bail!(
                "--fast-lane needs --cluster-cidr: what leaves it would be masqueraded by others, \
                 and must go through the stack"
            );
        }
        Ok(self.cluster_cidr.clone())
    }
}

/// Checks the ranges of `--cluster-cidr`.
///
/// # Errors
/// There are several of one family.
pub fn one_of_each_family(cluster_cidrs: &[Cidr]) -> Result<()> {
    let families = cluster_cidrs.iter().map(|cidr| cidr.address().is_ipv4());
    let v4 = families.filter(|is_v4| *is_v4).count();
    if v4 > 1 || cluster_cidrs.len() - v4 > 1 {
        bail!("--cluster-cidr: at most one range of each family");
    }
    Ok(())
}
