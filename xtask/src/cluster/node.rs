//! Nodes and pods: their namespaces, devices, addresses and routes.

use super::agent::{Agent, AgentPaths, Source};
use super::plan::NodePlan;
use super::pod::Pod;
use super::shape::{PodLink, Shape};
use super::tracked::{self, Tracked};
use super::{Namespace, cgroup, leftovers, namespace, rules, set_offloads, uplink};
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use std::ffi::OsStr;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A node: a namespace behind the router, with pods behind it.
#[derive(Debug)]
pub struct Node {
    plan: NodePlan,
    shape: Shape,
    namespace: Namespace,
    pods: Vec<Pod>,
    paths: AgentPaths,
}

impl Node {
    pub(crate) fn create(
        id: &str,
        router: &Namespace,
        plan: NodePlan,
        shape: Shape,
    ) -> Result<Self> {
        let name = plan.name();
        let inside = namespace(id, &name)?;
        rules::forward_strictly(&inside)?;
        rules::restrict_families(&inside, shape.families)?;
        uplink::lay(&inside, router, plan, shape)?;
        set_offloads(&inside, shape.offloads)?;
        rules::load(&inside, plan, shape.masquerade)?;
        let node = Self {
            plan,
            shape,
            namespace: inside,
            pods: Vec::new(),
            paths: folders(id, &name)?,
        };
        node.lay_bridge()?;
        Ok(node)
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

    /// What its network is made of.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The node's folders: bpffs, cgroup, run, log.
    #[must_use]
    pub fn paths(&self) -> &AgentPaths {
        &self.paths
    }

    /// Makes a cgroup below the node's own, as kubelet does for a pod.
    ///
    /// # Errors
    /// When the machine has no cgroup v2, or it can't be made.
    pub fn add_cgroup(&self, name: &str) -> Result<PathBuf> {
        let mut path = self.paths.cgroup.clone().context("no cgroup v2")?;
        for part in name.split('/') {
            path.push(part);
            if !path.exists() {
                cgroup::make(&path)?;
            }
        }
        Ok(path)
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
            families: self.shape.families,
        }
    }

    /// Packets dropped so far because conntrack called them INVALID.
    ///
    /// # Errors
    /// When the counter can't be read.
    pub fn invalid_drops(&self) -> Result<u64> {
        rules::invalid_drops(&self.namespace)
    }

    /// The connections that the node's conntrack knows.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn tracked(&self) -> Result<Vec<Tracked>> {
        tracked::list(&self.namespace)
    }

    /// Makes the node's conntrack forget all connections.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_tracked(&self) -> Result<()> {
        tracked::forget(&self.namespace)
    }

    /// Starts `ferrule run` on the node, reading the cluster's manifests. Does not wait: see
    /// [`Agent::wait_synced`].
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start_agent(&self, binary: &Path, extra_args: &[&str]) -> Result<Agent> {
        self.start_agent_from(Source::Manifests, binary, extra_args)
    }

    /// As [`Node::start_agent`], with objects from elsewhere.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start_agent_from(
        &self,
        source: Source<'_>,
        binary: &Path,
        extra_args: &[&str],
    ) -> Result<Agent> {
        let paths = self.paths.clone();
        Agent::start(
            binary,
            &self.name(),
            &self.namespace,
            paths,
            source,
            extra_args,
        )
    }

    pub(crate) fn add_pod(&mut self, id: &str, name: &str) -> Result<Pod> {
        let number = u8::try_from(self.pods.len() + 2).context("too many pods on a node")?;
        let inside = namespace(id, name)?;
        rules::restrict_families(&inside, self.shape.families)?;
        let device = format!("pod{number}");
        join(&inside, "eth0", &self.namespace, &device)?;
        let mtu = self.shape.nodes.mtu();
        inside.ip(&format!("link set eth0 mtu {mtu} up\n"))?;
        set_offloads(&inside, self.shape.offloads)?;
        let pod = Pod {
            name: name.to_owned(),
            node: Some(self.name()),
            namespace: inside,
            v4: self.plan.pod_v4(number),
            v6: self.plan.pod_v6(number),
            families: self.shape.families,
        };
        match self.shape.pods {
            PodLink::Routed => self.route(&pod, &device)?,
            PodLink::Bridge | PodLink::FilteredBridge => self.plug(&pod, &device)?,
        }
        self.pods.push(pod.clone());
        Ok(pod)
    }

    /// Runs a batch of `ip` commands on the node, without the lines of a family that it lacks.
    pub(crate) fn ip(&self, batch: &str) -> Result<()> {
        self.namespace.ip(&self.shape.families.only(batch))
    }

    /// A pod's device with a route of its own.
    fn route(&self, pod: &Pod, device: &str) -> Result<()> {
        let (v4, v6) = (pod.v4, pod.v6);
        let (gateway4, gateway6) = (self.plan.pod_v4(1), self.plan.pod_v6(1));
        self.ip(&format!(
            "address add {gateway4}/32 dev {device}
             address add {gateway6}/128 dev {device} nodad
             link set {device} mtu {mtu} up
             route add {v4}/32 dev {device}
             route add {v6}/128 dev {device}\n",
            mtu = self.shape.nodes.mtu(),
        ))?;
        let batch = format!(
            "address add {v4}/32 dev eth0
             address add {v6}/128 dev eth0 nodad
             route add default via {gateway4} dev eth0 onlink
             route add default via {gateway6} dev eth0 onlink\n"
        );
        pod.namespace.ip(&self.shape.families.only(&batch))
    }

    /// A pod's device as a port of the bridge.
    fn plug(&self, pod: &Pod, device: &str) -> Result<()> {
        let (v4, v6) = (pod.v4, pod.v6);
        let (gateway4, gateway6) = (self.plan.pod_v4(1), self.plan.pod_v6(1));
        let mtu = self.shape.nodes.mtu();
        // What netfilter translates on the bridge is switched, also back to where it came from.
        let hairpin = match self.shape.pods {
            PodLink::FilteredBridge => "on",
            PodLink::Routed | PodLink::Bridge => "off",
        };
        self.ip(&format!(
            "link set {device} mtu {mtu} master {BRIDGE} up
             link set {device} type bridge_slave hairpin {hairpin}\n"
        ))?;
        let batch = format!(
            "address add {v4}/24 dev eth0
             address add {v6}/64 dev eth0 nodad
             route add default via {gateway4}
             route add default via {gateway6}\n"
        );
        pod.namespace.ip(&self.shape.families.only(&batch))
    }

    /// The bridge for pods, if there is to be one.
    fn lay_bridge(&self) -> Result<()> {
        let is_filtered = match self.shape.pods {
            PodLink::Routed => return Ok(()),
            PodLink::Bridge => "0",
            PodLink::FilteredBridge => "1",
        };
        let (gateway4, gateway6) = (self.plan.pod_v4(1), self.plan.pod_v6(1));
        self.ip(&format!(
            "link add {BRIDGE} mtu {mtu} type bridge
             address add {gateway4}/24 dev {BRIDGE}
             address add {gateway6}/64 dev {BRIDGE} nodad
             link set {BRIDGE} up\n",
            mtu = self.shape.nodes.mtu(),
        ))?;
        rules::filter_switched(&self.namespace, is_filtered)
    }
}

/// The device of [`PodLink::Bridge`].
const BRIDGE: &str = "cni0";

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
    let cgroup = cgroup::root()?.map(|root| root.join(format!("{id}-{node}")));
    if let Some(cgroup) = &cgroup {
        cgroup::make(cgroup)?;
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
