//! One running agent: `ferrule run` in a node's namespace.

use super::plan::CLUSTER_CIDR;
use super::{Namespace, start};
use crate::command;
use crate::process::wait_for;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Lines of the log that an error shows.
const LOG_LINES: usize = 30;

/// Where a node's agent keeps its things; different for every node.
#[derive(Clone, Debug)]
pub struct AgentPaths {
    /// A bpffs of the node's own; maps are pinned below it in `ferrule/`.
    pub bpffs: PathBuf,
    /// A cgroup of the node's own, if the machine has cgroup v2.
    pub cgroup: Option<PathBuf>,
    /// The agent's run folder.
    pub run_dir: PathBuf,
    /// The folder of manifests, shared by all nodes.
    pub manifests: PathBuf,
    /// Standard error of all agents that ran on the node, one after the other.
    pub log: PathBuf,
    pub(crate) cluster: String,
}

/// Where an agent's objects come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The cluster's folder of manifests.
    Manifests,
    /// The API server of this kubeconfig.
    Kubeconfig(&'a Path),
    /// The API server of the service account that the program finds, as a pod does.
    ServiceAccount,
}

/// A running agent; dropping it stops it.
#[derive(Debug)]
pub struct Agent {
    node: String,
    binary: PathBuf,
    namespace: Namespace,
    paths: AgentPaths,
    child: Child,
    keep: bool,
}

impl Agent {
    pub(crate) fn start(
        binary: &Path,
        node: &str,
        namespace: &Namespace,
        paths: AgentPaths,
        source: Source<'_>,
        extra_args: &[&str],
    ) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&paths.log)?;
        let mut run = Command::new(binary);
        run.args(["run", "--hostname-override", node])
            .args(["--cluster-cidr", CLUSTER_CIDR])
            .args(source.args(&paths))
            .args(places(&paths))
            .args(extra_args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for us alone: we stop the agents in order.
            .process_group(0);
        if let Some(cgroup) = &paths.cgroup {
            run.arg("--cgroup").arg(cgroup);
        }
        Ok(Self {
            node: node.to_owned(),
            binary: binary.to_owned(),
            namespace: namespace.clone(),
            child: start(&paths.cluster, namespace, run)?,
            keep: false,
            paths,
        })
    }

    /// Waits until the agent says that its maps are as its objects want them.
    ///
    /// # Errors
    /// When it ends or `limit` passes before that; the message carries the end of its log.
    pub fn wait_synced(&mut self, limit: Duration) -> Result<()> {
        let mut ended = None;
        let synced = wait_for(limit, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some() || self.is_synced()
        });
        if let Some(status) = ended {
            bail!("agent of {} ended ({status}):\n{}", self.node, self.log());
        }
        ensure!(
            synced,
            "agent of {} is not synced after {limit:?}:\n{}",
            self.node,
            self.log()
        );
        Ok(())
    }

    /// What `ferrule status -o json` prints.
    ///
    /// # Errors
    /// When the command fails or prints no JSON.
    pub fn status(&self) -> Result<serde_json::Value> {
        let places = places(&self.paths);
        let mut args = vec!["status", "-o", "json"];
        args.extend(places.iter().map(String::as_str));
        let binary = self.binary.to_string_lossy();
        let text = self.namespace.run(|| command::run(&binary, &args))??;
        serde_json::from_str(&text).context("status is not JSON")
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of the log, as an error message shows it.
    #[must_use]
    pub fn log(&self) -> String {
        let text = fs::read_to_string(&self.paths.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Kills the agent without warning, as a crash would.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the agent to end and waits for it.
    ///
    /// # Errors
    /// When it takes more than ten seconds, then it is killed; or when it reports a failure.
    pub fn stop(mut self) -> Result<()> {
        let status = self.terminate()?;
        ensure!(
            status.is_some_and(|status| status.success()),
            "agent of {} does not stop in order ({}):\n{}",
            self.node,
            status.map_or_else(
                || "killed after 10 s".to_owned(),
                |status| status.to_string()
            ),
            self.log()
        );
        Ok(())
    }

    /// Lets the agent run on when this value has gone; it ends with its cluster.
    pub fn keep(mut self) {
        self.keep = true;
    }

    fn is_synced(&self) -> bool {
        self.status().is_ok_and(|status| status["synced"] == true)
    }

    /// Returns the exit status; `None` if the agent had to be killed.
    fn terminate(&mut self) -> Result<Option<std::process::ExitStatus>> {
        let mut status = self.child.try_wait()?;
        if status.is_none() {
            kill(
                Pid::from_raw(i32::try_from(self.child.id())?),
                Signal::SIGTERM,
            )?;
            wait_for(Duration::from_secs(10), || {
                status = self.child.try_wait().ok().flatten();
                status.is_some()
            });
        }
        if status.is_none() {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok(status)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let running = !self.keep && matches!(self.child.try_wait(), Ok(None));
        if std::thread::panicking() {
            eprintln!("log of the agent of {}:\n{}", self.node, self.log());
        }
        if running && let Err(error) = self.terminate() {
            eprintln!("agent of {} can't be stopped: {error:#}", self.node);
        }
    }
}

impl<'a> Source<'a> {
    fn args(self, paths: &'a AgentPaths) -> Vec<&'a OsStr> {
        match self {
            Self::Manifests => vec!["--manifests".as_ref(), paths.manifests.as_os_str()],
            Self::Kubeconfig(path) => vec!["--kubeconfig".as_ref(), path.as_os_str()],
            Self::ServiceAccount => Vec::new(),
        }
    }
}

/// The flags that `run` and `status` share.
fn places(paths: &AgentPaths) -> [String; 4] {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    [
        "--bpffs".to_owned(),
        text(&paths.bpffs),
        "--run-dir".to_owned(),
        text(&paths.run_dir),
    ]
}
