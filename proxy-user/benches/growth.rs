//! What a packet costs against the number of services, of endpoints of a service, and of flows
//! (BPF_PROG_TEST_RUN). See docs/performance.md.

#[path = "growth/axis.rs"]
mod axis;
#[expect(dead_code, reason = "the rest is for other benchmarks")]
#[path = "support/contest.rs"]
mod contest;
#[path = "support/cpu.rs"]
mod cpu;
#[expect(dead_code, reason = "the rest is for other benchmarks")]
#[path = "support/lab.rs"]
mod lab;
#[path = "growth/packets.rs"]
mod packets;
#[path = "support/place.rs"]
mod place;
#[path = "growth/plot.rs"]
mod plot;
#[path = "growth/report.rs"]
mod report;
#[path = "support/services.rs"]
mod services;
#[path = "support/stats.rs"]
mod stats;

use anyhow::{Context as _, Result};
use axis::{Axis, Point};
use clap::Parser;
use contest::{Effort, Outcome, merge};
use lab::Lab;
use report::{Course, Results};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a packet costs against the number of services, of endpoints of a service, and of flows.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo xtask bench growth
  cargo xtask bench growth -- --quick --only flows")]
struct Options {
    /// Fewer rounds, and more noise.
    #[arg(long)]
    quick: bool,
    /// Leave out the rest.
    #[arg(long, value_enum)]
    only: Option<Axis>,
    /// Where table, pictures and figures go.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let folder = match &options.folder {
        Some(folder) => folder.clone(),
        None => xtask::workspace::target()?.join("bench/growth"),
    };
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let bpffs = place::private_bpffs()?;
    cpu::stay_on_one_cpu()?;
    let effort = Effort {
        rounds: if options.quick { 7 } else { 21 },
        repeat: 10_000,
    };
    println!(
        "Packets of IPv4 against services, endpoints and flows: about {} s, and 2 GB of memory at most;\nresults in {}",
        if options.quick { 20 } else { 30 },
        folder.display()
    );
    let mut results = Results::default();
    for axis in Axis::ALL {
        if options.only.is_none_or(|only| only == axis) {
            let course = run(&bpffs, axis, effort)?;
            println!("\n{}", report::markdown(&course));
            results.courses.push(course);
        }
    }
    results.write(&folder)?;
    plot::draw(&results, &folder)
}

/// All points of an axis, in turns.
fn run(bpffs: &Path, axis: Axis, effort: Effort) -> Result<Course> {
    let start = Instant::now();
    let mut labs = Vec::new();
    for point in axis.points() {
        let folder = bpffs.join(axis.name()).join(point.at.to_string());
        let mut lab = Lab::load(&folder, point.size)
            .with_context(|| format!("{} {}", point.at, axis.name()))?;
        packets::crowd(&mut lab, point)?;
        println!(
            "{}: {} laid out after {} s",
            axis.name(),
            point.at,
            start.elapsed().as_secs()
        );
        labs.push((point, lab));
    }
    let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); labs.len()];
    for number in 0..effort.rounds {
        for ((point, lab), all) in labs.iter_mut().zip(&mut outcomes) {
            merge(all, packets::round(lab, axis, *point, effort)?);
        }
        if (number + 1) % 7 == 0 {
            let seconds = start.elapsed().as_secs();
            println!(
                "{}: round {} of {} after {seconds} s",
                axis.name(),
                number + 1,
                effort.rounds
            );
        }
    }
    let points: Vec<Point> = labs.into_iter().map(|(point, _)| point).collect();
    Course::of(axis, &points, &outcomes)
}
