//! From a new veth device to the programs on its hooks.

use super::stats::Samples;
use super::{LIMIT, POLL};
use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use rtnetlink::{Handle, LinkVeth, new_connection};
use std::time::{Duration, Instant};
use xtask::cluster::{Cluster, Namespace};

/// Milliseconds from the request for a device on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// Until the kernel has answered that it is there.
    pub(crate) there: Samples,
    /// Until both hooks have a program.
    pub(crate) attached: Samples,
}

/// Makes so many devices on the node, one after the other. Both ends of a veth are the agent's work;
/// what counts is the end that a node keeps.
pub(crate) fn measure(cluster: &Cluster, runs: u32) -> Result<Times> {
    let place = cluster.node(1).namespace();
    let mut times = Times::default();
    for run in 0..runs {
        let name = format!("bench{run}");
        let (there, attached) = place.run(|| inside(&name))??;
        times.there.0.push(there);
        times.attached.0.push(attached);
        remove(place, &name)?;
    }
    Ok(times)
}

fn inside(name: &str) -> Result<(f64, f64)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        one(&handle, name).await
    })
}

async fn one(handle: &Handle, name: &str) -> Result<(f64, f64)> {
    let device = LinkVeth::new(name, &format!("{name}p")).build();
    let start = Instant::now();
    let since = || start.elapsed().as_secs_f64() * 1000.0;
    handle
        .link()
        .add(device)
        .execute()
        .await
        .context("making a veth")?;
    let there = since();
    while !(has_program(name, TcAttachType::Egress)? && has_program(name, TcAttachType::Ingress)?) {
        ensure!(start.elapsed() < LIMIT, "{name}: no programs in {LIMIT:?}");
        std::thread::sleep(POLL);
    }
    Ok((there, since()))
}

fn has_program(name: &str, hook: TcAttachType) -> Result<bool> {
    let (_, programs) = SchedClassifier::query_tcx(name, hook)?;
    Ok(!programs.is_empty())
}

fn remove(place: &Namespace, name: &str) -> Result<()> {
    place.ip(&format!("link delete {name}\n"))?;
    // The agent takes note of that, too.
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}
