//! Flags to settings. Names are kube-proxy's where it has the flag.

mod timeouts;

pub use timeouts::TimeoutFlags;

use crate::cluster::Cidr;
use crate::datapath::attach::Method;
use crate::datapath::devices::FastLane;
use crate::datapath::features::Features;
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Rows in each of the two flow tables where nobody says otherwise: room for what kube-proxy lets netfilter
/// track at least, in both families together, and for all maps in 100 MB.
pub const MAX_FLOWS: u32 = 131_072;

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
  ferrule run --manifests /etc/ferrule/manifests --hostname-override node-1
  ferrule run --manifests ./objects --cluster-cidr 10.244.0.0/16,fd00:10:244::/48")]
pub struct Run {
    /// Folder with Service, EndpointSlice, Node and Pod objects as YAML or JSON; it is watched.
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
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
    #[arg(long, value_name = "CIDR,..", value_delimiter = ',')]
    pub cluster_cidr: Vec<Cidr>,
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
    pub fast_lane: FastLane,
    /// Rows in each of the two flow tables; a connection needs two, or four when it is masked.
    #[arg(long, value_name = "N", default_value_t = MAX_FLOWS, value_parser = clap::value_parser!(u32).range(1024..))]
    pub max_flows: u32,
    /// Source ports of masked flows, as MIN-MAX; the widest range beside the ephemeral ports and
    /// the NodePorts if not given.
    #[arg(long, value_name = "MIN-MAX", value_parser = port_range)]
    pub snat_ports: Option<RangeInclusive<u16>>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub timeouts: TimeoutFlags,
    /// Log what becomes of every packet. Slow: for looking into a problem.
    #[arg(long)]
    pub log_decisions: bool,
    /// What is logged, for example `info` or `proxy_user::sync=debug`.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "FERRULE_LOG"
    )]
    pub log: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub place: Place,
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
        let families = self
            .cluster_cidr
            .iter()
            .map(|cidr| cidr.address().is_ipv4());
        let v4 = families.filter(|is_v4| *is_v4).count();
        if v4 > 1 || self.cluster_cidr.len() - v4 > 1 {
            bail!("--cluster-cidr: at most one range of each family");
        }
        if self.cluster_cidr.is_empty() && !self.fast_lane.is_off() {
            bail!(
                "--fast-lane needs --cluster-cidr: what leaves it would be masqueraded by others, \
                 and must go through the stack"
            );
        }
        Ok(self.cluster_cidr.clone())
    }
}

/// The API server's default for `--service-node-port-range`.
pub const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;
/// Ports below need privileges, and a peer may take them for a service's own.
const FIRST_PORT: u16 = 1024;

/// Source ports of masked flows where nobody says otherwise.
///
/// # Errors
/// The node's ephemeral range can't be read.
pub fn default_snat_ports() -> Result<RangeInclusive<u16>> {
    Ok(widest_gap(&[ephemeral_ports()?, NODE_PORTS]))
}

fn ephemeral_ports() -> Result<RangeInclusive<u16>> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(min)), Some(Ok(max))) => Ok(min..=max),
        _ => bail!("{path} is not two ports: {text}"),
    }
}

/// The widest range of ports from 1024 on that avoids these; all of it if they leave nothing.
fn widest_gap(taken: &[RangeInclusive<u16>]) -> RangeInclusive<u16> {
    let mut taken = taken.to_vec();
    taken.sort_by_key(|range| *range.start());
    let mut best: Option<RangeInclusive<u16>> = None;
    let mut next = u32::from(FIRST_PORT);
    let ends = taken
        .iter()
        .map(|range| (u32::from(*range.start()), u32::from(*range.end())));
    for (start, end) in ends.chain([(0x1_0000, 0x1_0000)]) {
        let width = best.as_ref().map_or(0, ExactSizeIterator::len);
        if start > next && (start - next) as usize > width {
            best = Some(next as u16..=(start - 1) as u16);
        }
        next = next.max(end + 1);
    }
    best.unwrap_or(FIRST_PORT..=u16::MAX)
}

fn overlaps(snat_ports: &RangeInclusive<u16>, ephemeral: &RangeInclusive<u16>) -> Vec<String> {
    let overlap = |other: &RangeInclusive<u16>| {
        snat_ports.start() <= other.end() && other.start() <= snat_ports.end()
    };
    let text = |ports: &RangeInclusive<u16>| format!("{}-{}", ports.start(), ports.end());
    let others = [
        (
            "the ephemeral ports",
            "net.ipv4.ip_local_port_range",
            ephemeral,
        ),
        ("the NodePorts", "the API server's default", &NODE_PORTS),
    ];
    let found = others.iter().filter(|(_, _, other)| overlap(other));
    found
        .map(|(name, source, other)| {
            let (ours, other) = (text(snat_ports), text(other));
            format!(
                "--snat-ports: source ports {ours} of masked flows overlap {name} {other} ({source})"
            )
        })
        .collect()
}

/// Reads MIN-MAX.
///
/// # Errors
/// What is wrong with the text.
pub fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (min, max) = text.split_once('-').ok_or("not of the form MIN-MAX")?;
    let port = |text: &str| match text.trim().parse() {
        Ok(0) | Err(_) => Err(format!("'{text}' is not a port")),
        Ok(port) => Ok(port),
    };
    let (min, max) = (port(min)?, port(max)?);
    if min > max {
        Err("MIN is above MAX".into())
    } else {
        Ok(min..=max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_flows_get_the_widest_gap_between_other_ports() {
        assert_eq!(widest_gap(&[32768..=60999, NODE_PORTS]), 1024..=29999);
        assert_eq!(widest_gap(&[1024..=40000, NODE_PORTS]), 40001..=65535);
        assert_eq!(widest_gap(&[1024..=65535]), 1024..=65535);
        assert_eq!(widest_gap(&[]), 1024..=65535);
    }

    #[test]
    fn ports_that_overlap_others_are_named() {
        let ephemeral = 32768..=60999;
        assert_eq!(overlaps(&(1024..=29999), &ephemeral), [""; 0]);
        let found = overlaps(&(32767..=32768), &ephemeral);
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("32767-32768"), "{found:?}");
        assert!(found[0].contains("the ephemeral ports 32768-60999"));
        assert!(found[1].contains("the NodePorts 30000-32767"));
    }

    #[test]
    fn port_ranges_are_checked() {
        assert_eq!(port_range("2000-3000"), Ok(2000..=3000));
        for wrong in ["2000", "3000-2000", "0-10", "1-70000", "a-b"] {
            assert!(port_range(wrong).is_err(), "{wrong}");
        }
    }
}
