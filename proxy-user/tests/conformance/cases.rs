//! Cases of what the real kube-proxy does with packets, as kept in the files beside this one.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use proxy_user::explain::{Facts, Query};
use proxy_user::frontend::NodePortAddresses;
use proxy_user::source::{Object, manifests};
use proxy_user::sync::Followed;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The files, and what they are to be.
pub(crate) const FILES: [(&str, &str); 3] = [
    (
        "packets.json",
        "b99828a43b23bc8c2c38a0d6360e107961674fb1d184b65931966ac5e59a8d63",
    ),
    (
        "packets-generated.json",
        "50ed43bebc3eaaf122962ba1d84b63dba76cc30deeaefa60fb8f1d3d75a57f63",
    ),
    (
        "units.json",
        "b41fc495a77035dd99d0a92525779a2e1001e1480a2efacf9262b53180b338be",
    ),
];

/// A node, objects, and what becomes of packets there.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) mode: Mode,
    pub(crate) node: Node,
    pub(crate) services: Vec<Value>,
    #[serde(rename = "endpointslices")]
    pub(crate) slices: Vec<Value>,
    pub(crate) packets: Vec<Packet>,
}

/// kube-proxy's.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Iptables,
    Nftables,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Node {
    pub(crate) node_name: String,
    ip_family: String,
    #[serde(rename = "nodeIP")]
    node_ip: IpAddr,
    #[serde(rename = "nodeIPs")]
    node_ips: Vec<IpAddr>,
    interfaces: BTreeMap<String, Vec<String>>,
    detect_local_mode: String,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<String>,
    #[serde(rename = "masqueradeAll")]
    masquerade_all: bool,
    /// Nothing: every address of the node.
    pub(crate) node_port_addresses: Option<Vec<String>>,
    pub(crate) localhost_node_ports: bool,
    #[serde(rename = "serviceCIDRs")]
    pub(crate) service_cidrs: Option<Vec<String>>,
    node_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Packet {
    pub(crate) name: String,
    #[serde(rename = "sourceIP")]
    pub(crate) source: IpAddr,
    #[serde(rename = "destIP")]
    pub(crate) dest: IpAddr,
    pub(crate) dest_port: u16,
    pub(crate) protocol: String,
    pub(crate) masq: Option<bool>,
    pub(crate) output: Vec<String>,
}

/// All cases that have packets.
pub(crate) fn read() -> Vec<Case> {
    let files = FILES.iter().flat_map(|(name, _)| {
        let values: Vec<Value> = serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap();
        values
    });
    let packets = files.filter(|case| case["kind"] == "packetflow");
    packets
        .map(|case| serde_json::from_value(case).unwrap())
        .collect()
}

/// A virtual machine has them elsewhere than where the test was built.
pub(crate) fn path(name: &str) -> PathBuf {
    let elsewhere = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = elsewhere.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.join("tests/conformance").join(name)
}

impl Case {
    /// The Node, its ranges, Services and EndpointSlices, as a manifest.
    pub(crate) fn manifest(&self) -> String {
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.node.node_name, "labels": self.node.node_labels},
        });
        let ranges = self.node.service_cidrs.iter().map(|cidrs| {
            json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "ServiceCIDR",
                "metadata": {"name": "kubernetes"},
                "spec": {"cidrs": cidrs},
            })
        });
        let mut items = vec![node];
        items.extend(ranges);
        items.extend(self.services.iter().chain(&self.slices).cloned());
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    }

    /// The same as objects.
    pub(crate) fn objects(&self) -> Vec<Object> {
        manifests::objects(&self.manifest()).unwrap()
    }

    /// What flags would say.
    pub(crate) fn facts(&self) -> Facts {
        let node = &self.node;
        assert!(["none", "ClusterCIDR"].contains(&node.detect_local_mode.as_str()));
        let cidrs = node.cluster_cidr.iter();
        let cidrs = cidrs.filter(|_| node.detect_local_mode == "ClusterCIDR");
        Facts {
            node_name: node.node_name.clone(),
            node_addresses: node.addresses(),
            followed: Followed {
                cluster_cidrs: cidrs.map(|cidr| cidr.parse().unwrap()).collect(),
                node_ports: node.node_ports().parse().unwrap(),
                masquerade_all: node.masquerade_all,
                ..Followed::default()
            },
            localhost_node_ports: node.localhost_node_ports,
        }
    }

    /// The flags themselves.
    pub(crate) fn flags(&self) -> Vec<String> {
        let node = &self.node;
        let facts = self.facts();
        let mut flags = vec![
            format!("--hostname-override={}", node.node_name),
            format!("--nodeport-addresses={}", node.node_ports()),
            format!("--masquerade-all={}", node.masquerade_all),
            format!("--localhost-nodeports={}", node.localhost_node_ports),
        ];
        let addresses = facts.node_addresses.iter();
        flags.extend(addresses.map(|ip| format!("--node-address={ip}")));
        let cidrs = facts.followed.cluster_cidrs.iter();
        flags.extend(cidrs.map(|cidr| format!("--cluster-cidr={cidr}")));
        flags
    }
}

impl Node {
    /// The family that is looked at.
    pub(crate) fn family(&self) -> &str {
        &self.ip_family
    }

    /// All that it has, the primary ones first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let devices = self.interfaces.values().flatten();
        let devices = devices.map(|cidr| cidr.split('/').next().unwrap().parse().unwrap());
        let mut addresses = vec![self.node_ip];
        let others = self.node_ips.iter().copied().chain(devices);
        for address in others.filter(|ip: &IpAddr| !ip.is_loopback()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    fn node_ports(&self) -> String {
        self.node_port_addresses
            .as_ref()
            .map_or_else(|| "all".to_owned(), |list| list.join(","))
    }

    /// Whether kube-proxy serves NodePorts there.
    pub(crate) fn serves_node_ports_at(&self, address: IpAddr) -> bool {
        let ranges: NodePortAddresses = self.node_ports().parse().unwrap();
        let local = self.addresses().into_iter();
        let local = local.map(|ip| (ip, "eth0".to_owned())).collect();
        let node = proxy_user::frontend::NodeContext::of([], local, &ranges);
        node.node_port_addresses.contains(&address)
    }
}

impl Packet {
    pub(crate) fn query(&self) -> Query {
        let to = SocketAddr::new(self.dest, self.dest_port);
        let (from, to) = (self.source.to_string(), to.to_string());
        Query::new(&from, &to, Some(&self.protocol), None).unwrap()
    }
}
