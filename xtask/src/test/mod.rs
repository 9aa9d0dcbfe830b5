//! `cargo xtask test`: every ring of tests that this machine can run, and one closing line.

mod tally;

use crate::setup::{self, Lack, Need};
use crate::{progress, workspace};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};
use std::time::Instant;
pub(crate) use tally::Tally;

/// Flags of `cargo xtask test`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask test
  cargo xtask test --ring 2
  cargo xtask test --allow-skip netns --allow-skip fixtures

A ring that can't run here is listed as SKIPPED and makes the command fail unless allowed.")]
pub struct Options {
    /// A ring that may be skipped if it can't run here; its name or number.
    #[arg(long, value_name = "RING", value_enum)]
    pub allow_skip: Vec<Ring>,
    /// Run only this ring; its name or number.
    #[arg(long, value_name = "RING", value_enum)]
    pub ring: Option<Ring>,
}

/// A kind of tests, from nearest to the code to nearest to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ring {
    /// Beside the code; need nothing.
    #[value(alias = "1")]
    Units,
    /// From objects to maps.
    #[value(alias = "2")]
    Scenarios,
    /// Packets through the programs, in the kernel.
    #[value(alias = "3")]
    Fixtures,
    /// Real connections through a cluster of namespaces.
    #[value(alias = "4")]
    Netns,
}

impl Ring {
    const ALL: [Self; 4] = [Self::Units, Self::Scenarios, Self::Fixtures, Self::Netns];

    fn name(self) -> &'static str {
        match self {
            Self::Units => "units",
            Self::Scenarios => "scenarios",
            Self::Fixtures => "fixtures",
            Self::Netns => "netns",
        }
    }

    /// What follows `cargo test --workspace`, one invocation each. Always the whole workspace, so
    /// that all invocations share one build.
    fn invocations(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Units => &[&["--lib", "--bins"]],
            Self::Scenarios => &[&["--test", "scenarios"]],
            Self::Fixtures => &[&["--test", "prog_run"]],
            Self::Netns => &[
                &["--test", "cluster"],
                &["--test", "netns", "--", "--test-threads=1"],
            ],
        }
    }

    fn needs(self, need: Need) -> bool {
        match need {
            // The agent embeds the BPF object, so nothing of it builds without.
            Need::Compiler => true,
            Need::Root | Need::Kernel => matches!(self, Self::Fixtures | Self::Netns),
            Need::Tools => self == Self::Netns,
            Need::Guests => false,
        }
    }
}

/// Runs the rings. The last line printed is `N passed, N failed`.
///
/// # Errors
/// When cargo can't be run at all; failed tests are an exit code.
pub fn run(options: &Options) -> Result<ExitCode> {
    let lacks = setup::prepare();
    build()?;
    let mut total = Tally::default();
    let mut skipped = Vec::new();
    for ring in Ring::ALL {
        if options.ring.is_some_and(|only| only != ring) {
            continue;
        }
        match lacks.iter().find(|lack| ring.needs(lack.need)) {
            Some(lack) => skipped.push((ring, lack)),
            None => total += run_ring(ring)?,
        }
    }
    println!();
    let complete = report_skipped(&skipped, &options.allow_skip);
    println!("{total}");
    let fine = total.failed == 0 && complete;
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds all tests at once. A failure is counted where a ring runs into it, so that rings which
/// don't share it still run.
fn build() -> Result<()> {
    let cargo = workspace::cargo(&["test", "--workspace", "--no-run"])?;
    if let Err(error) = progress::run("building all tests", "test-build", cargo) {
        println!("  {error:#}");
    }
    Ok(())
}

fn run_ring(ring: Ring) -> Result<Tally> {
    println!("\nring {}", ring.name());
    let start = Instant::now();
    let mut tally = Tally::default();
    for invocation in ring.invocations() {
        tally += run_cargo(invocation)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("ring {}: {tally}, {seconds:.1} s", ring.name());
    Ok(tally)
}

fn run_cargo(args: &[&str]) -> Result<Tally> {
    let mut child = workspace::cargo(&["test", "--workspace", "--no-fail-fast"])?
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .context("can't start cargo")?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            tally += Tally::of_line(&line);
        }
    }
    if !child.wait()?.success() {
        tally.failed = tally.failed.max(1);
    }
    Ok(tally)
}

/// Returns whether every skip was allowed.
fn report_skipped(skipped: &[(Ring, &Lack)], allowed: &[Ring]) -> bool {
    for (ring, lack) in skipped {
        println!("SKIPPED {}: {lack}", ring.name());
    }
    skipped.iter().all(|(ring, _)| allowed.contains(ring))
}
