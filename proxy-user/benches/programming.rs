//! Time from objects in memory to rows in maps, and what both take of the machine's memory. See
//! docs/performance.md.

#[path = "support/cpu.rs"]
mod cpu;
#[path = "programming/memory.rs"]
mod memory;
#[expect(dead_code, reason = "what of it others need")]
#[path = "side/netfilter.rs"]
mod netfilter;
#[path = "support/place.rs"]
mod place;
#[path = "programming/population.rs"]
mod population;
#[expect(dead_code, reason = "what of it others need")]
#[path = "side/services.rs"]
mod services;
#[path = "programming/stage.rs"]
mod stage;
#[path = "support/stats.rs"]
mod stats;

use anyhow::{Result, ensure};
use clap::Parser;
use netfilter::Writer;
use population::{Member, Population};
use proxy_user::source::Event;
use services::Services;
use stage::{Cost, Stage};
use stats::Samples;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;
use xtask::cluster::Cluster;

/// Endpoints of the one Service that has many.
const MANY: u32 = 5_000;
/// For rules that take longer there are too many Services.
const LIMIT: Duration = Duration::from_secs(900);
/// Services of which events come together while memory is looked at.
const BATCH: usize = 100;
/// Milliseconds and MiB that are wanted at most.
const TRANSLATE: f64 = 200.0;
const TOTAL: f64 = 250.0;
/// Services and endpoints for which those of a batch are wanted.
const WANTED_FOR: (u32, u32) = (10_000, 10);
const CHANGE: f64 = 1.0;
const MAPS: f64 = 100.0;

/// Time from objects in memory to rows in maps.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo xtask bench programming
  cargo xtask bench programming -- --quick
  cargo xtask bench programming -- --services 20000
  cargo xtask bench programming -- --against-nftables      # 20 s more")]
struct Options {
    /// Fewer repetitions and changes.
    #[arg(long)]
    quick: bool,
    /// Services, with one port each.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    services: u32,
    /// Endpoints of each Service.
    #[arg(long, value_name = "N", default_value_t = 10)]
    endpoints: u32,
    /// Also load the rules of kube-proxy for as many ports and endpoints by nft, in one transaction.
    #[arg(long)]
    against_nftables: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        options.services > 0 && options.endpoints > 0,
        "nothing to do"
    );
    // It needs the machine's mounts.
    let nftables = options.against_nftables.then(|| nftables(&options));
    let bpffs = place::private_bpffs()?;
    cpu::stay_on_one_cpu()?;
    let population = Population {
        services: options.services,
        endpoints: options.endpoints,
    };
    let (repetitions, changes) = if options.quick { (3, 200) } else { (11, 2_000) };
    println!(
        "{} Services of one port, {} endpoints each; one CPU.\n",
        options.services, options.endpoints
    );
    memory_of(&bpffs, population)?;
    all_at_once(&bpffs, population, repetitions)?;
    one_by_one(&bpffs, population, changes)?;
    if let Some(time) = nftables {
        println!("\n{:40}{:>10.1}", "ms, the same in nftables", millis(time?));
    }
    Ok(())
}

/// Services have two ports each there: half as many are as many ports.
fn nftables(options: &Options) -> Result<Duration> {
    let cluster = Cluster::create(1)?;
    let services = Services {
        count: options.services / 2,
        server: Ipv4Addr::LOCALHOST,
    };
    let endpoints = (1..=options.endpoints).map(|number| {
        let base = Ipv4Addr::new(10, 128, 0, 0).to_bits();
        Ipv4Addr::from_bits(base + number).to_string()
    });
    let rules = Writer::Nftables.rules(services, &endpoints.collect::<Vec<_>>());
    Writer::Nftables.load(cluster.node(1).namespace(), &rules, LIMIT)
}

/// What is there at the start and when all is written.
fn memory_of(bpffs: &Path, population: Population) -> Result<()> {
    let mut stage = Stage::new(bpffs)?;
    let (maps, process) = (memory::of_maps(&stage.pins())?, memory::resident()?);
    let mut members = population.members();
    loop {
        let some: Vec<Member> = members.by_ref().take(BATCH).collect();
        if some.is_empty() {
            break;
        }
        stage.apply(some.iter().flat_map(Member::events).collect())?;
    }
    stage.check(population.services, population.all_endpoints())?;
    let (full, grown) = (memory::of_maps(&stage.pins())?, memory::resident()?);
    println!("{:40}{:>10}{:>10}", "MiB", "empty", "full");
    let line = |what, empty: f64, full: f64| println!("{what:40}{empty:>10.1}{full:>10.1}");
    line("maps", maps, full);
    line("process: its own", process.anonymous, grown.anonymous);
    line("process: files and shared maps", process.file, grown.file);
    verdict("maps at the start, MiB", MAPS, maps);
    stage.end()
}

/// All objects in one batch, into empty maps.
fn all_at_once(bpffs: &Path, population: Population, repetitions: usize) -> Result<()> {
    let mut costs = Vec::new();
    for _ in 0..repetitions {
        let mut stage = Stage::new(bpffs)?;
        let events: Vec<Event> = population
            .members()
            .flat_map(|member| member.events().collect::<Vec<_>>())
            .collect();
        costs.push(stage.apply(events)?);
        stage.check(population.services, population.all_endpoints())?;
        stage.end()?;
    }
    let samples = |part: Part| Samples(costs.iter().map(|cost| millis(part(*cost))).collect());
    println!(
        "\n{:40}{:>10}{:>10}{:>10}",
        "ms, all in one batch", "median", "least", "most"
    );
    for (what, part) in PARTS {
        let samples = samples(part);
        let [median, least, most] = [0.5, 0.0, 1.0].map(|share| samples.quantile(share));
        println!("{what:40}{median:>10.1}{least:>10.1}{most:>10.1}");
    }
    if (population.services, population.endpoints) == WANTED_FOR {
        let median = |part| samples(part).quantile(0.5);
        verdict("objects to ops, ms", TRANSLATE, median(Cost::translate));
        verdict("objects to last row, ms", TOTAL, median(|cost| cost.total));
    }
    Ok(())
}

/// Parts of a batch's time.
const PARTS: [(&str, Part); 4] = [
    ("objects to ops", Cost::translate),
    ("ops to maps", |cost| cost.write),
    ("all", |cost| cost.total),
    ("CPU time of all", |cost| cost.cpu),
];

/// A part of what a batch has cost.
type Part = fn(Cost) -> Duration;

/// One endpoint after the other is replaced, among all, then in a Service that has many.
fn one_by_one(bpffs: &Path, population: Population, changes: u32) -> Result<()> {
    let mut stage = Stage::new(bpffs)?;
    let mut members: Vec<Member> = population.members().collect();
    stage.apply(members.iter().flat_map(Member::events).collect())?;
    let mut unused = population.all_endpoints()..;
    let mut few = Samples::default();
    for change in 0..changes {
        // A number without common divisors takes all of them, in no order.
        let number = change as usize * 7_919 % members.len();
        let endpoint = unused.next().unwrap_or_default();
        let member = &mut members[number];
        let event = member.replace(change % population.endpoints, endpoint);
        few.0.push(millis(stage.apply(vec![event])?.total));
    }
    let mut member = Member::new(population.services, unused.next().unwrap_or_default(), MANY);
    let mut unused = unused.start + MANY..;
    stage.apply(member.events().collect())?;
    let mut many = Samples::default();
    for change in 0..changes / 4 {
        let endpoint = unused.next().unwrap_or_default();
        let event = member.replace(change * 37 % MANY, endpoint);
        many.0.push(millis(stage.apply(vec![event])?.total));
    }
    stage.check(population.services + 1, population.all_endpoints() + MANY)?;
    stage.end()?;
    println!(
        "\n{:40}{:>10}{:>10}{:>10}{:>10}",
        "ms, one endpoint replaced", "N", "p50", "p99", "most"
    );
    changed(&format!("among {}", population.endpoints), &few);
    changed(&format!("among {MANY}"), &many);
    verdict("among few: p99, ms", CHANGE, few.quantile(0.99));
    verdict("among many: p99, ms", CHANGE, many.quantile(0.99));
    Ok(())
}

fn changed(what: &str, samples: &Samples) {
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| samples.quantile(share));
    let number = samples.0.len();
    println!("{what:40}{number:>10}{p50:>10.3}{p99:>10.3}{most:>10.3}");
}

fn verdict(what: &str, wanted: f64, got: f64) {
    let word = if got <= wanted { "ok" } else { "MISSED" };
    println!("{what:40} wanted <= {wanted}  got {got:.3}  {word}");
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
