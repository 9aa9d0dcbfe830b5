//! `cargo xtask demo`: three nodes, three agents, real connections, and the maps that carried them.

mod maps;
mod picture;
mod questions;
mod stage;

use crate::cluster::{Cluster, Namespace, Pod};
use crate::setup;
use crate::traffic::Server;
use anyhow::{Context, Result, ensure};
use clap::Args;
use stage::{Objects, Stage};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread;

/// Flags of `cargo xtask demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask demo
  cargo xtask demo --keep
  cargo xtask demo --api --keep
  cargo xtask demo --down")]
pub struct Options {
    /// Leave the cluster up and print commands to play with it.
    #[arg(long, conflicts_with = "down")]
    pub keep: bool,
    /// Let the agents watch an API server instead of a folder of manifests.
    #[arg(long, conflicts_with = "down")]
    pub api: bool,
    /// Remove clusters that were left up, and do nothing else.
    #[arg(long)]
    pub down: bool,
    /// Connections of each kind.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(30..=10_000))]
    pub connections: u32,
}

/// Flags of the hidden command that serves as a pod.
#[derive(Debug, Args)]
pub struct Serve {
    /// The pod's name.
    pub name: String,
    /// The network namespace.
    pub namespace: String,
    /// The pod's IPv4 address.
    pub v4: Ipv4Addr,
    /// The pod's IPv6 address.
    pub v6: Ipv6Addr,
    /// The port, TCP and UDP.
    pub port: u16,
}

/// Builds Ferrule, runs the demo, and removes it.
///
/// # Errors
/// When something is missing, does not build or start, or a connection fails or goes wrong.
pub fn run(options: &Options) -> Result<()> {
    if options.down {
        let removed = Cluster::remove_kept()?;
        println!("{removed} clusters removed");
        return Ok(());
    }
    setup::ready()?;
    let binary = stage::build()?;
    let objects = match options.api {
        true => Objects::Api,
        false => Objects::Folder,
    };
    let stage = Stage::set(&binary, objects)?;
    println!("\n{}", picture::draw(&stage));
    let outcomes =
        questions::ask_all(&stage, options.connections).inspect_err(|_| stage.print_logs())?;
    println!("{}", questions::report(&outcomes));
    println!("{}", maps::show(stage.cluster.node(1))?);
    let wrong: Vec<String> = outcomes
        .iter()
        .flat_map(|asked| asked.wrong(&stage))
        .collect();
    if options.keep {
        stage.keep(&binary)?;
    } else {
        drop(stage);
        println!("removed everything again");
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\nerror: "));
    println!("every connection was answered, by the right pods, with the right source");
    Ok(())
}

/// Serves until it is killed.
///
/// # Errors
/// When the sockets can't be bound.
pub fn serve(options: &Serve) -> Result<()> {
    let namespace = Namespace::named(&options.namespace);
    let pod = Pod::outside(&options.name, namespace, options.v4, options.v6);
    let _server = Server::start(&pod, options.port)
        .with_context(|| format!("{} can't serve on port {}", options.name, options.port))?;
    loop {
        thread::park();
    }
}
