//! `cargo xtask vm`: rings 3 and 4 on other kernels, each booted under QEMU.

mod archive;
mod cache;
mod cost;
pub mod guest;
mod image;
mod initramfs;
mod kernel;
mod machine;
mod payload;
mod plan;
mod record;
mod tools;

use crate::setup;
use crate::test::Tally;
use anyhow::{Context, Result, ensure};
use archive::{Archive, Series, are_all, group};
use clap::Args;
use cost::{Change, Cost};
use image::Image;
use kernel::Kernel;
use machine::{Accelerator, End, Machine};
use payload::Payload;
pub(crate) use plan::left_to_guests;
pub use plan::needed_device;
use plan::{Boot, Scope, Step};
use record::Record;
use std::fs::File;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Flags of `cargo xtask vm`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask vm
  cargo xtask vm 5.10 newest
  cargo xtask vm 6.1 --test a_service_is_reached
  cargo xtask vm --all
  cargo xtask vm --complexity --accept

Kernels come from Debian's packages, downloaded once and kept in ~/.cache/ferrule-vm. Logs of the
guests are in target/xtask/vm.")]
pub struct Options {
    /// Series such as 5.10, or `newest`; all of Debian's if none is given.
    #[arg(value_name = "KERNEL")]
    pub kernels: Vec<String>,
    /// Only tests whose name contains this, instead of the core of each ring.
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    pub test: Option<String>,
    /// All tests that the kernel can run, instead of the core of each ring.
    #[arg(long)]
    pub all: bool,
    /// No tests: only compare what the verifier makes of the programs with docs/performance.md.
    #[arg(long, conflicts_with_all = ["all", "test"])]
    pub complexity: bool,
    /// Store what the verifier makes of the programs; without names of kernels, forget the others.
    #[arg(long, requires = "complexity")]
    pub accept: bool,
    /// Guests at the same time.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    pub jobs: u8,
    /// What a guest may take at most, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = LIMIT)]
    pub limit: u64,
}

impl Options {
    /// What every change has to pass: the core of each ring, on the oldest and the newest kernel.
    #[must_use]
    pub fn short() -> Self {
        Self {
            kernels: ["5.10", "newest"].map(str::to_owned).to_vec(),
            test: None,
            all: false,
            complexity: false,
            accept: false,
            jobs: 2,
            limit: LIMIT,
        }
    }

    /// Everything on all kernels.
    #[must_use]
    pub fn long() -> Self {
        Self {
            kernels: Vec::new(),
            all: true,
            ..Self::short()
        }
    }

    fn scope(&self) -> Scope {
        match &self.test {
            _ if self.complexity => Scope::Nothing,
            _ if self.all => Scope::All,
            Some(name) => Scope::Named(name.clone()),
            None => Scope::Core,
        }
    }

    fn change(&self) -> Change {
        match (self.accept, self.kernels.is_empty()) {
            (false, _) => Change::Refuse,
            (true, false) => Change::Accept,
            (true, true) => Change::AcceptAll,
        }
    }
}

/// Seconds: what all tests take at most under emulation, and as much again.
const LIMIT: u64 = 1500;
/// What the first boot with KVM may take, which only shows whether it works.
const TRIAL: Duration = Duration::from_secs(15);
const CPUS: u8 = 2;

/// Boots the kernels. The last line printed is `N passed, N failed`, over all of them.
///
/// # Errors
/// Something that the guests are made of is missing; failed tests are an exit code.
pub fn run(options: &Options) -> Result<ExitCode> {
    ensure_ready()?;
    let tally = boot_all(&kernels(options)?, options)?;
    println!("\n{tally}");
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Boots kernels and returns the sums.
pub(crate) fn boot_all(kernels: &Kernels, options: &Options) -> Result<Tally> {
    machine::end_leftovers()?;
    let kernels = &kernels.all;
    let payload = Payload::build()?;
    let accelerator = accelerator(kernels.first(), &payload)?;
    let guests = Guests {
        payload,
        accelerator,
        scope: options.scope(),
        limit: Duration::from_secs(options.limit),
    };
    let boots = kernels.iter().flat_map(|kernel| {
        let boots = plan::boots(kernel, &guests.scope).into_iter();
        boots.map(move |boot| (kernel, boot))
    });
    let boots: Vec<(&Kernel, Boot)> = boots.collect();
    let booted = each(&boots, options.jobs, |(kernel, boot)| {
        guests.boot(kernel, *boot)
    });
    let mut total = Tally::default();
    let mut costs = Vec::new();
    for ((kernel, boot), (tally, measured)) in boots.iter().zip(booted) {
        total += tally;
        if *boot == Boot::Usual {
            costs.push((kernel.series.clone(), measured));
        }
    }
    if let Some(name) = &options.test {
        ensure!(
            total != Tally::default(),
            "no test has '{name}' in its name"
        );
    }
    total.failed += cost::check(&costs, options.change())?;
    Ok(total)
}

/// Does the work for all of them, `jobs` at a time; results come in their order.
fn each<T: Sync, R: Send>(all: &[T], jobs: u8, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = all.get(number) else {
                return done;
            };
            done.push((number, work(one)));
        }
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        let results = workers.into_iter().flat_map(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        results.collect()
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

fn ensure_ready() -> Result<()> {
    let mut lacks = setup::prepare();
    lacks.extend(setup::prepare_guests());
    setup::refuse(&lacks)
}

/// Kernels that are there, and nobody takes away.
pub(crate) struct Kernels {
    all: Vec<Kernel>,
    _lock: File,
}

/// The kernels that are asked for, downloaded and unpacked.
pub(crate) fn kernels(options: &Options) -> Result<Kernels> {
    let lock = cache::lock()?;
    let archive = Archive::open()?;
    let mut versions = archive.versions().unwrap_or_else(|error| {
        println!("  {error:#}; using the kernels of earlier runs");
        Vec::new()
    });
    versions.extend(Kernel::cached()?);
    let series = group(versions.iter().map(String::as_str));
    let newest = series.last().map(|series| series.numbers);
    let all = choose(&series, &options.kernels)?
        .into_iter()
        .map(|series| {
            let is_newest = Some(series.numbers) == newest;
            let kernel = Kernel {
                is_newest,
                ..Kernel::prepare(&archive, series)?
            };
            println!("  ok Linux {} (Debian {})", kernel.series, kernel.version);
            Ok(kernel)
        });
    Ok(Kernels {
        all: all.collect::<Result<_>>()?,
        _lock: lock,
    })
}

/// Each once, in the order in which they are asked for.
fn choose<'a>(all: &'a [Series], asked: &[String]) -> Result<Vec<&'a Series>> {
    let names: Vec<&str> = all.iter().map(|series| series.name.as_str()).collect();
    let names = names.join(", ");
    let needs_newest = asked.is_empty() || asked.iter().any(|name| name == "newest");
    ensure!(
        !needs_newest || are_all(all),
        "can't tell the newest kernel, Debian's lists are incomplete: there are {names}"
    );
    if asked.is_empty() {
        return Ok(all.iter().collect());
    }
    let mut chosen: Vec<&Series> = Vec::new();
    for name in asked {
        let found = match name.as_str() {
            "newest" => all.last(),
            name => all.iter().find(|series| series.name == name),
        };
        let found = found.with_context(|| format!("no kernel {name}: there are {names}"))?;
        if !chosen.contains(&found) {
            chosen.push(found);
        }
    }
    Ok(chosen)
}

/// KVM if a guest really comes up with it.
fn accelerator(kernel: Option<&Kernel>, payload: &Payload) -> Result<Accelerator> {
    let Some(kernel) = kernel.filter(|_| Accelerator::may_be_kvm()) else {
        println!("  ok software emulation: no /dev/kvm with a processor that has what it needs");
        return Ok(Accelerator::Emulation);
    };
    let image = Image::build(kernel, &kernel.series, payload, &[])?;
    let machine = Machine {
        kernel,
        image: &image,
        parameters: "",
        accelerator: Accelerator::Kvm,
        cpus: CPUS,
        limit: TRIAL,
    };
    match machine.run(|_| {})? {
        End::Done => {
            println!("  ok KVM");
            Ok(Accelerator::Kvm)
        }
        End::Broken(why) => {
            let why = why.lines().next().unwrap_or_default();
            println!("  ok software emulation: with KVM {why}");
            Ok(Accelerator::Emulation)
        }
    }
}

/// What all guests of a run have in common.
struct Guests {
    payload: Payload,
    accelerator: Accelerator,
    scope: Scope,
    limit: Duration,
}

impl Guests {
    /// Returns the sums and what the verifier made of the programs. What keeps a guest from running
    /// is a failure of that guest alone.
    fn boot(&self, kernel: &Kernel, boot: Boot) -> (Tally, Vec<Cost>) {
        let steps = plan::steps(kernel, &self.scope, boot);
        let name = format!("{}{}", kernel.series, boot.suffix());
        if self.scope == Scope::All && boot == Boot::Usual {
            for (test, why) in plan::left_out(kernel) {
                println!("{name:>5}       | left out: {test} ({why})");
            }
        }
        let mut record = Record::start(&name, &steps);
        let end = self.run(kernel, boot, &steps, &mut record);
        let end = end.unwrap_or_else(|error| End::Broken(format!("{error:#}")));
        record.finish(&end)
    }

    fn run(
        &self,
        kernel: &Kernel,
        boot: Boot,
        steps: &[Step],
        record: &mut Record<'_>,
    ) -> Result<End> {
        let name = format!("{}{}", kernel.series, boot.suffix());
        let image = Image::build(kernel, &name, &self.payload, steps)?;
        let machine = Machine {
            kernel,
            image: &image,
            parameters: boot.parameters(),
            accelerator: self.accelerator,
            cpus: CPUS,
            limit: self.limit,
        };
        machine.run(|line| record.line(line))
    }
}
