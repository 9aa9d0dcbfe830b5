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
use crate::workspace;
use anyhow::{Context, Result, ensure};
use archive::{Archive, Series};
use clap::Args;
use cost::{Cost, Missing};
use image::Image;
use kernel::Kernel;
use machine::{Accelerator, End, Machine};
use payload::Payload;
use plan::Scope;
use record::Record;
use std::fs::{self, File};
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
    /// No tests: compare what the verifier makes of the programs with docs/performance.md, and fail
    /// for a kernel that it does not know.
    #[arg(long, conflicts_with_all = ["all", "test"])]
    pub complexity: bool,
    /// Store what the verifier makes of the programs.
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

    fn missing(&self) -> Missing {
        match (self.complexity, self.accept) {
            (_, true) => Missing::Accept,
            (true, false) => Missing::Refuse,
            (false, false) => Missing::Tell,
        }
    }
}

/// Seconds: what all tests take at most under emulation, and as much again.
const LIMIT: u64 = 900;
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
pub(crate) fn boot_all(kernels: &[Kernel], options: &Options) -> Result<Tally> {
    let _lock = lock()?;
    let payload = Payload::build()?;
    let accelerator = accelerator(kernels.first(), &payload)?;
    let guests = Guests {
        payload,
        accelerator,
        scope: options.scope(),
        limit: Duration::from_secs(options.limit),
    };
    let one = |kernel: &Kernel| guests.boot(kernel);
    let booted = each(kernels, options.jobs, one)?;
    let mut total = Tally::default();
    let mut costs = Vec::new();
    for (kernel, (tally, measured)) in kernels.iter().zip(booted) {
        total += tally;
        costs.push((kernel.series.clone(), measured));
    }
    total.failed += cost::check(&costs, options.missing())?;
    Ok(total)
}

/// Does the work for all of them, `jobs` at a time; results come in their order.
fn each<T: Sync, R: Send>(
    all: &[T],
    jobs: u8,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
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
    let mut results: Vec<(usize, Result<R>)> = std::thread::scope(|scope| {
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
    let reasons: Vec<String> = lacks.iter().map(ToString::to_string).collect();
    ensure!(lacks.is_empty(), "{}", reasons.join("\nerror: "));
    Ok(())
}

/// The kernels that are asked for, downloaded and unpacked.
pub(crate) fn kernels(options: &Options) -> Result<Vec<Kernel>> {
    let archive = Archive::open()?;
    let series = archive.series().or_else(|error| -> Result<_> {
        println!("  {error:#}; using the kernels of earlier runs");
        Kernel::cached()
    })?;
    let kernels = choose(&series, &options.kernels)?
        .into_iter()
        .map(|series| {
            let kernel = Kernel::prepare(&archive, series)?;
            println!("  ok Linux {} (Debian {})", kernel.series, kernel.version);
            Ok(kernel)
        });
    kernels.collect()
}

fn choose<'a>(all: &'a [Series], asked: &[String]) -> Result<Vec<&'a Series>> {
    let newest = all.last().context("no kernel found")?;
    if asked.is_empty() {
        return Ok(all.iter().collect());
    }
    let one = |name: &String| {
        let found = match name.as_str() {
            "newest" => Some(newest),
            name => all.iter().find(|series| series.name == name),
        };
        let names: Vec<&str> = all.iter().map(|series| series.name.as_str()).collect();
        found.with_context(|| format!("no kernel {name}: there are {}", names.join(", ")))
    };
    asked.iter().map(one).collect()
}

/// KVM if a guest really comes up with it.
fn accelerator(kernel: Option<&Kernel>, payload: &Payload) -> Result<Accelerator> {
    let Some(kernel) = kernel.filter(|_| Accelerator::may_be_kvm()) else {
        println!("  ok software emulation: this machine has no KVM that works");
        return Ok(Accelerator::Emulation);
    };
    let image = Image::build(kernel, payload, &[])?;
    let machine = Machine {
        kernel,
        image: &image,
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

/// One run at a time has the guests' folders.
fn lock() -> Result<File> {
    let folder = workspace::target()?.join("xtask/vm");
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    if lock.try_lock().is_err() {
        println!("  .. waiting for another run of virtual machines");
        lock.lock()?;
    }
    Ok(lock)
}

/// What all guests of a run have in common.
struct Guests {
    payload: Payload,
    accelerator: Accelerator,
    scope: Scope,
    limit: Duration,
}

impl Guests {
    fn boot(&self, kernel: &Kernel) -> Result<(Tally, Vec<Cost>)> {
        let steps = plan::steps(kernel, &self.scope);
        for (name, (major, minor)) in plan::left_out(kernel) {
            if self.scope == Scope::All {
                let series = &kernel.series;
                println!("{series:>5}       | left out: {name} (from {major}.{minor})");
            }
        }
        let image = Image::build(kernel, &self.payload, &steps)?;
        let machine = Machine {
            kernel,
            image: &image,
            accelerator: self.accelerator,
            cpus: CPUS,
            limit: self.limit,
        };
        let mut record = Record::start(&kernel.series, &steps);
        let end = machine.run(|line| record.line(line))?;
        Ok(record.finish(&end))
    }
}
