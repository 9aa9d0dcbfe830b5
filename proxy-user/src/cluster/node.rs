//! What matters of this node's object.

use super::{Cidr, Skipped, Why, address};
use crate::source::ObjectKey;
use k8s_openapi::api::core::v1::Node;
use std::net::IpAddr;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Says of a node that the cluster autoscaler is about to remove it.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// This node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its internal addresses, in the object's order.
    pub addresses: Vec<IpAddr>,
    /// The ranges its pods get their addresses from.
    pub pod_cidrs: Vec<Cidr>,
    /// The zone it is in.
    pub zone: Option<String>,
    /// Whether it is being removed: its object is, or the cluster autoscaler is about to.
    pub is_leaving: bool,
    /// What of the object can't be used.
    pub skipped: Vec<Skipped>,
}

/// Reads the object.
pub(super) fn view(key: &ObjectKey, node: &Node) -> NodeView {
    let mut view = NodeView {
        zone: zone(node),
        is_leaving: is_leaving(node),
        ..NodeView::default()
    };
    for (field, text) in internal_addresses(node) {
        match address::parse(text) {
            Ok(address) => view.addresses.push(address),
            Err(why) => view.skipped.push(Skipped::new(key, field, why)),
        }
    }
    for (field, text) in pod_cidrs(node) {
        match text.parse() {
            Ok(cidr) => view.pod_cidrs.push(cidr),
            Err(_) => {
                let why = Why::NotACidr(text.clone());
                view.skipped.push(Skipped::new(key, field, why));
            }
        }
    }
    view
}

fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get(ZONE_LABEL).cloned()
}

fn is_leaving(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| &spec.taints).flatten();
    let mut keys = taints.map(|taint| taint.key.as_str());
    node.metadata.deletion_timestamp.is_some() || keys.any(|key| key == TO_BE_DELETED_TAINT)
}

fn internal_addresses(node: &Node) -> impl Iterator<Item = (String, &String)> {
    let listed = node.status.iter().flat_map(|status| &status.addresses);
    let listed = listed.flatten().enumerate();
    listed
        .filter(|(_, address)| address.type_ == "InternalIP")
        .map(|(index, listed)| (format!("status.addresses[{index}]"), &listed.address))
}

fn pod_cidrs(node: &Node) -> impl Iterator<Item = (String, &String)> {
    let listed = node.spec.iter().flat_map(|spec| &spec.pod_cidrs);
    let listed = listed.flatten().enumerate();
    listed.map(|(index, cidr)| (format!("spec.podCIDRs[{index}]"), cidr))
}
