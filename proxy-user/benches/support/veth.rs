//! From a new veth device to the programs on its hooks, judged by the packets that they see: a
//! program is in force before the system call that attaches it returns.

use super::frames::{self, Seen};
use super::links::Links;
use super::stats::Samples;
use super::{LIMIT, POLL};
use anyhow::{Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkMessage};
use rtnetlink::{LinkUnspec, LinkVeth};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};
use xtask::cluster::{Cluster, Namespace};

/// Interface indices of both ends: from here on.
const FIRST_INDEX: u32 = 1000;

/// Milliseconds from the request for the device, before it is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// Until both ends are up: there can be packets.
    pub(crate) up: Samples,
    /// Until both hooks have their programs: a packet has met the one that comes last, ingress.
    pub(crate) in_force: Samples,
    /// Until the agent's calls have returned, too.
    pub(crate) returned: Samples,
}

/// Makes so many devices on the node, one after the other, each the end of a veth whose other end is
/// somewhere else, as CNI plugins do it for pods.
pub(crate) fn measure(cluster: &Cluster, runs: u32) -> Result<Times> {
    let ground = Ground::open(cluster)?;
    let mut times = Times::default();
    for index in FIRST_INDEX..FIRST_INDEX + runs {
        // For quiet, and not in step with anything: the agent takes note of the last one's end.
        thread::sleep(Duration::from_millis(u64::from(50 + index % 7)));
        let [up, in_force, returned] = ground.measure(index)?;
        times.up.0.push(up);
        times.in_force.0.push(in_force);
        times.returned.0.push(returned);
    }
    Ok(times)
}

/// Where it happens.
struct Ground<'a> {
    node: &'a Namespace,
    pod: &'a Namespace,
    node_links: Links,
    pod_links: Links,
    pod_file: File,
    seen: Seen,
}

impl<'a> Ground<'a> {
    fn open(cluster: &'a Cluster) -> Result<Self> {
        let (node, pod) = (cluster.node(1).namespace(), cluster.client().namespace());
        Ok(Self {
            node,
            pod,
            node_links: Links::open(node)?,
            pod_links: Links::open(pod)?,
            pod_file: File::open(pod.path())?,
            seen: Seen::open(&cluster.node(1).paths().bpffs)?,
        })
    }

    fn measure(&self, index: u32) -> Result<[f64; 3]> {
        let (name, pod_end) = (format!("bench{index}"), format!("pod{index}"));
        let veth = self.veth(&name, &pod_end, index);
        let times = frames::during(self.pod, &pod_end, || {
            self.node.run(|| self.follow(&name, index, veth))?
        })?;
        self.node.ip(&format!("link delete {name}\n"))?;
        Ok(times)
    }

    /// The node's end is up when it appears. The kernel does not allow that of the other one.
    fn veth(&self, name: &str, pod_end: &str, index: u32) -> LinkMessage {
        let pod_end = LinkUnspec::new_with_name(pod_end)
            .index(index)
            .setns_by_fd(self.pod_file.as_raw_fd())
            .build();
        LinkVeth::new(name, "")
            .set_info_data(InfoData::Veth(InfoVeth::Peer(pod_end)))
            .index(index)
            .up()
            .build()
    }

    /// To be called in the node's namespace.
    fn follow(&self, name: &str, index: u32, veth: LinkMessage) -> Result<[f64; 3]> {
        let pod_end = LinkUnspec::new_with_index(index).up();
        let before = self.seen.read()?;
        let start = Instant::now();
        self.node_links.add(veth)?;
        self.pod_links.set(pod_end.build())?;
        let up = milliseconds(start);
        let in_force = wait(start, || Ok(self.seen.read()? > before))?;
        // This takes the lock that attaching holds, so it comes after the packet.
        SchedClassifier::query_tcx(name, TcAttachType::Ingress)?;
        Ok([up, in_force, milliseconds(start)])
    }
}

/// Milliseconds from `start` until it is done.
fn wait(start: Instant, done: impl Fn() -> Result<bool>) -> Result<f64> {
    while !done()? {
        ensure!(start.elapsed() < LIMIT, "nothing happens in {LIMIT:?}");
        thread::sleep(POLL);
    }
    Ok(milliseconds(start))
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
