//! What the agent does about sockets: which programs at which cgroup, and what has come of it.

use crate::config::{Run, SocketLb};
use crate::datapath::cgroup::{attach, detach, find_root, own_netns};
use crate::datapath::pins::Pins;
use crate::tables::Sockets;
use anyhow::Result;
use aya::Ebpf;
use proxy_common::{SocketOption, SocketOptions};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tracing::{info, warn};

/// The programs at cgroups in `ferrule status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketReport {
    /// Whose sockets get a backend.
    pub mode: SocketLb,
    /// Where the programs are attached.
    pub cgroup: Option<PathBuf>,
    /// Why they aren't; devices translate packets instead.
    pub problem: Option<String>,
}

impl SocketReport {
    /// Before anything was done.
    pub(super) const fn new(mode: SocketLb) -> Self {
        Self {
            mode,
            cgroup: None,
            problem: None,
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
        warn!("{error:#}");
        0
    });
    let options = SocketOptions::default()
        .with(SocketOption::HostOnly, run.socket_lb == SocketLb::HostOnly)
        .with(SocketOption::LoopbackNodePorts, run.localhost_nodeports)
        .with(SocketOption::BindProtection, run.bind_protection)
        .with(SocketOption::CloseTcp, run.close_tcp);
    Sockets {
        host_netns,
        options,
        exempt_levels: 0,
    }
}

/// Attaches the programs, or takes off those of an earlier agent. Without them devices do it all: no reason
/// not to start.
pub(super) fn take(run: &Run, pins: &Pins, programs: &mut Ebpf) -> SocketReport {
    let mut report = SocketReport::new(run.socket_lb);
    if run.socket_lb == SocketLb::Off {
        detach(pins);
        return report;
    }
    match attach_to(run, pins, programs) {
        Ok(cgroup) => {
            info!("cgroup {}: attached", cgroup.display());
            report.cgroup = Some(cgroup);
        }
        Err(error) => {
            warn!("sockets are served at devices: {error:#}");
            detach(pins);
            report.problem = Some(format!("{error:#}"));
        }
    }
    report
}

fn attach_to(run: &Run, pins: &Pins, programs: &mut Ebpf) -> Result<PathBuf> {
    let cgroup = match &run.cgroup {
        Some(cgroup) => cgroup.clone(),
        None => find_root(&run.place.run_dir)?.path,
    };
    attach(programs, pins, &cgroup)?;
    Ok(cgroup)
}
