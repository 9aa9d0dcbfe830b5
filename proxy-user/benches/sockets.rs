//! What the programs at cgroups cost an application: sockets that dial frontends, beside such that dial the
//! backend itself and are in no cgroup with programs. See docs/performance.md.

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/dialling.rs"]
mod dialling;
#[path = "support/hooked.rs"]
mod hooked;
#[path = "support/stats.rs"]
mod stats;

use anyhow::{Context as _, Result};
use clap::Parser;
use dialling::{Measured, PORT, Way, serve};
use hooked::Hooked;
use stats::Samples;
use xtask::cluster::Cluster;

/// What the programs at cgroups cost an application.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo xtask bench sockets
  cargo xtask bench sockets -- --quick")]
struct Options {
    /// 9 rounds instead of 41.
    #[arg(long)]
    quick: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

const SERVICES: [u32; 3] = [1, 1_000, 100_000];

fn main() -> Result<()> {
    let options = Options::parse();
    let rounds = if options.quick { 9 } else { 41 };
    println!(
        "{rounds} rounds for each number of services, about {} s",
        rounds * 6
    );
    cpu::stay_on_one_cpu()?;
    let mut cluster = Cluster::create(1)?;
    let client = cluster.add_pod(1, "app")?;
    let server = cluster.add_pod(1, "server")?;
    serve(server.namespace())?;
    let node = cluster.node(1);
    let cgroup = node.paths().cgroup.clone().context("no cgroup v2")?;
    let mut hooked = Hooked::load(&node.paths().bpffs, &cgroup)?;
    let inside = client.within(&cgroup);
    for services in SERVICES {
        hooked.fill(services, server.v4(), PORT)?;
        let ways = [
            Way::direct(client.namespace().clone(), server.v4()),
            Way::through_one(inside.namespace().clone(), services),
            Way::through_all(inside.namespace().clone(), services),
        ];
        contest(services, &ways, rounds)?;
    }
    Ok(())
}

/// They take turns; who begins changes with each round.
fn contest(services: u32, ways: &[Way; 3], rounds: u32) -> Result<()> {
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    // The first is not counted: it warms the caches.
    for round in 0..=rounds {
        let mut order = [0, 1, 2];
        order.rotate_left(round as usize % 3);
        for index in order {
            let measured = ways[index].measure()?;
            if round > 0 {
                all[index].push(measured);
            }
        }
    }
    let [direct, one, by_turns] = all;
    report(
        &format!("{services} services, always the same one"),
        [&direct, &one],
    );
    report(
        &format!("{services} services by turns"),
        [&direct, &by_turns],
    );
    Ok(())
}

fn report(title: &str, [direct, through]: [&[Measured]; 2]) {
    println!(
        "\n{title:28}{:>12}{:>12}{:>34}",
        "direct", "through", "median (middle half) of rounds"
    );
    for (what, read) in Measured::TIMES {
        let pairs = direct.iter().zip(through);
        let more = Samples(pairs.map(|(a, b)| read(b) - read(a)).collect());
        row(what, read, [direct, through], &more, 0, "ns more");
    }
    for (what, read) in Measured::RATES {
        let pairs = direct.iter().zip(through);
        let ratios = Samples(pairs.map(|(a, b)| read(b) / read(a)).collect());
        row(what, read, [direct, through], &ratios, 3, "of direct");
    }
}

fn row(
    what: &str,
    read: fn(&Measured) -> f64,
    [direct, through]: [&[Measured]; 2],
    compared: &Samples,
    digits: usize,
    unit: &str,
) {
    let median = |all: &[Measured]| Samples(all.iter().map(read).collect()).quantile(0.5);
    let [low, middle, high] = [0.25, 0.5, 0.75].map(|share| compared.quantile(share));
    println!(
        "  {what:26}{:>12.0}{:>12.0}{middle:>10.digits$} ({low:.digits$}-{high:.digits$}) {unit}",
        median(direct),
        median(through)
    );
}
