//! An agent as a process of its own, and what it says of itself.

use super::delays::Delays;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use xtask::cluster::Cluster;

/// Where the agent serves its metrics.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
/// What the agent logs when its maps are complete.
const SYNCED: &str = "in sync:";

/// How much less the server and its changes matter to the scheduler: they stand for another machine.
const NICER: &str = "10";

/// Lets agents have the CPU first. To be called before there are other threads.
pub(crate) fn yield_to_agents() -> Result<()> {
    let own = std::process::id().to_string();
    let status = Command::new("renice")
        .args(["-n", NICER, "-p", &own])
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "renice failed");
    Ok(())
}

/// A running agent.
pub(crate) struct Agent {
    binary: PathBuf,
    child: Child,
    start: Instant,
    /// Lines of its log.
    lines: Receiver<(Instant, String)>,
}

impl Agent {
    /// Starts it on the first node.
    pub(crate) fn start(
        binary: &Path,
        cluster: &Cluster,
        kubeconfig: &Path,
        extra: &[String],
    ) -> Result<Self> {
        let node = cluster.node(1);
        // As nice as it would be by itself.
        let mut run = Command::new("nice");
        run.args(["-n", &format!("-{NICER}")]).arg(binary);
        run.args(["run", "--hostname-override", &node.name()])
            .args(extra)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(places(cluster))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = cluster.spawn(node.namespace(), run)?;
        let log = child.stderr.take().context("the agent has no log")?;
        let (lines_in, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                // Nobody may be interested any more.
                let _ = lines_in.send((Instant::now(), line));
            }
        });
        Ok(Self {
            binary: binary.to_owned(),
            child,
            start,
            lines,
        })
    }

    /// Waits until all is in the maps; returns how long that took from the start of the process.
    pub(crate) fn synced(&self, limit: Duration) -> Result<Duration> {
        let mut log = Vec::new();
        while self.start.elapsed() < limit {
            let Ok((at, line)) = self.lines.recv_timeout(limit) else {
                break;
            };
            if line.contains(SYNCED) {
                return Ok(at - self.start);
            }
            log.push(line);
        }
        bail!("not in sync after {limit:?}:\n{}", log.join("\n"));
    }

    /// Megabytes in memory: of all kinds, and of its own, which no file backs.
    pub(crate) fn memory(&self) -> Result<[f64; 2]> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |key: &str| {
            let words = text.lines().find_map(|line| line.strip_prefix(key));
            let number = words.and_then(|words| words.split_ascii_whitespace().next());
            let number: f64 = number.with_context(|| format!("no {key}"))?.parse()?;
            anyhow::Ok(number * 1024.0 / 1e6)
        };
        Ok([field("VmRSS:")?, field("RssAnon:")?])
    }

    /// From events to maps, so far.
    pub(crate) fn delays(&self, cluster: &Cluster) -> Result<Delays> {
        Delays::read(cluster.node(1).namespace(), METRICS)
    }

    /// Ends it, and removes what it has pinned: the next one starts with nothing.
    pub(crate) fn stop_and_clean(mut self, cluster: &Cluster) -> Result<()> {
        let mut cleanup = Command::new(&self.binary);
        cleanup
            .arg("cleanup")
            .args(places(cluster))
            .stdout(Stdio::null());
        let status = cluster
            .spawn(cluster.node(1).namespace(), cleanup)?
            .wait()?;
        ensure!(status.success(), "ferrule cleanup failed");
        self.child.wait()?;
        Ok(())
    }
}

fn places(cluster: &Cluster) -> [String; 4] {
    let paths = cluster.node(1).paths();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    [
        "--bpffs".into(),
        text(&paths.bpffs),
        "--run-dir".into(),
        text(&paths.run_dir),
    ]
}
