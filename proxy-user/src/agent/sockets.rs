//! What the agent does about sockets: which programs at which cgroup, and what has come of it.

use crate::cluster::OptedOut;
use crate::config::{Run, SocketLb};
use crate::datapath::cgroup::{attach, find_root, own_netns, stop};
use crate::datapath::exempt::{Client, Exempt, ExemptReport};
use crate::datapath::pins::Pins;
use crate::tables::Sockets;
use anyhow::Result;
use aya::Ebpf;
use proxy_common::{NodeOption, NodeOptions};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// The programs at cgroups in `ferrule status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketReport {
    /// Whose sockets get a backend.
    pub mode: SocketLb,
    /// Where the programs are attached.
    pub cgroup: Option<PathBuf>,
    /// Why they aren't; devices translate packets instead.
    pub problem: Option<String>,
    /// Pods of this node whose sockets are left alone.
    pub exempt: Vec<ExemptReport>,
}

impl SocketReport {
    /// Before anything was done.
    pub(super) const fn new(mode: SocketLb) -> Self {
        Self {
            mode,
            cgroup: None,
            problem: None,
            exempt: Vec::new(),
        }
    }

    /// Whether all that can be done has been done.
    pub fn is_settled(&self) -> bool {
        self.mode == SocketLb::Off || self.cgroup.is_some() || self.problem.is_some()
    }
}

/// What the programs must know.
pub(super) fn settings(run: &Run) -> Sockets {
    let host_netns = own_netns().unwrap_or_else(|error| {
        debug!("the machine's first network namespace is taken for the node's: {error:#}");
        0
    });
    let options = NodeOptions::default()
        .with(NodeOption::HostOnly, run.socket_lb == SocketLb::HostOnly)
        .with(NodeOption::CloseTcp, run.close_tcp);
    Sockets {
        host_netns,
        loopback: run.has_localhost_nodeports(),
        options,
    }
}

/// Attaches the programs, or takes off those of an earlier agent. Without them devices do it all: no reason
/// not to start.
pub(super) fn take(run: &Run, pins: &Pins, programs: &mut Ebpf) -> SocketReport {
    let mut report = SocketReport::new(run.socket_lb);
    if run.socket_lb == SocketLb::Off {
        stop(pins);
        return report;
    }
    let attached = cgroup(run).and_then(|cgroup| {
        attach(programs, pins, &cgroup, run.bind_protection)?;
        Ok(cgroup)
    });
    match attached {
        Ok(cgroup) => {
            info!("cgroup {}: attached", cgroup.display());
            report.cgroup = Some(cgroup);
        }
        Err(error) => {
            // Half of them, or those of an earlier agent, would be worse than none.
            stop(pins);
            warn!("sockets are served at devices: {error:#}");
            report.problem = Some(format!("{error:#}"));
        }
    }
    report
}

fn cgroup(run: &Run) -> Result<PathBuf> {
    match &run.cgroup {
        Some(cgroup) => Ok(cgroup.clone()),
        None => find_root(&run.place.run_dir),
    }
}

/// Follows the pods that have opted out, and tells the programs and the report of them.
///
/// # Errors
/// The maps can't be opened, or there is no thread to be had.
pub(super) async fn follow_pods(
    pins: &Pins,
    mut pods: watch::Receiver<Option<Vec<OptedOut>>>,
    mut sockets: watch::Receiver<SocketReport>,
    reports: &watch::Sender<Vec<ExemptReport>>,
) -> Result<()> {
    let settled = sockets.wait_for(SocketReport::is_settled).await?.clone();
    let Some(cgroup) = settled.cgroup else {
        return std::future::pending().await;
    };
    let (clients_in, clients) = watch::channel(None);
    let (exempt, mut found) = Exempt::open(pins, cgroup, clients)?;
    exempt.start()?;
    pods.mark_changed();
    loop {
        tokio::select! {
            changed = pods.changed() => {
                changed?;
                let known = pods.borrow_and_update().clone();
                clients_in.send_replace(known.map(|pods| pods.into_iter().map(client).collect()));
            }
            changed = found.changed() => {
                changed?;
                reports.send_replace(found.borrow_and_update().clone());
            }
        }
    }
}

fn client(pod: OptedOut) -> Client {
    Client {
        name: pod.name,
        uid: pod.uid,
        addresses: pod.addresses,
        is_host: pod.is_host,
    }
}
