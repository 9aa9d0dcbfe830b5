//! Inside a guest: the first process, and what it runs.
//!
//! The kernel starts it as `/init guest`. It prepares the machine, runs the plan in a child, collects
//! whatever process ends, and turns the machine off. All results go to the second serial line.

use crate::cluster::Cluster;
use crate::command;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::sync;
use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::Command;

/// The commands to run, one a line.
pub(super) const PLAN: &str = "/plan";
/// Modules in the order of their names.
pub(super) const MODULES: &str = "/modules";
/// The guest's last line: everything has been run.
pub(super) const DONE: &str = "guest: done";
/// Before each command of the plan.
pub(super) const STEP: &str = "guest: runs ";
/// Before the name of a command that ended badly.
pub(super) const BROKEN: &str = "guest: broken: ";
/// Before what the verifier makes of the programs, as JSON.
pub(super) const COSTS: &str = "guest: costs ";
/// The folder of the package whose tests look for files beside their sources.
pub(super) const PACKAGE: &str = "/proxy-user";

/// Bytes of a large transfer: enough for full windows, and not too much for emulation.
const TRANSFER: &str = "1048576";
const RESULTS: &str = "/dev/ttyS1";

/// Flags of `xtask guest`.
#[derive(Debug, Args)]
pub struct Options {
    /// Run the plan; without it, be the first process.
    #[arg(long)]
    plan: bool,
}

/// Source, mount point and type.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Runs as the first process, or as the child that works.
///
/// # Errors
/// A step of the preparation or a command of the plan that could not be started.
pub fn run(options: &Options) -> Result<()> {
    if options.plan {
        return follow_plan();
    }
    ensure!(
        std::process::id() == 1,
        "this is for the first process of a virtual machine: it turns the machine off"
    );
    if let Err(error) = supervise() {
        println!("guest: {error:#}");
    }
    turn_off().map(|never| match never {})
}

fn turn_off() -> Result<Infallible> {
    sync();
    Ok(reboot(RebootMode::RB_POWER_OFF)?)
}

/// Returns when the child that works has ended.
fn supervise() -> Result<()> {
    prepare()?;
    let results = OpenOptions::new().write(true).open(RESULTS)?;
    let child = Command::new("/init")
        .args(["guest", "--plan"])
        .env("PATH", "/bin")
        .env("RUST_BACKTRACE", "0")
        .env("CARGO_MANIFEST_DIR", PACKAGE)
        .env("CARGO_BIN_EXE_ferrule", "/bin/ferrule")
        .env("FERRULE_TRANSFER", TRANSFER)
        .stdout(results.try_clone()?)
        .stderr(results)
        .spawn()
        .context("can't start the plan")?;
    loop {
        // Orphans come here too, and nobody else collects them.
        let ended = wait()?;
        let worker = ended.pid().map(nix::unistd::Pid::as_raw) == child.id().try_into().ok();
        match ended {
            WaitStatus::Exited(_, 0) if worker => return Ok(()),
            _ if worker => bail!("the plan ended: {ended:?}"),
            _ => {}
        }
    }
}

fn prepare() -> Result<()> {
    for (kind, point) in MOUNTS {
        // A folder of the initramfs, or one that the file system before it brings.
        let _ = fs::create_dir_all(point);
        let none = None::<&str>;
        // Some kernels mount devtmpfs themselves.
        match mount(Some(kind), point, Some(kind), MsFlags::empty(), none) {
            Err(nix::errno::Errno::EBUSY) | Ok(()) => {}
            Err(error) => bail!("mounting {point}: {error}"),
        }
    }
    // Else ipip gives a device to every namespace.
    fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "1")?;
    let modules = fs::read_dir(MODULES)?.collect::<Result<Vec<_>, _>>()?;
    let mut modules: Vec<PathBuf> = modules.iter().map(fs::DirEntry::path).collect();
    modules.sort();
    modules.iter().try_for_each(|module| {
        let file = File::open(module)?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("loading {}", module.display()))
    })
}

/// The machine is checked first: on one without the rules of real nodes no test says anything.
fn follow_plan() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpus = std::thread::available_parallelism()?;
    println!("guest: Linux {}, {cpus} CPUs", release.trim());
    let checked = Cluster::create(1).and_then(|cluster| cluster.check_rules());
    match checked.and_then(|()| report_costs()) {
        Ok(()) => fs::read_to_string(PLAN)?.lines().try_for_each(run_step)?,
        Err(error) => println!("{BROKEN}{error:#}"),
    }
    println!("{DONE}");
    Ok(())
}

fn report_costs() -> Result<()> {
    let text = command::run("ferrule", &["check", "-o", "json"])?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    println!("{COSTS}{}", report["programs"]);
    Ok(())
}

fn run_step(line: &str) -> Result<()> {
    println!("{STEP}{line}");
    let mut words = line.split(' ');
    let program = words.next().context("an empty line in the plan")?;
    let status = Command::new(program)
        .args(words)
        .status()
        .with_context(|| format!("can't start {program}"))?;
    if !status.success() {
        println!("{BROKEN}{program}: {status}");
    }
    Ok(())
}
