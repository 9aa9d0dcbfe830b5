//! `ferrule init`: what takes more privileges than the agent has, done once before it starts.

use super::say;
use crate::agent::Preparations;
use crate::config::{ConntrackFlags, Place, default_snat_ports, port_range};
use crate::datapath::bpffs;
use crate::datapath::cgroup::find_root;
use crate::datapath::sysctl::{Conntrack, Setting, processors};
use anyhow::{Context as _, Result};
use clap::Args;
use std::fs::Permissions;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Flags of `ferrule init`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  ferrule init
  ferrule init --snat-ports 20000-29999
  ferrule init --config /etc/ferrule/config.yaml

Mounts bpffs and the root of cgroup v2 where they are not mounted, and makes the settings of the kernel
that the agent makes, in the network namespace that it is started in. It is for containers: the agent
that follows needs neither CAP_SYS_ADMIN nor a /proc/sys that can be written. Give it the same --bpffs,
--run-dir, --snat-ports, and --config or flags of conntrack. It can be run again, also while an agent runs.

It fails if there is no bpffs or the file is wrong, without which the agent can't start; of what the agent
can do without it only warns.")]
pub struct Init {
    /// Source ports of masked flows, as MIN-MAX, as the agent gets them.
    #[arg(long, value_name = "MIN-MAX", value_parser = port_range)]
    pub snat_ports: Option<RangeInclusive<u16>>,
    /// kube-proxy's configuration file, as the agent gets it: what it says of conntrack counts instead of flags.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub place: Place,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub conntrack: ConntrackFlags,
}

/// Mounts and sets what is missing, and says what there is.
///
/// # Errors
/// The file is wrong; there is no bpffs or no run folder, and none can be made; the node's ports can't be read.
pub fn run(init: &Init) -> Result<()> {
    let conntrack = init.conntrack.clone().or_file(init.config.as_deref())?;
    let Place { bpffs, run_dir } = &init.place;
    let done = match bpffs::provide(bpffs)? {
        true => "mounted",
        false => "is there",
    };
    say(&format!("bpffs on {}: {done}\n", bpffs.display()));
    provide_run_dir(run_dir)?;
    match find_root(run_dir) {
        Ok(root) => say(&format!("root of cgroup v2: {}\n", root.display())),
        Err(error) => warn(&format!("sockets will not be served: {error:#}")),
    }
    set(init, &conntrack.netfilter(processors()))
}

/// Only root may talk to the agent.
fn provide_run_dir(run_dir: &Path) -> Result<()> {
    let problem = || format!("can't use the folder {}", run_dir.display());
    std::fs::create_dir_all(run_dir).with_context(problem)?;
    std::fs::set_permissions(run_dir, Permissions::from_mode(0o700)).with_context(problem)?;
    say(&format!("run folder: {}\n", run_dir.display()));
    Ok(())
}

fn set(init: &Init, conntrack: &Conntrack) -> Result<()> {
    let snat_ports = match &init.snat_ports {
        Some(ports) => ports.clone(),
        None => default_snat_ports()?,
    };
    let made = Preparations::make(&snat_ports, conntrack, &init.place)?;
    if let Some(reserved) = &made.reserved_ports {
        say(&format!("reserved ports: {reserved}\n"));
    }
    let there = made.conntrack.iter().filter(|it| it.problem.is_none());
    for Setting { name, value, .. } in there {
        say(&format!("{name}: {value}\n"));
    }
    made.warnings.iter().for_each(|warning| warn(warning));
    Ok(())
}

fn warn(text: &str) {
    eprintln!("ferrule: warning: {text}");
}
