//! What of the cluster's objects can't be used: said once, and remembered.

use super::{Entry, Sync};
use crate::cluster::{ServiceName, Skipped, Why};
use crate::frontend::FrontendKind;
use crate::tables::Conflict;
use std::net::IpAddr;
use tracing::{info, warn};

const CLUSTER_IPS: &str = "spec.clusterIPs";

impl<D> Sync<D> {
    /// All that is wrong with one origin of objects, as of now.
    pub(super) fn note(&mut self, origin: String, problems: Vec<String>) {
        let before = self.problems.remove(&origin).unwrap_or_default();
        for problem in problems.iter().filter(|problem| !before.contains(problem)) {
            warn!("{problem}");
        }
        if problems.is_empty() {
            if !before.is_empty() {
                info!("{origin}: all well again");
            }
        } else {
            self.problems.insert(origin, problems);
        }
    }

    /// All that can't be used of one Service, as of now.
    pub(super) fn skip(&mut self, entry: &mut Entry, skipped: Vec<Skipped>) {
        for new in skipped.iter().filter(|new| !entry.skipped.contains(new)) {
            warn!("{new}");
        }
        self.recount_skipped(&entry.skipped, &skipped);
        entry.skipped = skipped;
    }
}

/// A cluster address that a device of this node has.
pub(super) fn of_node(name: &ServiceName, address: IpAddr, device: &str) -> Skipped {
    let device = device.to_owned();
    Skipped::new(
        &name.key(),
        CLUSTER_IPS,
        Why::AddressOfNode { address, device },
    )
}

/// A frontend that another Service has.
pub(super) fn taken(name: &ServiceName, conflict: Conflict) -> Skipped {
    let Conflict { frontend, holder } = conflict;
    let field = match frontend.kind {
        FrontendKind::ClusterIp => CLUSTER_IPS,
        FrontendKind::NodePort => "spec.ports.nodePort",
        FrontendKind::ExternalIp => "spec.externalIPs",
        FrontendKind::LoadBalancer => "status.loadBalancer.ingress",
    };
    let why = Why::FrontendTaken {
        frontend: frontend.to_string(),
        holder,
    };
    Skipped::new(&name.key(), field, why)
}
