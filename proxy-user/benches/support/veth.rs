//! From a new veth device to the programs on its hooks, judged by the packets that they see: a
//! program is in force before the system call that attaches it returns.

use super::frames::{self, Seen};
use super::stats::Samples;
use super::{LIMIT, POLL};
use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use std::fs::read_to_string;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use xtask::cluster::{Cluster, Namespace};

/// Interface indices of the pods' ends: from here on.
const FIRST_INDEX: u32 = 1000;

/// Milliseconds from the request that gives the node the device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// Until the device is there.
    pub(crate) there: Samples,
    /// Until both hooks have their programs: a packet has met the one that comes last, ingress.
    pub(crate) in_force: Samples,
    /// Until the agent's calls have returned, too.
    pub(crate) returned: Samples,
}

/// Gives so many devices to the node, one after the other, each the end of a veth whose other end
/// stays somewhere else, as CNI plugins do it for pods.
pub(crate) fn measure(cluster: &Cluster, runs: u32) -> Result<Times> {
    let seen = Seen::open(&cluster.node(1).paths().bpffs)?;
    let mut times = Times::default();
    for run in 0..runs {
        let veth = Veth::create(cluster, run)?;
        // For quiet, and not in step with anything.
        thread::sleep(Duration::from_millis(u64::from(50 + run % 7)));
        let [there, in_force, returned] = frames::during(veth.pod, veth.index, || {
            veth.node.run(|| veth.give_to_node(&seen))?
        })?;
        times.there.0.push(there);
        times.in_force.0.push(in_force);
        times.returned.0.push(returned);
        veth.remove()?;
    }
    Ok(times)
}

/// A pair of devices, both up and for now in the pod's namespace. So a single request is enough for
/// the node's end to appear, up and carrying packets: a second one, for the other end, would have to
/// wait until the agent's first call has returned.
struct Veth<'a> {
    node: &'a Namespace,
    pod: &'a Namespace,
    name: String,
    index: u32,
}

impl<'a> Veth<'a> {
    fn create(cluster: &'a Cluster, run: u32) -> Result<Self> {
        let (name, index) = (format!("bench{run}"), FIRST_INDEX + run);
        let pod = cluster.client().namespace();
        pod.ip(&format!(
            "link add pod{run} index {index} type veth peer name {name}
             link set pod{run} up
             link set {name} up\n"
        ))?;
        Ok(Self {
            node: cluster.node(1).namespace(),
            pod,
            name,
            index,
        })
    }

    /// To be called in the node's namespace. The clock starts when `ip`, which is already running,
    /// is told what to request.
    fn give_to_node(&self, seen: &Seen) -> Result<[f64; 3]> {
        let mut ip = waiting_ip(self.pod)?;
        let mut stdin = ip.stdin.take().context("ip has no stdin")?;
        let before = seen.read()?;
        let line = format!("link set {} netns {} up\n", self.name, self.node.name());
        let start = Instant::now();
        stdin.write_all(line.as_bytes())?;
        drop(stdin);
        let times = self.watch(start, || Ok(seen.read()? > before));
        ensure!(ip.wait()?.success(), "ip failed: {line}");
        times
    }

    /// Asking for programs takes the lock that attaching holds, so that comes after the packet.
    fn watch(&self, start: Instant, is_seen: impl Fn() -> Result<bool>) -> Result<[f64; 3]> {
        let entry = format!("{}:", self.name);
        let is_there = || Ok(read_to_string("/proc/thread-self/net/dev")?.contains(&entry));
        let there = wait(start, is_there)?;
        let in_force = wait(start, is_seen)?;
        SchedClassifier::query_tcx(&self.name, TcAttachType::Ingress)?;
        Ok([there, in_force, milliseconds(start)])
    }

    fn remove(self) -> Result<()> {
        self.node.ip(&format!("link delete {}\n", self.name))?;
        // The agent takes note of that, too.
        thread::sleep(Duration::from_millis(20));
        Ok(())
    }
}

/// `ip` that waits for commands.
fn waiting_ip(place: &Namespace) -> Result<Child> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped());
    let ip = place.spawn(command).context("can't start ip")?;
    thread::sleep(Duration::from_millis(20));
    Ok(ip)
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
