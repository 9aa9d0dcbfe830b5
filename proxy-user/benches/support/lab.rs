//! The product's object with its maps full of services, and beside it the object of the benchmarks.

use super::services::{self, BACKENDS};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use proxy_common::Counter;
use proxy_user::datapath::features::{Feature, Features};
use proxy_user::datapath::filter::{FILTERS, FilterMap};
use proxy_user::datapath::hook::{Framing, Hook};
use proxy_user::datapath::object::{self, Loaded, Options, Sizes};
use proxy_user::datapath::pins::{PINNED_MAPS, Pins};
use proxy_user::datapath::{Datapath as _, readings};
use std::path::Path;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ferrule-bench"));

/// Rows of each flow table: twice the product's default, so that all new flows of a run find room.
pub(crate) const MAX_FLOWS: u32 = 262_144;
/// Words of `STATE`: the saved headers, then `spread`, `runs`, `hits` and `salt`.
const STATE: usize = 19;
const SPREAD: usize = 15;
const HITS: usize = 17;
const SALT: usize = 18;
/// The kernel rounds a run's time down to nanoseconds: a sample is the mean of so many calls.
pub(crate) const CALLS: u32 = 5;
/// Where the headers that are saved start.
const NETWORK: usize = 14;

/// Loaded objects.
pub(crate) struct Lab {
    /// How many services its maps hold.
    pub(crate) services: u32,
    pins: Pins,
    product: Loaded,
    bench: Ebpf,
}

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// The product's, after `replay` or `vary`.
    Product(&'static str, Hook),
    /// One of the bench object, after `replay` or `vary`.
    Bench(&'static str, &'static str),
    /// One of the bench object, alone.
    Alone(&'static str),
}

/// What must have happened in all runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof {
    /// The last run's return code says enough.
    Returned,
    /// The product has counted every run here.
    Counted(Counter),
    /// Every run found what it looked for.
    Hit,
    /// None did.
    Missed,
}

/// One thing to measure.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// What is run.
    pub(crate) program: Program,
    /// On what.
    pub(crate) packet: Vec<u8>,
    /// Over how many services or rows.
    pub(crate) spread: u32,
    /// See `State` of the bench object.
    pub(crate) salt: u32,
    /// What must have happened.
    pub(crate) proof: Proof,
}

/// How much a lab's maps hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) services: u32,
    /// Of each service, for each family.
    pub(crate) backends: u32,
    /// Rows of each table of confirmed flows.
    pub(crate) max_flows: u32,
}

impl Size {
    /// So many services, the rest as usual.
    pub(crate) const fn of(services: u32) -> Self {
        Self {
            services,
            backends: BACKENDS,
            max_flows: MAX_FLOWS,
        }
    }
}

impl Lab {
    /// Loads the objects and fills the maps, which a lab in the same folder shares.
    pub(crate) fn load(folder: &Path, size: Size) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let pins = Pins::new(folder);
        let options = Options {
            pins: pins.clone(),
            sizes: Sizes {
                max_flows: size.max_flows,
                ..Sizes::DEFAULT
            },
            log_decisions: false,
            has_fast_lane: false,
            has_random_in_packet: false,
            features: Features::probe_used().expect("the kernel answers"),
        };
        let mut product = object::load(&options)?;
        product.kernel.configure(&services::config())?;
        let ops = services::ops(size.services, size.backends);
        let (applied, outcome) = product.kernel.apply(&ops);
        outcome.with_context(|| format!("filling the maps, write {applied}"))?;
        // As the agent does it once it knows all rows.
        for name in FILTERS {
            FilterMap::open(&pins, name)?.begin_epoch();
        }
        let bench = load_bench(&options)?;
        Ok(Self {
            services: size.services,
            pins,
            product,
            bench,
        })
    }

    /// What the product makes of a packet.
    pub(crate) fn pass(&mut self, hook: Hook, packet: &[u8]) -> Result<Vec<u8>> {
        let program = object::program(&mut self.product.programs, hook, Framing::Ethernet)?;
        Ok(run(program, packet, 1)?.1)
    }

    /// Nanoseconds of one run, the harness's included; and what the last run has made of the packet.
    pub(crate) fn measure(&mut self, trial: &Trial, repeat: u32) -> Result<(f64, Vec<u8>)> {
        self.set_state(trial)?;
        let entry = self.aim(trial.program)?;
        let before = self.proven(trial.proof)?;
        let mut sum = 0.0;
        let mut output = Vec::new();
        for _ in 0..CALLS {
            let (time, out) = run(self.program(entry)?, &trial.packet, repeat)?;
            sum += time;
            output = out;
        }
        let found = self.proven(trial.proof)? - before;
        let wanted = match trial.proof {
            Proof::Counted(_) | Proof::Hit => u64::from(repeat * CALLS),
            Proof::Returned | Proof::Missed => 0,
        };
        ensure!(
            found == wanted,
            "{trial:?}: {found} instead of {wanted} of {repeat} * {CALLS}"
        );
        Ok((sum / f64::from(CALLS), output))
    }

    /// Fills a map of the bench object; the rows' words are plain.
    pub(crate) fn fill<const K: usize, const V: usize>(
        &mut self,
        name: &str,
        rows: impl Iterator<Item = ([u32; K], [u32; V])>,
    ) -> Result<()> {
        let map = self
            .bench
            .map_mut(name)
            .with_context(|| format!("no map {name}"))?;
        let mut map: HashMap<_, [u32; K], [u32; V]> = map.try_into()?;
        for (key, value) in rows {
            map.insert(key, value, 0)?;
        }
        Ok(())
    }

    fn set_state(&mut self, trial: &Trial) -> Result<()> {
        let mut map = self.state()?;
        let mut state = map.get(&0, 0)?;
        let headers = trial.packet.get(NETWORK..).unwrap_or_default();
        for (word, bytes) in state[..SPREAD].iter_mut().zip(headers.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        state[SPREAD] = trial.spread;
        state[HITS] = 0;
        state[SALT] = trial.salt;
        Ok(map.set(0, state, 0)?)
    }

    fn state(&mut self) -> Result<Array<&mut MapData, [u32; STATE]>> {
        let map = self.bench.map_mut("STATE").context("no map STATE")?;
        Ok(map.try_into()?)
    }

    /// Points the harness at the program; returns the one to start with.
    fn aim(&mut self, program: Program) -> Result<&'static str> {
        let (entry, target) = match program {
            Program::Alone(entry) => return Ok(entry),
            Program::Product(entry, hook) => {
                let target = object::program(&mut self.product.programs, hook, Framing::Ethernet)?;
                (entry, target.fd()?.try_clone()?)
            }
            Program::Bench(entry, target) => (entry, self.program(target)?.fd()?.try_clone()?),
        };
        self.set_target(&target)?;
        Ok(entry)
    }

    fn set_target(&mut self, target: &ProgramFd) -> Result<()> {
        let map = self
            .bench
            .map_mut("UNDER_TEST")
            .context("no map UNDER_TEST")?;
        let mut map: ProgramArray<_> = map.try_into()?;
        Ok(map.set(0, target, 0)?)
    }

    fn program(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        let program = self.bench.program_mut(name);
        Ok(program
            .with_context(|| format!("no program {name}"))?
            .try_into()?)
    }

    fn proven(&mut self, proof: Proof) -> Result<u64> {
        match proof {
            Proof::Returned => Ok(0),
            Proof::Hit | Proof::Missed => Ok(self.state()?.get(&0, 0)?[HITS].into()),
            Proof::Counted(counter) => self.counted(counter),
        }
    }

    /// What a counter of the product says.
    pub(crate) fn counted(&self, wanted: Counter) -> Result<u64> {
        let counters = readings::counters(&self.pins)?;
        let found = counters.iter().find(|(counter, _)| *counter == wanted);
        Ok(found.map_or(0, |(_, count)| *count))
    }
}

/// It shares the product's maps.
fn load_bench(options: &Options) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for name in PINNED_MAPS {
        loader.map_pin_path(name, options.pins.map(name));
    }
    let has_coarse_clock = u8::from(options.features.has(Feature::CoarseClock));
    loader.override_global("COARSE_CLOCK", &has_coarse_clock, true);
    let max_flows = options.sizes.max_flows;
    for name in ["FLOWS_V4", "FLOWS_V6"] {
        loader.map_max_entries(name, max_flows);
    }
    for name in ["HALF_OPEN_V4", "HALF_OPEN_V6"] {
        loader.map_max_entries(name, max_flows / 2);
    }
    let mut bench = loader.load(OBJECT).context("loading the bench object")?;
    for (name, program) in bench.programs_mut() {
        let program: &mut SchedClassifier = program.try_into()?;
        program.load().with_context(|| format!("loading {name}"))?;
    }
    Ok(bench)
}

/// Runs a program; all that are run here let the packet through.
fn run(program: &SchedClassifier, packet: &[u8], repeat: u32) -> Result<(f64, Vec<u8>)> {
    const TC_ACT_UNSPEC: u32 = u32::MAX;
    let mut output = vec![0; packet.len()];
    let mut options = TestRunOptions::new();
    options.data_in = Some(packet);
    options.data_out = Some(&mut output);
    options.repeat = repeat;
    let result = program.test_run(options)?;
    ensure!(
        result.return_value == TC_ACT_UNSPEC,
        "the program returned {}",
        result.return_value
    );
    Ok((result.duration.as_nanos() as f64, output))
}
