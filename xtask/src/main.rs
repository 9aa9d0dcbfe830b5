//! `cargo xtask`: the development commands.

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use xtask::{api, bench, demo, image, setup, test, tidy, vm};

/// Ferrule's development commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check this machine and install what is missing.
    Setup(setup::Options),
    /// Run every test that this machine can run.
    Test(test::Options),
    /// Show a cluster of three nodes at work, on this machine.
    Demo(demo::Options),
    /// Measure packets or the agent.
    Bench(bench::Options),
    /// Build the image for containers.
    Image(image::Options),
    /// Check the rules of the repository.
    Tidy(tidy::Options),
    /// Run the tests on other kernels, in virtual machines.
    Vm(vm::Options),
    /// Be the first process of a virtual machine.
    #[command(hide = true)]
    Guest(vm::guest::Options),
    /// Serve as one pod of a demo that stays up.
    #[command(hide = true)]
    Serve(demo::Serve),
    /// Serve the Kubernetes API of a demo that stays up.
    #[command(hide = true)]
    ServeApi(api::command::Serve),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(options) => setup::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Test(options) => test::run(&options),
        Task::Demo(options) => demo::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Bench(options) => bench::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Image(options) => image::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Tidy(options) => tidy::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Vm(options) => vm::run(&options),
        Task::Guest(options) => vm::guest::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Serve(options) => demo::serve(&options).map(|()| ExitCode::SUCCESS),
        Task::ServeApi(options) => api::command::serve(&options).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
