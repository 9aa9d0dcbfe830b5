//! `cargo xtask vm`: rings 3 and 4 on other kernels, each booted under QEMU.

mod archive;
mod cache;
pub mod guest;
mod image;
mod initramfs;
mod kernel;
mod machine;
mod payload;
mod tools;

use crate::setup;
use crate::test::Tally;
use anyhow::{Context, Result, ensure};
use archive::{Archive, Series};
use clap::Args;
use image::Image;
use kernel::Kernel;
use machine::{Accelerator, End, Machine};
use payload::Payload;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Flags of `cargo xtask vm`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask vm
  cargo xtask vm 5.10 newest
  cargo xtask vm 6.1 --test a_service_is_reached

Kernels come from Debian's packages, downloaded once and kept in ~/.cache/ferrule-vm.")]
pub struct Options {
    /// Series such as 5.10, or `newest`; all of Debian's if none is given.
    #[arg(value_name = "KERNEL")]
    pub kernels: Vec<String>,
    /// Only tests whose name contains this.
    #[arg(long, value_name = "NAME")]
    pub test: Option<String>,
    /// Guests at the same time.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    pub jobs: u8,
}

/// What a guest may take at most under emulation.
const LIMIT: Duration = Duration::from_secs(600);

/// Boots the kernels. The last line printed is `N passed, N failed`, over all of them.
///
/// # Errors
/// Something that the guests are made of is missing; failed tests are an exit code.
pub fn run(options: &Options) -> Result<ExitCode> {
    let start = Instant::now();
    ensure_ready()?;
    let kernels = kernels(&options.kernels)?;
    let payload = Payload::build()?;
    println!("  ok QEMU, software emulation");
    let total = Mutex::new(Tally::default());
    let queue = Mutex::new(kernels.iter());
    let one = || -> Result<()> {
        loop {
            let Some(kernel) = queue.lock().ok().and_then(|mut queue| queue.next()) else {
                return Ok(());
            };
            let tally = boot(kernel, &payload, options)?;
            if let Ok(mut total) = total.lock() {
                *total += tally;
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(one)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let total = total.into_inner().unwrap_or_default();
    println!("\n{total} ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn ensure_ready() -> Result<()> {
    let mut lacks = setup::prepare();
    lacks.extend(setup::prepare_guests());
    let reasons: Vec<String> = lacks.iter().map(ToString::to_string).collect();
    ensure!(lacks.is_empty(), "{}", reasons.join("\nerror: "));
    Ok(())
}

/// The kernels that are asked for, ready to boot.
fn kernels(asked: &[String]) -> Result<Vec<Kernel>> {
    let archive = Archive::open()?;
    let series = archive.series().or_else(|error| -> Result<_> {
        println!("  {error:#}; using the kernels of earlier runs");
        Kernel::cached()
    })?;
    let kernels = choose(&series, asked)?.into_iter().map(|series| {
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

fn plan(options: &Options) -> Vec<String> {
    let filter = options.test.as_deref().unwrap_or_default();
    [
        "/bin/cluster",
        "/bin/prog_run",
        "/bin/netns --test-threads=1",
    ]
    .map(|command| format!("{command} {filter}").trim().to_owned())
    .to_vec()
}

fn boot(kernel: &Kernel, payload: &Payload, options: &Options) -> Result<Tally> {
    let start = Instant::now();
    let image = Image::build(kernel, payload, &plan(options))?;
    let machine = Machine {
        kernel,
        image: &image,
        accelerator: Accelerator::Emulation,
        cpus: 2,
        limit: LIMIT,
    };
    let mut tally = Tally::default();
    let mut broken = 0;
    let end = machine.run(|line| {
        let seconds = start.elapsed().as_secs();
        println!("{:>5} {seconds:>3} s | {line}", kernel.series);
        tally += Tally::of_line(line);
        broken += u64::from(line.starts_with(guest::BROKEN));
    })?;
    if let End::Broken(why) = &end {
        println!("{:>5} | {why}", kernel.series);
        broken += 1;
    }
    // A test program that crashed has no closing line.
    tally.failed = tally.failed.max(broken);
    println!(
        "{}: {tally} ({:.1} s)",
        kernel.series,
        start.elapsed().as_secs_f64()
    );
    Ok(tally)
}
