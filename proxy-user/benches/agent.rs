//! Time that the agent takes to follow: manifests to maps, devices to hooks. See
//! docs/performance.md.

#[path = "support/frames.rs"]
mod frames;
#[path = "support/links.rs"]
mod links;
#[path = "support/manifest.rs"]
mod manifest;
#[path = "support/resident.rs"]
mod resident;
#[path = "support/stats.rs"]
mod stats;
#[path = "support/veth.rs"]
mod veth;

use anyhow::Result;
use clap::Parser;
use stats::Samples;
use std::path::Path;
use std::time::Duration;
use veth::Times;
use xtask::cluster::Cluster;

/// What does not happen in this time does not happen.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks.
const POLL: Duration = Duration::from_micros(50);
/// Milliseconds that are wanted at most, for 99 of 100.
const MANIFEST: f64 = 50.0;
const DEVICE: f64 = 20.0;

/// Time that the agent takes to follow a manifest or a new device.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo xtask bench agent
  cargo xtask bench agent -- --quick --services 1000
  cargo xtask bench agent -- --attach clsact")]
struct Options {
    /// 30 measurements instead of 200.
    #[arg(long)]
    quick: bool,
    /// Services that there are, each in two manifests of its own.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    services: u16,
    /// How the agent attaches its programs.
    #[arg(long, value_name = "METHOD", default_value = "auto", value_parser = ["auto", "tcx", "clsact"])]
    attach: String,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runs = if options.quick { 30 } else { 200 };
    let cluster = Cluster::create(1)?;
    manifest::write(&cluster, options.services)?;
    let binary = Path::new(env!("CARGO_BIN_EXE_ferrule"));
    let mut agent = cluster
        .node(1)
        .start_agent(binary, &["--attach", &options.attach])?;
    agent.wait_synced(Duration::from_secs(60))?;
    let manifest = manifest::measure(&cluster, runs)?;
    let devices = veth::measure(&cluster, runs)?;
    let [all, own] = resident::of_child("ferrule")?.map(|kilobytes| kilobytes as f64 / 1e3);
    agent.stop()?;

    println!(
        "Milliseconds, {} services, --attach {}.\n",
        options.services, options.attach
    );
    report(&manifest, &devices);
    println!("\nThe agent has {all:.1} MB in memory, {own:.1} MB of them its own.");
    Ok(())
}

fn report(manifest: &Samples, devices: &Times) {
    println!("{:44}{:>6}{:>9}{:>9}{:>9}", "", "N", "p50", "p99", "most");
    row("manifest changed -> map row changed", manifest);
    row("veth requested -> both ends up", &devices.up);
    row("veth requested -> programs in force", &devices.in_force);
    row("veth requested -> calls returned", &devices.returned);
    println!();
    verdict("manifest to map", MANIFEST, manifest);
    verdict("device to programs", DEVICE, &devices.in_force);
}

fn row(what: &str, samples: &Samples) {
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| samples.quantile(share));
    let number = samples.0.len();
    println!("{what:44}{number:>6}{p50:>9.2}{p99:>9.2}{most:>9.2}");
}

fn verdict(what: &str, wanted: f64, samples: &Samples) {
    let got = samples.quantile(0.99);
    let word = if got < wanted { "ok" } else { "MISSED" };
    println!("{what:24} wanted p99 < {wanted:.0} ms  got {got:.2} ms  {word}");
}
