//! A Kubernetes-like cluster on one machine: every node, pod and outside host is a network namespace.
//!
//! ```text
//!   client 192.0.2.10 ── router ──┬── node1 172.31.1.2 ──┬── pod 10.244.1.2
//!          2001:db8::10           │        fd00:172:31:1::2  └── pod 10.244.1.3
//!                                 ├── node2 172.31.2.2 ───── pod 10.244.2.2
//!                                 └── node3 172.31.3.2 ───── pod 10.244.3.2
//! ```
//!
//! Pods hang on routed veths, one subnet of pods per node; the router knows which node has which. A
//! [`Shape`] asks for something else: bridges, tunnels, other uplinks.
//! Nodes forward, filter strictly by reverse path, drop what conntrack calls INVALID and masquerade
//! pods that leave the cluster. Any number of clusters can exist at once. A cluster is removed when
//! it is dropped, when the process is interrupted, and by the next one if its owner was killed.

mod agent;
mod api;
mod cgroup;
mod leftovers;
mod manifests;
mod namespace;
mod node;
mod object;
mod overlay;
mod plan;
mod pod;
mod rules;
mod shape;
mod tracked;
mod uplink;

pub use agent::{Agent, AgentPaths, Source};
pub use manifests::{Manifests, Protocol, Service, ServicePort};
pub use namespace::Namespace;
pub use node::Node;
pub use plan::{
    CLIENT_V4, CLIENT_V6, CLUSTER_CIDR, CLUSTER_CIDR_V4, CLUSTER_CIDR_V6, KUBERNETES_V4, MAX_NODES,
    NodePlan, SERVICE_CIDR_V4, SERVICE_CIDR_V6,
};
pub use pod::Pod;
pub use shape::{Families, Masquerade, NodeLink, Offloads, PodLink, Shape, Uplink};
pub use tracked::{Direction, Tracked};

use crate::process::wait_for;
use anyhow::{Context, Result, ensure};
use plan::{CLIENT_GATEWAY_V4, CLIENT_GATEWAY_V6};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A cluster; dropping it removes all of it.
#[derive(Debug)]
pub struct Cluster {
    claim: Claim,
    router: Namespace,
    client: Pod,
    nodes: Vec<Node>,
}

/// The right to a cluster's name; dropping it removes all that carries the name.
#[derive(Debug)]
struct Claim {
    id: String,
    keep: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // After an interrupt the other thread removes everything and sets the exit code.
        let _open = leftovers::gate();
        if let Err(error) = leftovers::remove(&self.id) {
            eprintln!("cluster {} is not removed completely: {error:#}", self.id);
        }
    }
}

impl Cluster {
    /// Lays out a cluster of `nodes` nodes without pods, after removing what killed owners left.
    ///
    /// # Errors
    /// Without root, or when a step of the set-up fails; then nothing is left of it.
    pub fn create(nodes: u8) -> Result<Self> {
        Self::shaped(nodes, Shape::default())
    }

    /// As [`Cluster::create`], with another network than the plainest.
    ///
    /// # Errors
    /// As [`Cluster::create`]; also when the kernel lacks a kind of device that the shape needs.
    pub fn shaped(nodes: u8, shape: Shape) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "a cluster of network namespaces needs root"
        );
        ensure!(
            (1..=MAX_NODES).contains(&nodes),
            "a cluster has 1 to {MAX_NODES} nodes"
        );
        let shape = shape.on_this_kernel();
        let claim = Claim {
            id: leftovers::claim()?,
            keep: false,
        };
        let router = namespace(&claim.id, "router")?;
        rules::forward_strictly(&router)?;
        let client = create_client(&claim.id, &router)?;
        let mut cluster = Self {
            claim,
            router,
            client,
            nodes: Vec::new(),
        };
        for number in 1..=nodes {
            let (id, plan) = (&cluster.claim.id, NodePlan::new(number));
            let node = Node::create(id, &cluster.router, plan, shape)?;
            cluster.nodes.push(node);
        }
        overlay::lay(&cluster.nodes, shape.nodes)?;
        set_offloads(cluster.client.namespace(), shape.offloads)?;
        cluster.manifests()?.write_nodes(&cluster.nodes)?;
        cluster.wait_addresses()?;
        Ok(cluster)
    }

    /// The prefix of everything this cluster owns.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.claim.id
    }

    /// The cluster's folder; it goes with the cluster.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        leftovers::folder(&self.claim.id)
    }

    /// All nodes, in the order of their numbers.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this number; numbers start at 1, as in `node1`.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn node(&self, number: u8) -> &Node {
        &self.nodes[usize::from(number) - 1]
    }

    /// The router between nodes and client.
    #[must_use]
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// The external client, as something that can also serve.
    #[must_use]
    pub fn client(&self) -> &Pod {
        &self.client
    }

    /// Adds a pod to the node with this number and waits until its addresses can be used.
    ///
    /// # Errors
    /// When a step of the set-up fails.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn add_pod(&mut self, node: u8, name: &str) -> Result<Pod> {
        let pod = self.nodes[usize::from(node) - 1].add_pod(&self.claim.id, name)?;
        self.wait_addresses()?;
        Ok(pod)
    }

    /// The folder of manifests that all agents of the cluster read.
    ///
    /// # Errors
    /// When the folder can't be created.
    pub fn manifests(&self) -> Result<Manifests> {
        Manifests::create(self.folder().join("manifests"))
    }

    /// Fails unless every node forwards, filters strictly by reverse path, drops INVALID packets and
    /// masquerades.
    ///
    /// # Errors
    /// Names the node and what is not as it should be.
    pub fn check_rules(&self) -> Result<()> {
        self.nodes
            .iter()
            .try_for_each(|node| rules::check(node.namespace()))
    }

    /// Packets dropped so far on all nodes because conntrack called them INVALID.
    ///
    /// # Errors
    /// When a counter can't be read.
    pub fn invalid_drops(&self) -> Result<u64> {
        self.nodes.iter().map(Node::invalid_drops).sum()
    }

    /// Starts a program in a namespace of the cluster; it dies with the cluster at the latest.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(&self, place: &Namespace, command: Command) -> Result<std::process::Child> {
        start(&self.claim.id, place, command)
    }

    /// Leaves the cluster up when this value and its process have gone, until [`Cluster::remove_kept`].
    ///
    /// # Errors
    /// When the wish can't be written down; then the cluster is removed.
    pub fn keep(mut self) -> Result<()> {
        leftovers::keep(&self.claim.id)?;
        self.claim.keep = true;
        Ok(())
    }

    /// Removes all clusters that were left up; returns their number.
    ///
    /// # Errors
    /// When something can't be removed.
    pub fn remove_kept() -> Result<usize> {
        leftovers::remove_kept()
    }

    fn wait_addresses(&self) -> Result<()> {
        let pods = self.nodes.iter().flat_map(Node::pods).map(Pod::namespace);
        let nodes = self.nodes.iter().map(Node::namespace);
        [&self.router, self.client.namespace()]
            .into_iter()
            .chain(nodes)
            .chain(pods)
            .try_for_each(wait_not_tentative)
    }
}

/// Creates a namespace that goes with the cluster.
fn namespace(id: &str, name: &str) -> Result<Namespace> {
    let _open = leftovers::gate();
    Namespace::create(format!("{id}-{name}"))
}

/// Starts a process that dies with the cluster.
fn start(id: &str, place: &Namespace, command: Command) -> Result<std::process::Child> {
    let _open = leftovers::gate();
    let program = command.get_program().to_string_lossy().into_owned();
    let child = place
        .spawn(command)
        .with_context(|| format!("can't start {program}"))?;
    leftovers::record(id, child.id())?;
    Ok(child)
}

fn create_client(id: &str, router: &Namespace) -> Result<Pod> {
    let client = namespace(id, "client")?;
    node::join(&client, "eth0", router, "client")?;
    let families = Families::of_kernel();
    router.ip(&families.only(&format!(
        "address add {CLIENT_GATEWAY_V4}/24 dev client
         address add {CLIENT_GATEWAY_V6}/64 dev client nodad
         link set client up\n"
    )))?;
    client.ip(&families.only(&format!(
        "address add {CLIENT_V4}/24 dev eth0
         address add {CLIENT_V6}/64 dev eth0 nodad
         link set eth0 up
         route add default via {CLIENT_GATEWAY_V4}
         route add default via {CLIENT_GATEWAY_V6}\n"
    )))?;
    Ok(Pod::outside("client", client, CLIENT_V4, CLIENT_V6))
}

/// Tells `eth0` what to do for the stack.
fn set_offloads(namespace: &Namespace, offloads: Offloads) -> Result<()> {
    let features = offloads.features();
    if !features.is_empty() {
        let arguments = [&["-K", "eth0"], features].concat();
        namespace.command("ethtool", &arguments)?;
    }
    Ok(())
}

/// Addresses under duplicate address detection can't be used yet; the flag is 0x40.
fn wait_not_tentative(namespace: &Namespace) -> Result<()> {
    const TENTATIVE: u8 = 0x40;
    let settled = namespace.run(|| {
        wait_for(Duration::from_secs(5), || {
            let addresses =
                fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
            addresses.lines().all(|line| {
                let flags = line.split_whitespace().nth(4).unwrap_or("0");
                u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & TENTATIVE == 0)
            })
        })
    })?;
    ensure!(
        settled,
        "IPv6 addresses of {} stay tentative",
        namespace.name()
    );
    Ok(())
}
