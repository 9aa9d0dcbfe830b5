//! `cargo xtask setup`: what the other commands need, checked and, where possible, installed.

mod compiler;
mod packages;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::mount::{MsFlags, mount};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::Path;

pub use compiler::Toolchain;
pub use packages::{find, install};

/// Flags of `cargo xtask setup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask setup

Run it as often as you like: what is there is left alone. test, demo and bench call it first.")]
pub struct Options {}

/// Something that tests and commands may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The privilege to load programs and make namespaces.
    Root,
    /// A kernel that describes its types, and bpffs.
    Kernel,
    /// Programs that configure and inspect the network.
    Tools,
    /// A compiler and a linker for BPF.
    Compiler,
    /// Applications that dial and serve.
    Applications,
    /// QEMU, and what unpacks kernels.
    Guests,
    /// What builds images for containers.
    Images,
}

/// A need that this machine does not meet, and why.
#[derive(Debug)]
pub struct Lack {
    /// What is missing.
    pub need: Need,
    /// Why, in one line.
    pub reason: String,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Meets a need and says how, or what is missing.
type Step = fn() -> Result<String>;

/// Checks and installs everything.
///
/// # Errors
/// One line for each thing that is missing and can't be installed.
pub fn run(_options: &Options) -> Result<()> {
    let mut lacks = prepare();
    lacks.extend(prepare_applications());
    // Elsewhere there are none, which is no fault of the machine.
    if cfg!(target_arch = "x86_64") {
        lacks.extend(prepare_guests());
    }
    refuse(&lacks)
}

/// As [`run`], without virtual machines.
///
/// # Errors
/// As [`run`].
pub fn ready() -> Result<()> {
    refuse(&prepare())
}

/// Turns whatever is missing into one error.
///
/// # Errors
/// If anything is.
pub fn refuse(lacks: &[Lack]) -> Result<()> {
    if lacks.is_empty() {
        return Ok(());
    }
    let reasons: Vec<String> = lacks.iter().map(ToString::to_string).collect();
    bail!("{}", reasons.join("\nerror: "))
}

/// As [`run`], for callers that can go on without some of it: returns what is missing.
#[must_use]
pub fn prepare() -> Vec<Lack> {
    println!("setup");
    let steps: [(Need, Step); 5] = [
        (Need::Root, root),
        (Need::Kernel, kernel),
        (Need::Tools, packages::tools),
        (Need::Compiler, compiler::ready),
        (Need::Kernel, bpffs),
    ];
    let lacks = steps
        .into_iter()
        .filter_map(|(need, step)| take(need, step));
    lacks.collect()
}

/// The applications that tests of the network run besides; returns what is missing of it.
#[must_use]
pub fn prepare_applications() -> Option<Lack> {
    take(Need::Applications, packages::applications)
}

/// As [`ready`], with what benchmarks compare with.
///
/// # Errors
/// As [`run`].
pub fn ready_to_compare() -> Result<()> {
    let mut lacks = prepare();
    lacks.extend(take(Need::Tools, packages::rivals));
    refuse(&lacks)
}

/// What virtual machines need besides; returns what is missing of it.
#[must_use]
pub fn prepare_guests() -> Option<Lack> {
    take(Need::Guests, packages::guests)
}

/// What builds the static program; returns what is missing of it.
#[must_use]
pub fn prepare_static() -> Vec<Lack> {
    let steps: [(Need, Step); 2] = [
        (Need::Compiler, compiler::ready),
        (Need::Images, packages::linking),
    ];
    let lacks = steps
        .into_iter()
        .filter_map(|(need, step)| take(need, step));
    lacks.collect()
}

/// What packs it; returns what is missing of it.
#[must_use]
pub fn prepare_packing() -> Option<Lack> {
    take(Need::Images, packages::packing)
}

fn take(need: Need, step: Step) -> Option<Lack> {
    match step() {
        Ok(found) => {
            println!("  ok {found}");
            None
        }
        Err(error) => {
            let reason = format!("{error:#}");
            println!("  missing: {reason}");
            Some(Lack { need, reason })
        }
    }
}

fn root() -> Result<String> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "not root: BPF programs and network namespaces need it"
    );
    Ok("root".to_owned())
}

fn kernel() -> Result<String> {
    ensure!(cfg!(target_os = "linux"), "not Linux");
    ensure!(
        Path::new("/sys/kernel/btf/vmlinux").exists(),
        "no /sys/kernel/btf/vmlinux: the kernel needs CONFIG_DEBUG_INFO_BTF"
    );
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("Linux {} with BTF", release.trim()))
}

fn bpffs() -> Result<String> {
    const POINT: &str = "/sys/fs/bpf";
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounted = mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(POINT) && line.split(' ').nth(2) == Some("bpf"));
    if !mounted {
        let kind = Some(OsStr::new("bpf"));
        mount(kind, POINT, kind, MsFlags::empty(), None::<&OsStr>)
            .context("can't mount bpffs on /sys/fs/bpf")?;
    }
    Ok(format!("bpffs on {POINT}"))
}
