//! Nodes and pods: their namespaces, devices, addresses and routes.

use super::agent::{Agent, AgentPaths};
use super::plan::NodePlan;
use super::{Namespace, leftovers, namespace, rules};
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// A node: a namespace behind the router, with pods behind it.
#[derive(Debug)]
pub struct Node {
    plan: NodePlan,
    namespace: Namespace,
    pods: Vec<Pod>,
    paths: AgentPaths,
}

/// Something with a namespace and an address of each family: a pod, a pod that shares its node's
/// namespace, or a host outside the cluster. A handle: dropping it removes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    name: String,
    node: Option<String>,
    namespace: Namespace,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Pod {
    /// Something in a namespace that has these addresses; it is on no node.
    #[must_use]
    pub fn outside(name: &str, namespace: Namespace, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self {
            name: name.to_owned(),
            node: None,
            namespace,
            v4,
            v6,
        }
    }

    /// The pod's name, as its servers give it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its node; none outside the cluster.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The namespace to enter.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        self.v6
    }

    /// Both addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

impl Node {
    pub(crate) fn create(id: &str, router: &Namespace, plan: NodePlan) -> Result<Self> {
        let name = plan.name();
        let inside = namespace(id, &name)?;
        rules::forward_strictly(&inside)?;
        join(&inside, "eth0", router, &name)?;
        connect(&inside, router, plan)?;
        rules::load(&inside, plan)?;
        Ok(Self {
            plan,
            namespace: inside,
            pods: Vec::new(),
            paths: folders(id, &name)?,
        })
    }

    /// The node's name, also as Kubernetes object.
    #[must_use]
    pub fn name(&self) -> String {
        self.plan.name()
    }

    /// The node's addresses and those of its pods.
    #[must_use]
    pub fn plan(&self) -> NodePlan {
        self.plan
    }

    /// The namespace to enter.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The pods with a namespace of their own.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Both addresses of the node, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.plan.subnet_v4(2).into(), self.plan.subnet_v6(2).into()]
    }

    /// The node's folders: bpffs, cgroup, run, log.
    #[must_use]
    pub fn paths(&self) -> &AgentPaths {
        &self.paths
    }

    /// A pod with `hostNetwork: true`: it has the node's namespace and addresses.
    #[must_use]
    pub fn host_pod(&self, name: &str) -> Pod {
        Pod {
            name: name.to_owned(),
            node: Some(self.name()),
            namespace: self.namespace.clone(),
            v4: self.plan.subnet_v4(2),
            v6: self.plan.subnet_v6(2),
        }
    }

    /// Packets dropped so far because conntrack called them INVALID.
    ///
    /// # Errors
    /// When the counter can't be read.
    pub fn invalid_drops(&self) -> Result<u64> {
        rules::invalid_drops(&self.namespace)
    }

    /// Starts `ferrule run` on the node, reading the cluster's manifests. Does not wait: see
    /// [`Agent::wait_synced`].
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start_agent(&self, binary: &Path, extra_args: &[&str]) -> Result<Agent> {
        Agent::start(
            binary,
            &self.name(),
            &self.namespace,
            self.paths.clone(),
            extra_args,
        )
    }

    pub(crate) fn add_pod(&mut self, id: &str, name: &str) -> Result<Pod> {
        let number = u8::try_from(self.pods.len() + 2).context("too many pods on a node")?;
        let inside = namespace(id, name)?;
        let device = format!("pod{number}");
        join(&inside, "eth0", &self.namespace, &device)?;
        let (v4, v6) = (self.plan.pod_v4(number), self.plan.pod_v6(number));
        let (gateway4, gateway6) = (self.plan.pod_v4(1), self.plan.pod_v6(1));
        self.namespace.ip(&format!(
            "address add {gateway4}/32 dev {device}
             address add {gateway6}/128 dev {device} nodad
             link set {device} up
             route add {v4}/32 dev {device}
             route add {v6}/128 dev {device}\n"
        ))?;
        inside.ip(&format!(
            "address add {v4}/32 dev eth0
             address add {v6}/128 dev eth0 nodad
             link set eth0 up
             route add default via {gateway4} dev eth0 onlink
             route add default via {gateway6} dev eth0 onlink\n"
        ))?;
        let pod = Pod {
            name: name.to_owned(),
            node: Some(self.name()),
            namespace: inside,
            v4,
            v6,
        };
        self.pods.push(pod.clone());
        Ok(pod)
    }
}

/// Lays a veth between two namespaces.
pub(crate) fn join(
    one: &Namespace,
    one_device: &str,
    other: &Namespace,
    other_device: &str,
) -> Result<()> {
    let ends = ["netns", other.name()];
    one.ip(&format!(
        "link add {one_device} type veth peer name {other_device} {}\n",
        ends.join(" ")
    ))
}

/// Addresses and routes between a node and the router.
fn connect(node: &Namespace, router: &Namespace, plan: NodePlan) -> Result<()> {
    let device = plan.name();
    let (gateway4, gateway6) = (plan.subnet_v4(1), plan.subnet_v6(1));
    let (node4, node6) = (plan.subnet_v4(2), plan.subnet_v6(2));
    let (pods4, pods6) = (plan.pod_cidr_v4(), plan.pod_cidr_v6());
    router.ip(&format!(
        "address add {gateway4}/24 dev {device}
         address add {gateway6}/64 dev {device} nodad
         link set {device} up\n"
    ))?;
    node.ip(&format!(
        "address add {node4}/24 dev eth0
         address add {node6}/64 dev eth0 nodad
         link set eth0 up
         route add default via {gateway4}
         route add default via {gateway6}\n"
    ))?;
    router.ip(&format!(
        "route add {pods4} via {node4}
         route add {pods6} via {node6}\n"
    ))
}

/// The node's own bpffs, cgroup and run folder.
fn folders(id: &str, node: &str) -> Result<AgentPaths> {
    let _open = leftovers::gate();
    let cluster = leftovers::folder(id);
    let folder = cluster.join(node);
    let (bpffs, run_dir) = (folder.join("bpf"), folder.join("run"));
    fs::create_dir_all(&bpffs)?;
    fs::create_dir_all(&run_dir)?;
    let kind = Some(OsStr::new("bpf"));
    mount(kind, &bpffs, kind, MsFlags::empty(), None::<&OsStr>)
        .with_context(|| format!("can't mount bpffs on {}", bpffs.display()))?;
    let cgroup = leftovers::cgroup_root()?.map(|root| root.join(format!("{id}-{node}")));
    if let Some(cgroup) = &cgroup {
        fs::create_dir_all(cgroup)
            .with_context(|| format!("can't create cgroup {}", cgroup.display()))?;
    }
    Ok(AgentPaths {
        bpffs,
        cgroup,
        run_dir,
        manifests: cluster.join("manifests"),
        log: folder.join("agent.log"),
        cluster: id.to_owned(),
    })
}
