//! The BPF object: loaded, with the maps of an earlier run where they fit.

mod functions;
mod pinned;

pub use pinned::Sizes;

use crate::datapath::bpffs;
use crate::datapath::features::{Feature, Features};
use crate::datapath::hook::{Framing, Hook};
use crate::datapath::kernel::Kernel;
use crate::datapath::pins::{PINNED_MAPS, Pins};
use anyhow::{Context as _, Result, anyhow};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use aya_log::{EbpfLogger, Level};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use pinned::discard_misfits;
use std::time::Duration;
use tracing::debug;

/// The programs and the definitions of the maps.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ferrule-bpf"));

/// The program that removes flows; attached nowhere.
pub const EXPIRE: &str = "ferrule_expire";

/// What the object is loaded with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where maps and links are pinned.
    pub pins: Pins,
    /// How many rows maps have.
    pub sizes: Sizes,
    /// Whether the programs log every decision (aya-log); not even a branch when off.
    pub log_decisions: bool,
    /// Whether flows may pass the stack by; not even a branch when off.
    pub has_fast_lane: bool,
    /// Whether random bits come with each packet, in its control block: for test runs.
    pub has_random_in_packet: bool,
    /// What the kernel has.
    pub features: Features,
}

/// A loaded object.
pub struct Loaded {
    /// The maps.
    pub kernel: Kernel,
    /// The programs.
    pub programs: Ebpf,
    /// Whether the maps are those of an earlier run.
    pub adopted: bool,
}

/// Loads the programs, adopting the pinned maps or pinning new ones.
///
/// # Errors
/// What the kernel refused, with the verifier's words if it was a program.
pub fn load(options: &Options) -> Result<Loaded> {
    prepare(&options.pins)?;
    lift_memory_limit();
    let adopted = discard_misfits(options)?;
    let mut programs = load_object(options)?;
    for hook in Hook::ALL {
        // Every node has such devices; the other programs are loaded for the first device with theirs.
        program(&mut programs, hook, Framing::Ethernet)?;
    }
    let kernel = Kernel::open(&options.pins)?;
    Ok(Loaded {
        kernel,
        programs,
        adopted,
    })
}

/// Makes the folder of pins, on bpffs and nowhere else.
fn prepare(pins: &Pins) -> Result<()> {
    let root = pins.root();
    bpffs::require(root.parent().unwrap_or(root))?;
    pins.create()
        .with_context(|| format!("can't make {}", root.display()))
}

/// Kernels before 5.11 charge maps to the limit on locked memory, and containers have a low one. Newer ones don't
/// care, so not to be allowed is no error.
fn lift_memory_limit() {
    let outcome = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    if let Err(error) = outcome {
        debug!("the limit on locked memory stays: {error}");
    }
}

/// The program of a hook of devices with this framing, loaded when it is first asked for.
///
/// # Errors
/// The object lacks it, or the kernel refuses it.
pub fn program(programs: &mut Ebpf, hook: Hook, framing: Framing) -> Result<&mut SchedClassifier> {
    named(programs, hook.program(framing))
}

/// The program with this name, loaded when it is first asked for.
///
/// # Errors
/// The object lacks it, or the kernel refuses it.
pub fn named<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = programs.program_mut(name);
    let program = program.ok_or_else(|| anyhow!("the object has no program {name}"))?;
    let program: &mut SchedClassifier = program.try_into()?;
    if program.fd().is_err() {
        program.load().with_context(|| format!("loading {name}"))?;
    }
    Ok(program)
}

/// Hands what the programs log to `tracing`, for as long as the future is polled.
///
/// # Errors
/// The programs' ring buffer can't be read.
pub fn log_decisions(programs: &mut Ebpf) -> Result<impl Future<Output = ()> + use<>> {
    let mut logger = EbpfLogger::init(programs).context("opening the programs' log")?;
    let mut interval = tokio::time::interval(LOG_INTERVAL);
    Ok(async move {
        loop {
            interval.tick().await;
            logger.flush();
        }
    })
}

/// The programs' ring buffer is emptied this often; what does not fit is lost.
const LOG_INTERVAL: Duration = Duration::from_millis(20);

fn load_object(options: &Options) -> Result<Ebpf> {
    let level = if options.log_decisions {
        Level::Info as u8
    } else {
        LOG_OFF
    };
    load_with(
        Some(&options.pins),
        Switches {
            level,
            has_fast_lane: options.has_fast_lane,
            has_random_in_packet: options.has_random_in_packet,
        },
        options.sizes,
        &options.features,
    )
}

/// What the programs are told to do when they are loaded.
#[derive(Clone, Copy)]
struct Switches {
    level: u8,
    has_fast_lane: bool,
    has_random_in_packet: bool,
}

/// The object with maps of its own, which end with it: to look at, not to use.
///
/// # Errors
/// As [`load`].
pub fn load_unpinned(features: &Features) -> Result<Ebpf> {
    const FEW: Sizes = Sizes {
        max_flows: 1024,
        max_backends: 1024,
        max_affinities: 1024,
    };
    let switches = Switches {
        level: LOG_OFF,
        has_fast_lane: false,
        has_random_in_packet: false,
    };
    load_with(None, switches, FEW, features)
}

fn load_with(
    pins: Option<&Pins>,
    switches: Switches,
    sizes: Sizes,
    features: &Features,
) -> Result<Ebpf> {
    let [
        tells_source,
        has_coarse_clock,
        sets_return_value,
        knows_paths,
    ] = [
        Feature::SourceLookup,
        Feature::CoarseClock,
        Feature::ReturnValue,
        Feature::Multipath,
    ]
    .map(|it| u8::from(features.has(it)));
    let logs = u8::from(switches.level != LOG_OFF);
    let has_fast_lane = u8::from(switches.has_fast_lane);
    let has_random_in_packet = u8::from(switches.has_random_in_packet);
    let mut loader = EbpfLoader::new();
    loader.override_global("AYA_LOG_LEVEL", &switches.level, true);
    loader.override_global("LOG_DECISIONS", &logs, true);
    loader.override_global("SOURCE_LOOKUP", &tells_source, true);
    loader.override_global("COARSE_CLOCK", &has_coarse_clock, true);
    loader.override_global("RETURN_VALUE", &sets_return_value, true);
    loader.override_global("MULTIPATH", &knows_paths, true);
    loader.override_global("FAST_LANE", &has_fast_lane, true);
    loader.override_global("RANDOM_IN_PACKET", &has_random_in_packet, true);
    for name in PINNED_MAPS {
        if let Some(rows) = sizes.rows(name) {
            loader.map_max_entries(name, rows);
        }
    }
    if let Some(pins) = pins {
        for name in PINNED_MAPS {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    let mut object = Aligned::copy(OBJECT);
    if features.has(Feature::SocketDestroy) {
        functions::resolve(object.bytes())?;
    }
    loader
        .load(object.bytes())
        .context("loading the BPF object")
}

/// Bytes where a parser of ELF finds integers.
struct Aligned(Vec<u64>);

impl Aligned {
    /// Zeros follow, up to a multiple of eight.
    fn copy(bytes: &[u8]) -> Self {
        let mut words = vec![0; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self(words)
    }

    fn bytes(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// The object as it was built.
///
/// # Errors
/// It is damaged.
pub fn parse() -> Result<aya_obj::Object> {
    aya_obj::Object::parse(OBJECT).context("parsing the BPF object")
}

/// Below all of aya_log's levels.
const LOG_OFF: u8 = 0;
