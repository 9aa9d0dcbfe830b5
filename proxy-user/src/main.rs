//! The `ferrule` command: subcommand to module, outcome to exit code.

use clap::{Parser, Subcommand};
use proxy_user::{agent, cli, config};
use std::process::ExitCode;

/// Kubernetes Services in eBPF: takes kube-proxy's place on a node.
#[derive(Debug, Parser)]
#[command(name = "ferrule", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent: follow Services and write them to the datapath.
    Run(Box<config::Run>),
    /// Prepare the node for an agent with few privileges: mounts and settings of the kernel.
    Init(cli::init::Init),
    /// Show what the agent and the datapath are doing.
    Status(cli::status::Status),
    /// Show which of the kernel's features there are, and what is used instead of the others.
    Check(cli::check::Check),
    /// Remove everything that Ferrule has set up on this node.
    Cleanup(cli::cleanup::Cleanup),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(run) => agent::run(&run),
        Command::Init(init) => cli::init::run(&init),
        Command::Status(status) => cli::status::run(&status),
        Command::Check(check) => cli::check::run(&check),
        Command::Cleanup(cleanup) => cli::cleanup::run(&cleanup),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ferrule: {error:#}");
            ExitCode::FAILURE
        }
    }
}
