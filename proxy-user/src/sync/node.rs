//! The node itself: its addresses, its pods, and the row that tells the programs of them.

use super::Sync;
use crate::cluster::{Cidr, OptedOut};
use crate::datapath::Datapath;
use crate::frontend::{DetectLocal, IpFamily, LocalAddresses, NodeContext, NodePortAddresses};
use crate::tables::{NodeFacts, Pods, node_config};
use proxy_common::{MOST_SERVICE_RANGES, NodeConfig, NodeOption, NodeOptions};
use std::net::IpAddr;
use std::time::Instant;
use tokio::sync::watch;
use tracing::warn;

/// Settings that may change while the loop runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Ranges of the cluster's pods; the first of each family.
    pub cluster_cidrs: Vec<Cidr>,
    /// On which of the node's addresses NodePorts are served.
    pub node_ports: NodePortAddresses,
    /// How packets of pods are told from others.
    pub detect_local: DetectLocal,
    /// Whether every flow to a cluster address is masked, those of pods too.
    pub masquerade_all: bool,
    /// Whether flows that kube-proxy masks are masked towards backends of this node, too.
    pub masquerade_local_backends: bool,
    /// Whether Services are served on their `externalIPs`.
    pub external_ips: bool,
}

/// As for an agent without flags.
impl Default for Followed {
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            node_ports: NodePortAddresses::default(),
            detect_local: DetectLocal::default(),
            masquerade_all: false,
            masquerade_local_backends: false,
            external_ips: true,
        }
    }
}

impl<D: Datapath> Sync<D> {
    /// Takes in the addresses of the node's devices, all of them.
    pub fn set_local_addresses(&mut self, addresses: LocalAddresses) {
        let before = self.node.local_addresses.clone();
        self.renew_node(addresses);
        if self.synced {
            let now = &self.node.local_addresses;
            let has_changed = |ip: &IpAddr| before.get(ip) != now.get(ip);
            let names = self.cluster.names_with(has_changed);
            self.dirty.extend(names.cloned());
        }
        self.work();
    }

    /// Takes in other settings.
    pub fn set_followed(&mut self, followed: Followed) {
        self.settings.followed = followed;
        self.renew_node(self.node.local_addresses.clone());
        self.work();
    }

    /// The node's object has changed.
    pub(super) fn node_changed(&mut self) {
        let view = self.cluster.node();
        for skipped in view.iter().flat_map(|view| &view.skipped) {
            warn!("{skipped}");
        }
        self.renew_node(self.node.local_addresses.clone());
    }

    /// Puts together what is known of the node. Addresses of devices matter to all Services only if they serve
    /// NodePorts.
    fn renew_node(&mut self, local_addresses: LocalAddresses) {
        let own = self.cluster.node().into_iter();
        let own = own.flat_map(|view| &view.addresses);
        let addresses = self.settings.node_addresses.iter().chain(own).copied();
        let followed = &self.settings.followed;
        let node = NodeContext {
            external_ips: followed.external_ips,
            ..NodeContext::of(addresses, local_addresses, &followed.node_ports)
        };
        let before = std::mem::replace(&mut self.node, node);
        self.tell_of_health_check_addresses();
        let is_same = before.primary_v4 == self.node.primary_v4
            && before.primary_v6 == self.node.primary_v6
            && before.node_port_addresses == self.node.node_port_addresses
            && before.external_ips == self.node.external_ips;
        if !is_same {
            self.mark_all();
        }
    }

    /// The pods whose sockets are left alone, from now on.
    pub fn opted_out(&self) -> watch::Receiver<Option<Vec<OptedOut>>> {
        self.opted_out.subscribe()
    }

    pub(super) fn tell_of_pods(&self) {
        if self.synced {
            let pods = self.cluster.opted_out().cloned().collect();
            self.opted_out.send_replace(Some(pods));
        }
    }

    /// Writes the node's row.
    pub(super) fn configure(&mut self) {
        let wanted = self.wanted_config();
        if self.config == Some(wanted) {
            return;
        }
        let result = self.datapath.configure(&wanted);
        self.progress.work([false; 2]);
        self.progress.node(result.is_ok(), Instant::now());
        match result {
            Ok(()) => {
                self.config = Some(wanted);
                self.warn_of_missing_ranges();
                self.warn_of_surplus_ranges();
            }
            Err(error) => self.fail(&error),
        }
    }

    /// The programs know of some ranges only.
    fn warn_of_surplus_ranges(&self) {
        let all = self.cluster.service_cidrs();
        for family in IpFamily::ALL {
            let of_family = all.iter().filter(|it| IpFamily::of(it.address()) == family);
            let surplus: Vec<String> = of_family
                .skip(MOST_SERVICE_RANGES)
                .map(ToString::to_string)
                .collect();
            if !surplus.is_empty() {
                let surplus = surplus.join(", ");
                warn!(
                    "packets to addresses in {surplus} that no Service has are not dropped: too many ServiceCIDRs"
                );
            }
        }
    }

    /// Of those that the settings have is warned where these are read.
    fn warn_of_missing_ranges(&self) {
        let is_by_node = self.settings.followed.detect_local == DetectLocal::NodeCidr;
        if is_by_node && self.pod_ranges().is_empty() {
            warn!(
                "pods are to be known by NodeCIDR, but the Node {} has no podCIDRs: no client counts as a pod until \
                 it does",
                self.settings.node_name
            );
        }
    }

    /// The ranges by which pods are known; none if there are none yet, or if they are known by devices.
    pub(super) fn pod_ranges(&self) -> &[Cidr] {
        let followed = &self.settings.followed;
        let node = self.cluster.node().map(|view| view.pod_cidrs.as_slice());
        let (cluster, node) = (&followed.cluster_cidrs, node.unwrap_or_default());
        followed.detect_local.ranges(cluster, node)
    }

    /// The node's row as it should be.
    pub(super) fn wanted_config(&self) -> NodeConfig {
        let settings = &self.settings;
        node_config(&self.facts(), &settings.snat_ports, settings.sockets)
    }

    fn facts(&self) -> NodeFacts {
        let followed = &self.settings.followed;
        let v4 = self.node.primary_v4.map(IpAddr::V4);
        let v6 = self.node.primary_v6.map(IpAddr::V6);
        NodeFacts {
            addresses: v4.into_iter().chain(v6).collect(),
            pods: self.pods(),
            cluster_cidrs: followed.cluster_cidrs.clone(),
            service_cidrs: self.cluster.service_cidrs(),
            loopback: self.loopback(),
            options: NodeOptions::default()
                .with(NodeOption::MasqueradeAll, followed.masquerade_all)
                .with(
                    NodeOption::MasqueradeLocal,
                    followed.masquerade_local_backends,
                ),
        }
    }

    /// Where NodePorts are found that loopback has, too.
    fn loopback(&self) -> Vec<IpAddr> {
        let addresses = self.node.node_port_addresses.iter().copied();
        let node_ports = &self.settings.followed.node_ports;
        let is_served = |it: &IpAddr| node_ports.serves_loopback(IpFamily::of(*it));
        let is_wanted = self.settings.sockets.loopback;
        addresses.filter(|it| is_wanted && is_served(it)).collect()
    }

    fn pods(&self) -> Pods {
        match &self.settings.followed.detect_local {
            DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_) => Pods::ByDevice,
            DetectLocal::ClusterCidr | DetectLocal::NodeCidr => {
                Pods::InRanges(self.pod_ranges().to_vec())
            }
        }
    }
}
