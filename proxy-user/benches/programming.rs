//! Time from objects in memory to rows in maps, and what both take of the machine's memory. See
//! docs/performance.md.

#[path = "support/cpu.rs"]
mod cpu;
#[path = "programming/memory.rs"]
mod memory;
#[path = "support/place.rs"]
mod place;
#[path = "programming/population.rs"]
mod population;
#[path = "programming/stage.rs"]
mod stage;
#[path = "support/stats.rs"]
mod stats;

use anyhow::Result;
use clap::Parser;
use population::{Member, Population};
use proxy_user::source::Event;
use stage::{Cost, Stage};
use stats::Samples;
use std::path::Path;
use std::time::Duration;

/// Endpoints of the one Service that has many.
const MANY: u32 = 5_000;
/// Rows of each flow table: the product's default.
const MAX_FLOWS: u32 = 262_144;
/// Services of which events come together while memory is looked at.
const BATCH: usize = 100;
/// Milliseconds and MiB that are wanted at most.
const TRANSLATE: f64 = 200.0;
const TOTAL: f64 = 250.0;
const CHANGE: f64 = 1.0;
const MAPS: f64 = 100.0;

/// Time from objects in memory to rows in maps.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo xtask bench programming
  cargo xtask bench programming -- --services 20000
  cargo xtask bench programming -- --quick")]
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
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
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
    one_by_one(&bpffs, population, changes)
}

/// What is there at the start and when all is written.
fn memory_of(bpffs: &Path, population: Population) -> Result<()> {
    let mut stage = Stage::new(bpffs, MAX_FLOWS)?;
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
        let mut stage = Stage::new(bpffs, MAX_FLOWS)?;
        let events: Vec<Event> = population
            .members()
            .flat_map(|member| member.events().collect::<Vec<_>>())
            .collect();
        costs.push(stage.apply(events)?);
        stage.check(population.services, population.all_endpoints())?;
        stage.end()?;
    }
    let samples = |part: fn(Cost) -> Duration| {
        Samples(costs.iter().map(|cost| millis(part(*cost))).collect())
    };
    println!(
        "\n{:40}{:>10}{:>10}{:>10}",
        "ms, all in one batch", "median", "least", "most"
    );
    for (what, part) in PARTS {
        let samples = samples(part);
        let [median, least, most] = [0.5, 0.0, 1.0].map(|share| samples.quantile(share));
        println!("{what:40}{median:>10.1}{least:>10.1}{most:>10.1}");
    }
    let median = |part| samples(part).quantile(0.5);
    verdict("objects to ops, ms", TRANSLATE, median(Cost::translate));
    verdict("objects to last row, ms", TOTAL, median(|cost| cost.total));
    Ok(())
}

/// Parts of a batch's time.
const PARTS: [(&str, fn(Cost) -> Duration); 3] = [
    ("objects to ops", Cost::translate),
    ("ops to maps", |cost| cost.write),
    ("all", |cost| cost.total),
];

/// One endpoint after the other is replaced, among all, then in a Service that has many.
fn one_by_one(bpffs: &Path, population: Population, changes: u32) -> Result<()> {
    let mut stage = Stage::new(bpffs, MAX_FLOWS)?;
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
