//! `cargo xtask test`: every ring of tests that this machine can run, and one closing line.

mod tally;

use crate::setup::{self, Need};
use crate::{progress, vm, workspace};
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
  cargo xtask test --ring kernels --long
  cargo xtask test --allow-skip netns --allow-skip fixtures

A ring that can't run here is listed as SKIPPED and makes the command fail unless allowed.")]
pub struct Options {
    /// A ring that may be skipped if it can't run here; its name or number.
    #[arg(long, value_name = "RING", value_enum)]
    pub allow_skip: Vec<Ring>,
    /// Run only this ring; its name or number.
    #[arg(long, value_name = "RING", value_enum)]
    pub ring: Option<Ring>,
    /// Also what takes too long for every change: all of rings 3 and 4 on every kernel, instead of
    /// their core on the oldest and the newest.
    #[arg(long)]
    pub long: bool,
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
    /// What the real kube-proxy does, recorded: its objects and packets, decided on the host.
    Conformance,
    /// Packets through the programs, in the kernel.
    #[value(alias = "3")]
    Fixtures,
    /// Real connections through a cluster of namespaces.
    #[value(alias = "4")]
    Netns,
    /// Rings 3 and 4 on other kernels, in virtual machines.
    #[value(alias = "5")]
    Kernels,
}

impl Ring {
    const ALL: [Self; 6] = [
        Self::Units,
        Self::Scenarios,
        Self::Conformance,
        Self::Fixtures,
        Self::Netns,
        Self::Kernels,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Units => "units",
            Self::Scenarios => "scenarios",
            Self::Conformance => "conformance",
            Self::Fixtures => "fixtures",
            Self::Netns => "netns",
            Self::Kernels => "kernels",
        }
    }

    /// What follows `cargo test --workspace`, one invocation each. Always the whole workspace, so
    /// that all invocations share one build. Guests have no cargo.
    fn invocations(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Units => &[&["--lib", "--bins"], &["--test", "deploy"]],
            Self::Scenarios => &[&["--test", "scenarios"]],
            Self::Conformance => &[&[
                "--test",
                "conformance",
                "--test",
                "conformance_units",
                "--test",
                "conformance_health",
            ]],
            Self::Fixtures => &[&["--test", "prog_run"]],
            Self::Netns => &[
                &["--test", "cluster"],
                &["--test", "image"],
                &["--test", "netns", "--", "--test-threads=1"],
            ],
            Self::Kernels => &[],
        }
    }

    fn needs(self, need: Need) -> bool {
        match need {
            // The agent embeds the BPF object, so nothing of it builds without.
            Need::Compiler => true,
            Need::Root | Need::Kernel => matches!(self, Self::Fixtures | Self::Netns),
            Need::Tools => matches!(self, Self::Netns | Self::Kernels),
            Need::Applications => self == Self::Netns,
            Need::Guests => self == Self::Kernels,
            Need::Images => false,
        }
    }
}

/// Runs the rings. The last line printed is `N passed, N failed`.
///
/// # Errors
/// When cargo can't be run at all; failed tests are an exit code.
pub fn run(options: &Options) -> Result<ExitCode> {
    let rings = Ring::ALL.into_iter();
    let rings: Vec<Ring> = rings
        .filter(|ring| options.ring.is_none_or(|only| only == *ring))
        .collect();
    let mut lacks = setup::prepare();
    if rings.contains(&Ring::Netns) {
        lacks.extend(setup::prepare_applications());
    }
    if rings.contains(&Ring::Kernels) {
        lacks.extend(setup::prepare_guests());
    }
    build()?;
    let mut outcomes = Vec::new();
    for ring in rings {
        let outcome = match lacks.iter().find(|lack| ring.needs(lack.need)) {
            Some(lack) => Outcome::Skipped(lack.to_string()),
            None => run_ring(ring, options.long)?,
        };
        outcomes.push((ring, outcome));
    }
    Ok(report(&outcomes, &options.allow_skip))
}

/// What became of a ring.
enum Outcome {
    /// Sums and seconds.
    Ran(Tally, f64),
    /// Why it could not run.
    Skipped(String),
}

/// Prints a line for each ring, and the sums; whether all is well is the exit code.
fn report(outcomes: &[(Ring, Outcome)], allowed: &[Ring]) -> ExitCode {
    println!();
    let mut total = Tally::default();
    let mut is_complete = true;
    for (ring, outcome) in outcomes {
        match outcome {
            Outcome::Ran(tally, seconds) => {
                println!("ring {}: {tally}, {seconds:.1} s", ring.name());
                total += *tally;
            }
            Outcome::Skipped(why) => {
                println!("SKIPPED {}: {why}", ring.name());
                is_complete &= allowed.contains(ring);
            }
        }
    }
    println!("{total}");
    if total.failed == 0 && is_complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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

fn run_ring(ring: Ring, long: bool) -> Result<Outcome> {
    println!("\nring {}", ring.name());
    let start = Instant::now();
    let mut tally = Tally::default();
    let skips = skips(ring);
    for invocation in ring.invocations() {
        // Only the last one is followed by words for the tests.
        let skips = if invocation.contains(&"--") {
            &skips[..]
        } else {
            &[]
        };
        tally += run_cargo(&[invocation, skips].concat())?;
    }
    if ring == Ring::Kernels {
        match run_guests(long) {
            Ok(guests) => tally += guests,
            Err(why) => return Ok(Outcome::Skipped(why)),
        }
    }
    Ok(Outcome::Ran(tally, start.elapsed().as_secs_f64()))
}

/// What this machine's kernel can't run; says so, because the guests of another ring run it.
fn skips(ring: Ring) -> Vec<&'static str> {
    if ring != Ring::Netns {
        return Vec::new();
    }
    let left = vm::left_to_guests().inspect(|(test, kind)| {
        println!("  left to ring kernels: {test} (no {kind} here)");
    });
    left.flat_map(|(test, _)| ["--skip", test]).collect()
}

/// Returns the sums, or why there are no kernels to boot.
fn run_guests(long: bool) -> Result<Tally, String> {
    let options = if long {
        vm::Options::long()
    } else {
        println!("  left to --long: whatever else is in rings 3 and 4, and the kernels between");
        vm::Options::short()
    };
    match vm::kernels(&options) {
        Ok(kernels) => Ok(vm::boot_all(&kernels, &options).unwrap_or_else(|error| {
            println!("error: {error:#}");
            // The other rings' sums are still to be told.
            let (passed, failed) = (0, 1);
            Tally { passed, failed }
        })),
        Err(error) => Err(format!("{error:#}")),
    }
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
