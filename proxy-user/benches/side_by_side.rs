//! Side by side: the same load by way of Ferrule, of kube-proxy's rules, and of nothing at all. See
//! docs/performance.md.

#[path = "side/clock.rs"]
mod clock;
#[path = "side/contestant.rs"]
mod contestant;
#[path = "side/costs.rs"]
mod costs;
#[path = "support/cpu.rs"]
mod cpu;
#[path = "side/empty.rs"]
mod empty;
#[path = "side/estimate.rs"]
mod estimate;
#[path = "side/ferrule.rs"]
mod ferrule;
#[path = "side/load.rs"]
mod load;
#[path = "side/memory.rs"]
mod memory;
#[path = "side/netfilter.rs"]
mod netfilter;
#[path = "side/plot.rs"]
mod plot;
#[path = "side/report.rs"]
mod report;
#[path = "side/results.rs"]
mod results;
#[path = "side/server.rs"]
mod server;
#[path = "side/services.rs"]
mod services;
#[path = "side/wanted.rs"]
mod wanted;

use anyhow::{Context as _, Result};
use clap::Parser;
use contestant::{Contestant, Environment, Setting, Stage};
use load::Kind;
use results::{Heat, Outcome, Results};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The same load by way of Ferrule, of kube-proxy's rules, and of nothing at all.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo xtask bench side-by-side
  cargo xtask bench side-by-side -- --quick
  cargo xtask bench side-by-side -- --only direct,empty,stack --services 1 --nodes 2
  cargo xtask bench side-by-side -- --folder DIR      # goes on where a run in DIR was broken off")]
struct Options {
    /// 1 and 10,000 Services on two nodes, at most 12 rounds: under ten minutes.
    #[arg(long)]
    quick: bool,
    /// Contestants; direct always takes part.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,..")]
    only: Vec<Contestant>,
    /// Numbers of Services.
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    services: Vec<u32>,
    /// Numbers of nodes on the way: 1 or 2.
    #[arg(long, value_delimiter = ',', value_name = "N,..", value_parser = clap::value_parser!(u8).range(1..=2))]
    nodes: Vec<u8>,
    /// What else is on the nodes.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,..")]
    environment: Vec<Environment>,
    /// Where tables, pictures and figures go, and where earlier ones are.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

const FEWEST: usize = 10;
const MOST: usize = 40;
const MOST_QUICK: usize = 12;
/// A figure is known when half of its interval is narrower than this share of it.
const CERTAIN: f64 = 0.01;
/// For rules that take longer there are too many Services.
const LIMIT: Duration = Duration::from_secs(300);
const LIMIT_QUICK: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let options = Options::parse();
    cpu::stay_on_one_cpu()?;
    let folder = match &options.folder {
        Some(folder) => folder.clone(),
        None => xtask::workspace::target()?.join("bench"),
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let mut results = match options.folder {
        Some(_) => Results::read(&folder)?,
        None => Results::default(),
    };
    let settings = options.settings();
    let contestants = options.contestants();
    println!(
        "{} settings of {} contestants, up to {} minutes; results in {}",
        settings.len(),
        contestants.len(),
        options.minutes(&settings, contestants.len()),
        folder.display()
    );
    for setting in settings {
        if results.has(setting) {
            println!("{}: known", report::title(setting));
            continue;
        }
        let heat = options.run(setting, &contestants)?;
        results.heats.push(heat);
        results.write(&folder)?;
        let text = report::markdown(&results);
        std::fs::write(folder.join("table.md"), &text)?;
        let last = Results {
            heats: results.heats.last().cloned().into_iter().collect(),
        };
        println!("\n{}", report::markdown(&last));
    }
    plot::draw(&results, &folder)
}

impl Options {
    fn settings(&self) -> Vec<Setting> {
        let or = |given: &[u32], quick: &[u32], all: &[u32]| match (given, self.quick) {
            ([], true) => quick.to_vec(),
            ([], false) => all.to_vec(),
            (given, _) => given.to_vec(),
        };
        let services = or(&self.services, &[1, 10_000], &[1, 1_000, 10_000, 100_000]);
        let nodes: Vec<u32> = self.nodes.iter().copied().map(u32::from).collect();
        let nodes = or(&nodes, &[2], &[1, 2]);
        let environments = match self.environment.as_slice() {
            [] => vec![Environment::Bare, Environment::Tracking],
            given => given.to_vec(),
        };
        let mut settings = Vec::new();
        for &services in &services {
            for &nodes in &nodes {
                settings.extend(environments.iter().map(|&environment| Setting {
                    environment,
                    nodes: nodes as u8,
                    services,
                }));
            }
        }
        settings
    }

    fn contestants(&self) -> Vec<Contestant> {
        let is_wanted = |it: &Contestant| {
            self.only.is_empty() || *it == Contestant::Direct || self.only.contains(it)
        };
        Contestant::ALL.into_iter().filter(is_wanted).collect()
    }

    fn most(&self) -> usize {
        if self.quick { MOST_QUICK } else { MOST }
    }

    fn minutes(&self, settings: &[Setting], contestants: usize) -> usize {
        // A round of one takes a third of a second; rules of 10,000 Services half a minute a node.
        let rounds = settings.len() * contestants * self.most() / 3;
        let rules: usize = settings.iter().map(|it| it.services as usize / 150).sum();
        1 + (rounds + rules) / 60
    }

    fn run(&self, setting: Setting, contestants: &[Contestant]) -> Result<Heat> {
        println!("{}: setting up", report::title(setting));
        let limit = if self.quick { LIMIT_QUICK } else { LIMIT };
        let mut heat = Heat {
            setting,
            outcomes: BTreeMap::new(),
        };
        let mut stages = Vec::new();
        for &contestant in contestants {
            let outcome = heat.outcomes.entry(contestant).or_default();
            match Stage::new(contestant, setting, limit) {
                Ok(stage) => {
                    outcome.programming = stage.programming;
                    outcome.maps = stage.maps;
                    stages.push(stage);
                }
                // There is nothing to compare the others with.
                Err(error) if contestant == Contestant::Direct => return Err(error),
                Err(error) => {
                    let problem = format!("{error:#}");
                    println!("{} does not take part: {problem}", contestant.name());
                    outcome.problem = Some(problem);
                }
            }
        }
        for round in 0..self.most() {
            // Who begins changes with each round.
            let first = round % stages.len();
            stages.rotate_left(first);
            for stage in &stages {
                let outcome = heat.outcomes.entry(stage.contestant).or_default();
                measure(stage, outcome)
                    .with_context(|| format!("{}, round {round}", stage.contestant.name()))?;
            }
            if round + 1 >= FEWEST && is_certain(&heat) {
                break;
            }
        }
        Ok(heat)
    }
}

/// How many of each there are in a round: some 40 ms.
const COUNTS: [(Kind, usize); 5] = [
    (Kind::Request, 4_000),
    (Kind::Short, 1_000),
    (Kind::Stream, 256),
    (Kind::Datagram, 4_000),
    (Kind::FirstDatagram, 2_000),
];

fn measure(stage: &Stage, outcome: &mut Outcome) -> Result<()> {
    stage.forget()?;
    for (kind, count) in COUNTS {
        let work = || stage.targets().measure(kind, count);
        let sample = stage.client().namespace().run(work)?;
        let sample = sample.with_context(|| kind.name())?;
        outcome.rates.entry(kind).or_default().push(sample.rate);
        outcome.cpu.entry(kind).or_default().push(sample.cpu);
        outcome.spent.add(sample.spent);
        if let Some(times) = sample.times {
            outcome.latencies.entry(kind).or_default().push(times);
        }
    }
    Ok(())
}

/// Whether all that is wanted is known well enough.
fn is_certain(heat: &Heat) -> bool {
    let setting = heat.setting;
    let wanted = wanted::ALL
        .iter()
        .filter(|it| it.applies(setting.environment, setting.services));
    let mut pairs = wanted.flat_map(|it| it.kinds.iter().map(move |kind| (it, *kind)));
    pairs.all(|(wanted, kind)| {
        let found = heat.ratio([wanted.of, wanted.against], kind);
        found.is_none_or(|found| found.uncertainty() < CERTAIN)
    })
}
