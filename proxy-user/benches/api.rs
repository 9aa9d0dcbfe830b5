//! The agent against an API server on the same machine: how soon its maps follow a whole cluster and single
//! changes, and what it takes of the machine's memory. See docs/performance.md.

#[path = "api/agent.rs"]
mod agent;
#[path = "api/delays.rs"]
mod delays;
#[path = "api/load.rs"]
mod load;
#[path = "programming/population.rs"]
mod population;

use agent::Agent;
use anyhow::{Result, ensure};
use clap::Parser;
use load::Load;
use population::Population;
use proxy_user::datapath::object::Sizes;
use std::path::PathBuf;
use std::time::Duration;
use xtask::cluster::Cluster;

/// Endpoints of the one Service that has many.
const MANY: u32 = 5_000;
/// More the agent does not take.
const MOST_BACKENDS: u32 = 2_097_152;
/// What takes longer does not come any more.
const LIMIT: Duration = Duration::from_secs(120);
/// What is wanted of 10,000 Services with 10 endpoints, and of 100,000.
const WANTED: [(u32, Wanted); 2] = [
    (
        10_000,
        Wanted {
            seconds: 2.0,
            megabytes: 100.0,
        },
    ),
    (
        100_000,
        Wanted {
            seconds: 10.0,
            megabytes: 1_000.0,
        },
    ),
];

/// Milliseconds from the bytes of an event to the maps, for 99 of 100.
const FOLLOW: f64 = 1.0;

/// What is wanted at most.
#[derive(Clone, Copy)]
struct Wanted {
    seconds: f64,
    megabytes: f64,
}

/// The agent against an API server.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo xtask bench api
  cargo xtask bench api -- --quick
  cargo xtask bench api -- --services 100000 --starts 1 --seconds 10")]
struct Options {
    /// One start, and changes for five seconds.
    #[arg(long)]
    quick: bool,
    /// Services, with one port each.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    services: u32,
    /// Endpoints of each Service.
    #[arg(long, value_name = "N", default_value_t = 10)]
    endpoints: u32,
    /// How often the agent is started.
    #[arg(long, value_name = "N", default_value_t = 5)]
    starts: u32,
    /// Seconds for which endpoints change.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Changes in a second.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    rate: u32,
    /// The server does not stream lists: objects come in pages, as before Kubernetes 1.34.
    #[arg(long)]
    pages: bool,
    /// The agent, instead of the one that cargo has built; for example that of an image.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_ferrule"))]
    binary: PathBuf,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Of the agent: socket load balancing has no part in this, and a million endpoints need room.
    fn flags(&self) -> Vec<String> {
        let room = (self.services * self.endpoints + MANY) * 2;
        let mut flags = vec!["--socket-lb".to_owned(), "off".to_owned()];
        if room > Sizes::DEFAULT.max_backends {
            flags.extend([
                "--max-backends".to_owned(),
                room.min(MOST_BACKENDS).to_string(),
            ]);
        }
        flags
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        options.services > 0 && options.endpoints > 0,
        "nothing to do"
    );
    let (starts, seconds) = if options.quick {
        (1, 5)
    } else {
        (options.starts, options.seconds)
    };
    agent::yield_to_agents()?;
    let cluster = Cluster::create(1)?;
    let population = Population {
        services: options.services,
        endpoints: options.endpoints,
    };
    let mut load = Load::prepare(&cluster, population, MANY, !options.pages)?;
    println!(
        "{} Services of one port, {} endpoints each, and one of {MANY}; {}.\n",
        options.services,
        options.endpoints,
        if options.pages {
            "lists in pages"
        } else {
            "streamed lists"
        }
    );
    start(&cluster, &load, starts, &options)?;
    follow(&cluster, &mut load, seconds, &options)
}

/// From nothing at all to all maps.
fn start(cluster: &Cluster, load: &Load, starts: u32, options: &Options) -> Result<()> {
    let mut times = Vec::new();
    let mut memory = [0.0; 2];
    for _ in 0..starts {
        let agent = Agent::start(
            &options.binary,
            cluster,
            &load.kubeconfig(),
            &options.flags(),
        )?;
        times.push(agent.synced(LIMIT)?.as_secs_f64());
        memory = agent.memory()?;
        agent.stop_and_clean(cluster)?;
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!("start of the process to all maps: {median:.2} s (median of {starts}: {times:.2?})");
    let [all, own] = memory;
    println!("memory of the agent: {all:.1} MB, {own:.1} MB of them its own");
    let wanted = WANTED
        .iter()
        .find(|(services, _)| *services == options.services);
    if let Some((_, wanted)) = wanted {
        verdict("start to maps", wanted.seconds, median, "s");
        verdict("memory", wanted.megabytes, all, "MB");
    }
    Ok(())
}

/// Endpoint by endpoint.
fn follow(cluster: &Cluster, load: &mut Load, seconds: u32, options: &Options) -> Result<()> {
    let agent = Agent::start(
        &options.binary,
        cluster,
        &load.kubeconfig(),
        &options.flags(),
    )?;
    agent.synced(LIMIT)?;
    println!();
    for (what, of_many) in [
        ("of all Services", false),
        ("of the Service that has many", true),
    ] {
        let before = agent.delays(cluster)?;
        let changes = load.change(options.rate, seconds, of_many)?;
        let delays = agent.delays(cluster)?.since(&before);
        let [p50, p99] = [0.5, 0.99].map(|share| delays.quantile(share));
        println!(
            "{changes} changes {what} in {seconds} s, {} deliveries, bytes to maps: p50 <= {p50:.2} ms, p99 <= {p99:.2} ms",
            delays.count()
        );
        verdict("event to maps, p99", FOLLOW, p99, "ms");
    }
    let [all, own] = agent.memory()?;
    println!("memory of the agent afterwards: {all:.1} MB, {own:.1} MB of them its own");
    agent.stop_and_clean(cluster)
}

fn verdict(what: &str, wanted: f64, got: f64, unit: &str) {
    let word = if got <= wanted { "ok" } else { "MISSED" };
    println!("  {what:24} wanted <= {wanted} {unit}  got {got:.2} {unit}  {word}");
}
