//! A named network namespace and how to work inside it.
//!
//! A thread enters with setns. `ip netns exec` is of no use here: it also remounts /sys, which
//! hides the bpffs and cgroup mounts of the machine.

use super::cgroup;
use super::shape::Families;
use crate::command;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

/// Where iproute2 keeps the names of namespaces.
pub(crate) const NAMES: &str = "/run/netns";

/// A network namespace known to iproute2 by name. A handle: dropping it removes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
    cgroup: Option<PathBuf>,
}

impl Namespace {
    /// Creates a namespace with loopback up and no duplicate address detection, so that IPv6
    /// addresses can be used at once.
    pub(crate) fn create(name: String) -> Result<Self> {
        command::run("ip", &["netns", "add", &name])?;
        let namespace = Self { name, cgroup: None };
        if Families::of_kernel() == Families::Both {
            namespace.sysctls(&[
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/dad_transmits", "0"),
            ])?;
        }
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// A handle to the namespace with this name, whether or not there is one.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, cgroup: None }
    }

    /// The same namespace; what is done in it belongs to this cgroup, which has to be threaded.
    #[must_use]
    pub fn within(&self, cgroup: &Path) -> Self {
        Self {
            name: self.name.clone(),
            cgroup: Some(cgroup.to_owned()),
        }
    }

    /// The name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that `nsenter --net=` takes.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NAMES).join(&self.name)
    }

    /// Does `work` on a fresh thread inside the namespace and returns its value. Sockets and
    /// processes made there stay in the namespace.
    ///
    /// # Errors
    /// When the namespace can't be entered.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let file = File::open(self.path())?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                self.cgroup.as_deref().map_or(Ok(()), cgroup::join)?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a program inside the namespace.
    ///
    /// # Errors
    /// When the namespace can't be entered or the program can't be started.
    pub fn spawn(&self, mut command: Command) -> io::Result<Child> {
        self.run(move || command.spawn())?
    }

    /// Runs a program inside the namespace to its end and returns its standard output.
    ///
    /// # Errors
    /// When the namespace can't be entered, or the program can't be started or fails.
    pub fn command(&self, program: &str, args: &[&str]) -> Result<String> {
        self.run(|| command::run(program, args))?
    }

    /// Runs a batch of `ip` commands, one a line.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.run(|| command::run_with_input("ip", &["-batch", "-"], batch))?
            .with_context(|| format!("in namespace {}, one of: {batch}", self.name))?;
        Ok(())
    }

    /// Writes files below /proc/sys/net; that folder shows the namespace of the thread.
    pub(crate) fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            settings.iter().try_for_each(|(key, value)| {
                std::fs::write(format!("/proc/sys/net/{key}"), value)
                    .with_context(|| format!("can't set {key} to {value}"))
            })
        })?
    }
}
