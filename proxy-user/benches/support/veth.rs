//! From a new veth device to the programs on its hooks.

use super::stats::Samples;
use super::{LIMIT, POLL};
use anyhow::{Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use std::fs::read_to_string;
use std::thread;
use std::time::{Duration, Instant};
use xtask::cluster::{Cluster, Namespace};

/// Milliseconds from the moment that a device is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// Until egress has a program.
    pub(crate) egress: Samples,
    /// Until ingress has one, too.
    pub(crate) both: Samples,
}

/// Makes so many devices on the node, one after the other, each the end of a veth whose other end is
/// somewhere else, as CNI plugins do it for pods.
pub(crate) fn measure(cluster: &Cluster, runs: u32) -> Result<Times> {
    let (node, pod) = (cluster.node(1).namespace(), cluster.client().namespace());
    let mut times = Times::default();
    for run in 0..runs {
        let name = format!("bench{run}");
        let make = format!(
            "link add {name} type veth peer name {name} netns {}\n",
            node.name()
        );
        let (egress, both) = thread::scope(|scope| {
            let watcher = scope.spawn(|| node.run(|| watch(&name)));
            pod.ip(&make)?;
            watcher
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
        })?;
        times.egress.0.push(egress);
        times.both.0.push(both);
        remove(node, &name)?;
    }
    Ok(times)
}

/// Waits in the node's namespace for the device, then for its programs.
fn watch(name: &str) -> Result<(f64, f64)> {
    let entry = format!("{name}:");
    wait(|| Ok(read_to_string("/proc/thread-self/net/dev")?.contains(&entry)))?;
    let egress = wait(|| has_program(name, TcAttachType::Egress))?;
    let ingress = wait(|| has_program(name, TcAttachType::Ingress))?;
    Ok((egress, egress + ingress))
}

/// Milliseconds until it is done.
fn wait(done: impl Fn() -> Result<bool>) -> Result<f64> {
    let start = Instant::now();
    while !done()? {
        ensure!(start.elapsed() < LIMIT, "nothing happens in {LIMIT:?}");
        thread::sleep(POLL);
    }
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

fn has_program(name: &str, hook: TcAttachType) -> Result<bool> {
    let (_, programs) = SchedClassifier::query_tcx(name, hook)?;
    Ok(!programs.is_empty())
}

fn remove(node: &Namespace, name: &str) -> Result<()> {
    node.ip(&format!("link delete {name}\n"))?;
    // The agent takes note of that, too.
    thread::sleep(Duration::from_millis(20));
    Ok(())
}
