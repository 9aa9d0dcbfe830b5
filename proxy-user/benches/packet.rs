//! Nanoseconds that the programs take for a packet (BPF_PROG_TEST_RUN), and what they are compared
//! with. See docs/performance.md.

#[path = "support/contest.rs"]
mod contest;
#[path = "support/cores.rs"]
mod cores;
#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/decisions.rs"]
mod decisions;
#[path = "support/journeys.rs"]
mod journeys;
#[path = "support/lab.rs"]
mod lab;
#[path = "support/ladder.rs"]
mod ladder;
#[path = "support/packets.rs"]
mod packets;
#[path = "support/place.rs"]
mod place;
#[path = "support/services.rs"]
mod services;
#[path = "support/stats.rs"]
mod stats;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use contest::Effort;

/// Nanoseconds that the programs take for a packet.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo xtask bench packet
  cargo xtask bench packet -- --quick --only decisions")]
struct Options {
    /// A tenth of the time, and more noise.
    #[arg(long)]
    quick: bool,
    /// Leave out the rest.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The product's programs and their yardstick.
    Journeys,
    /// An established packet, step by step.
    Ladder,
    /// Established packets on one CPU, and on two at once.
    Cores,
    /// Ways to build them, compared.
    Decisions,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let bpffs = place::private_bpffs()?;
    let cpus = std::thread::available_parallelism()?.get();
    cpu::stay_on_one_cpu()?;
    let effort = if options.quick {
        Effort {
            rounds: 9,
            repeat: 5_000,
        }
    } else {
        Effort {
            rounds: 41,
            repeat: 10_000,
        }
    };
    let is_wanted = |part| options.only.is_none_or(|only| only == part);
    if is_wanted(Part::Journeys) {
        journeys::run(&bpffs, effort)?;
    }
    if is_wanted(Part::Ladder) {
        ladder::run(&bpffs, effort)?;
    }
    if is_wanted(Part::Cores) {
        cores::run(&bpffs, effort, cpus)?;
        cpu::stay_on_one_cpu()?;
    }
    if is_wanted(Part::Decisions) {
        decisions::run(&bpffs, effort)?;
    }
    Ok(())
}
