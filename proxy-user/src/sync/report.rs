//! The loop's state, for people.

use super::Sync;
use crate::cluster::Skipped;
use crate::datapath::Datapath;
use crate::tables::Map;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A snapshot of the loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether everything that existed at the start is known; before that nothing is written.
    pub synced: bool,
    /// This node.
    pub node: NodeReport,
    /// Services with at least one row in the maps.
    pub services: usize,
    /// Service ports in the maps.
    pub service_ports: PerFamily,
    /// Rows of `FRONTENDS_*`.
    pub frontends: PerFamily,
    /// Rows of `BACKENDS_*`.
    pub backends: PerFamily,
    /// How full the maps are.
    pub maps: Vec<MapFill>,
    /// What can't be used of the cluster's objects.
    pub skipped: Vec<SkippedReport>,
    /// What is wrong with the origins of objects, by origin.
    pub problems: BTreeMap<String, Vec<String>>,
    /// Services that could not be written and will be tried again.
    pub pending: usize,
    /// Why, as long as there is something to be tried again.
    pub last_error: Option<String>,
}

/// This node, as its object and the settings have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Name of its object.
    pub name: String,
    /// Whether the object is known.
    pub known: bool,
    /// Addresses on which NodePorts are served.
    pub node_port_addresses: Vec<IpAddr>,
    /// kube-proxy's mode by which packets of pods are told from others.
    pub detect_local: String,
    /// What pods are known by in this mode: ranges or devices. If there is nothing no client counts as a pod.
    pub pods_known_by: Vec<String>,
    /// The ranges its pods get their addresses from.
    pub pod_cidrs: Vec<String>,
    /// The zone it is in.
    pub zone: Option<String>,
    /// The ranges from which Services get their addresses, as ServiceCIDR objects have them.
    pub service_cidrs: Vec<String>,
}

/// A count for each IP family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerFamily {
    /// IPv4.
    pub v4: usize,
    /// IPv6.
    pub v6: usize,
}

impl From<PerFamily> for [usize; 2] {
    fn from(counts: PerFamily) -> Self {
        [counts.v4, counts.v6]
    }
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapFill {
    /// Its name in the kernel.
    pub map: String,
    /// Rows in use or not yet to be used again; words in the case of `SLOTS`.
    pub used: u32,
    /// Its `max_entries`.
    pub capacity: u32,
}

/// A part of an object that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SkippedReport {
    /// Kind, namespace and name.
    pub object: String,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl<D: Datapath> Sync<D> {
    /// The state as of now.
    pub fn report(&self) -> Report {
        Report {
            synced: self.synced,
            node: self.node_report(),
            services: self.tally.services,
            service_ports: self.tally.service_ports,
            frontends: self.tally.frontends,
            backends: self.tally.backends,
            maps: Map::ALL.map(|map| self.fill(map)).into(),
            skipped: self.skipped_report(),
            problems: self.problems.clone(),
            pending: self.failed.len(),
            last_error: self.last_error.clone(),
        }
    }

    fn fill(&self, map: Map) -> MapFill {
        MapFill {
            map: map.name().to_owned(),
            used: self.ids.used(map),
            capacity: self.datapath.capacity().of(map),
        }
    }

    fn node_report(&self) -> NodeReport {
        let view = self.cluster.node();
        let pod_cidrs = view.iter().flat_map(|view| &view.pod_cidrs);
        let detect_local = &self.settings.followed.detect_local;
        NodeReport {
            detect_local: detect_local.to_string(),
            pods_known_by: detect_local.names(self.pod_ranges()),
            name: self.settings.node_name.clone(),
            known: view.is_some(),
            node_port_addresses: self.node.node_port_addresses.clone(),
            pod_cidrs: pod_cidrs.map(ToString::to_string).collect(),
            zone: view.and_then(|view| view.zone.clone()),
            service_cidrs: self
                .cluster
                .service_cidrs()
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }

    fn skipped_report(&self) -> Vec<SkippedReport> {
        let of_services = self.services.values().flat_map(|entry| &entry.skipped);
        let of_node = self
            .cluster
            .node()
            .into_iter()
            .flat_map(|node| &node.skipped);
        let all = of_services.chain(of_node).chain(self.cluster.unowned());
        let mut all: Vec<_> = all.map(SkippedReport::from).collect();
        all.sort_unstable();
        all
    }
}

impl From<&Skipped> for SkippedReport {
    fn from(skipped: &Skipped) -> Self {
        Self {
            object: skipped.object.to_string(),
            field: skipped.field.clone(),
            why: skipped.why.to_string(),
        }
    }
}
