//! The `ferrule` command: subcommand to module, outcome to exit code.

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
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
    #[command(args_override_self = true)]
    Run(Box<RunOrCheck>),
    /// Prepare the node for an agent with few privileges: mounts and settings of the kernel.
    Init(cli::init::Init),
    /// Show what the agent and the datapath are doing.
    Status(cli::status::Status),
    /// Say what would become of a packet on this node, and why.
    Explain(Box<cli::explain::Explain>),
    /// Show which of the kernel's features there are, and what is used instead of the others.
    Check(cli::check::Check),
    /// Remove everything that Ferrule has set up on this node.
    Cleanup(cli::cleanup::Cleanup),
}

/// Flags of `ferrule run`.
#[derive(Debug, Args)]
struct RunOrCheck {
    #[command(flatten)]
    check: cli::configuration::CheckConfig,
    #[command(flatten)]
    run: config::Run,
}

fn main() -> ExitCode {
    let command = config::with_environment(Cli::command());
    let words = config::without_empty(&command, std::env::args_os());
    let matches = command.get_matches_from(words);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let outcome = match cli.command {
        Command::Run(run) => match &run.check.check_config {
            Some(file) => cli::configuration::run(&run.check, file, &run.run),
            None => agent::run(&run.run),
        },
        Command::Init(init) => cli::init::run(&init),
        Command::Status(status) => cli::status::run(&status),
        Command::Explain(explain) => cli::explain::run(&explain),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_do_not_contradict_each_other() {
        config::with_environment(Cli::command()).debug_assert();
    }

    #[test]
    fn of_a_flag_that_is_given_twice_the_last_counts() {
        let words = [
            "--max-flows=2048",
            "--max-flows=4096",
            "-v=1",
            "-v=2",
            "--cluster-cidr=10.0.0.0/16,fd00::/48",
            "--cluster-cidr=10.1.0.0/16,fd00:1::/48",
        ];
        let words = ["ferrule", "run"].into_iter().chain(words);
        let Command::Run(run) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!("it is run");
        };
        assert_eq!(run.run.max_flows, 4096);
        let ranges = run.run.cluster_cidr.iter().map(ToString::to_string);
        let last = ["10.1.0.0/16", "fd00:1::/48"];
        assert_eq!(ranges.collect::<Vec<_>>(), last, "lists too");
        assert_eq!(run.run.kube_proxy.verbosity, Some(2));
    }
}
