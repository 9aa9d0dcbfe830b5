//! Tunnels between nodes that carry what is for pods.

use super::node::Node;
use super::plan::NodePlan;
use super::shape::NodeLink;
use anyhow::{Context, Result};

/// The port on which nodes listen for WireGuard.
const WIREGUARD_PORT: u16 = 51820;

/// Joins all nodes with each other.
pub(crate) fn lay(nodes: &[Node], link: NodeLink) -> Result<()> {
    match link {
        NodeLink::Routes => Ok(()),
        NodeLink::Vxlan => lay_vxlan(nodes),
        NodeLink::Ipip => lay_ipip(nodes),
        NodeLink::WireGuard => lay_wireguard(nodes),
    }
}

/// Each node with all others.
fn pairs(nodes: &[Node]) -> impl Iterator<Item = (&Node, NodePlan)> {
    nodes.iter().flat_map(move |node| {
        let others = nodes.iter().map(Node::plan);
        others
            .filter(move |other| *other != node.plan())
            .map(move |other| (node, other))
    })
}

/// As flannel lays it out: a subnet of pods is behind the address of its node's device, which is a
/// permanent neighbour.
fn lay_vxlan(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        let plan = node.plan();
        let outer = plan.subnet_v4(2);
        node.ip(&format!(
            "link add vxlan0 address {mac} mtu {mtu} type vxlan id 1 local {outer} dstport 8472 nolearning\n",
            mac = vxlan_mac(plan),
            mtu = NodeLink::Vxlan.mtu(),
        ))?;
        raise(node, "vxlan0")?;
    }
    for (node, other) in pairs(nodes) {
        let (mac, outer) = (vxlan_mac(other), other.subnet_v4(2));
        let (v4, v6) = (other.tunnel_v4(), other.tunnel_v6());
        let (pods4, pods6) = (other.pod_cidr_v4(), other.pod_cidr_v6());
        node.ip(&format!(
            "neigh add {v4} lladdr {mac} dev vxlan0 nud permanent
             neigh add {v6} lladdr {mac} dev vxlan0 nud permanent
             route add {pods4} via {v4} dev vxlan0 onlink
             route add {pods6} via {v6} dev vxlan0 onlink\n"
        ))?;
        let entry = [
            "fdb",
            "append",
            &mac,
            "dev",
            "vxlan0",
            "dst",
            &outer.to_string(),
        ];
        node.namespace().command("bridge", &entry)?;
    }
    Ok(())
}

/// As Calico lays it out: one device, open to every peer.
fn lay_ipip(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        // The module may have made it in every namespace.
        let is_there = node.namespace().command("ip", &["link", "show", "tunl0"]);
        if is_there.is_err() {
            node.ip("link add tunl0 type ipip\n")?;
        }
        let (mtu, v4) = (NodeLink::Ipip.mtu(), node.plan().tunnel_v4());
        node.ip(&format!(
            "link set tunl0 mtu {mtu} up
             address add {v4}/32 dev tunl0\n"
        ))?;
    }
    for (node, other) in pairs(nodes) {
        let (pods, outer) = (other.pod_cidr_v4(), other.subnet_v4(2));
        node.ip(&format!("route add {pods} via {outer} dev tunl0 onlink\n"))?;
    }
    Ok(())
}

fn lay_wireguard(nodes: &[Node]) -> Result<()> {
    let mut keys = Vec::new();
    for node in nodes {
        keys.push(start_wireguard(node)?);
    }
    for (node, other) in pairs(nodes) {
        let (pods4, pods6) = (other.pod_cidr_v4(), other.pod_cidr_v6());
        let key = &keys[usize::from(other.number()) - 1];
        let endpoint = format!("{}:{WIREGUARD_PORT}", other.subnet_v4(2));
        let allowed = format!("{pods4},{pods6}");
        let peer = ["set", "wg0", "peer", key, "endpoint", &endpoint];
        let peer = [&peer[..], &["allowed-ips", &allowed]].concat();
        node.namespace().command("wg", &peer)?;
        node.ip(&format!(
            "route add {pods4} dev wg0
             route add {pods6} dev wg0\n"
        ))?;
    }
    Ok(())
}

/// Makes the device; returns the node's public key.
fn start_wireguard(node: &Node) -> Result<String> {
    let mtu = NodeLink::WireGuard.mtu();
    node.ip(&format!("link add wg0 mtu {mtu} type wireguard\n"))?;
    let private = node.namespace().command("wg", &["genkey"])?;
    let port = WIREGUARD_PORT.to_string();
    let set = [
        "set",
        "wg0",
        "listen-port",
        &port,
        "private-key",
        "/proc/self/fd/0",
    ];
    let run = || crate::command::run_with_input("wg", &set, &private);
    node.namespace().run(run)?.context("the key of wg0")?;
    raise(node, "wg0")?;
    let public = node
        .namespace()
        .command("wg", &["show", "wg0", "public-key"])?;
    Ok(public.trim().to_owned())
}

/// Gives a tunnel's device its addresses.
fn raise(node: &Node, device: &str) -> Result<()> {
    let (v4, v6) = (node.plan().tunnel_v4(), node.plan().tunnel_v6());
    node.ip(&format!(
        "address add {v4}/32 dev {device}
         address add {v6}/128 dev {device} nodad
         link set {device} up\n"
    ))
}

fn vxlan_mac(plan: NodePlan) -> String {
    format!("02:00:00:00:01:{:02x}", plan.number())
}
