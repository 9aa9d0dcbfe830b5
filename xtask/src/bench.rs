//! `cargo xtask bench`: measurements, with everything they need installed first.

use crate::setup;
use crate::workspace;
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

/// Flags of `cargo xtask bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask bench
  cargo xtask bench side-by-side -- --quick
  cargo xtask bench packet
  cargo xtask bench growth -- --quick
  cargo xtask bench agent -- --services 1000
  cargo xtask bench api -- --quick
  cargo xtask bench sockets -- --quick
  cargo xtask bench programming")]
pub struct Options {
    /// What to measure.
    #[arg(value_enum, default_value = "side-by-side")]
    pub subject: Subject,
    /// Flags for the benchmark itself.
    #[arg(last = true)]
    pub args: Vec<String>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Ferrule, kube-proxy's rules and nothing at all, under the same load.
    SideBySide,
    /// Nanoseconds that the programs take for a packet.
    Packet,
    /// The same against the number of services, endpoints and flows.
    Growth,
    /// Time from a change of objects to the maps.
    Agent,
    /// The agent against an API server: start, changes, memory.
    Api,
    /// What the programs at cgroups cost an application.
    Sockets,
    /// Time from objects in memory to rows in maps, and memory.
    Programming,
}

/// Runs the benchmark, its output as it comes.
///
/// # Errors
/// When something is missing, or the benchmark does not build or fails.
pub fn run(options: &Options) -> Result<()> {
    match options.subject {
        Subject::SideBySide => setup::ready_to_compare()?,
        Subject::Packet
        | Subject::Growth
        | Subject::Agent
        | Subject::Api
        | Subject::Sockets
        | Subject::Programming => setup::ready()?,
    }
    let name = match options.subject {
        Subject::SideBySide => "side_by_side",
        Subject::Packet => "packet",
        Subject::Growth => "growth",
        Subject::Agent => "agent",
        Subject::Api => "api",
        Subject::Sockets => "sockets",
        Subject::Programming => "programming",
    };
    let mut cargo = workspace::cargo(&["bench", "-p", "proxy-user", "--bench", name])?;
    if !options.args.is_empty() {
        cargo.arg("--").args(&options.args);
    }
    let status = cargo.status()?;
    ensure!(status.success(), "the benchmark failed ({status})");
    Ok(())
}
