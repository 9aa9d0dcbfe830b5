//! What the agent asks of the node before it starts: ports of its own, packets from the node to itself, and
//! kube-proxy's settings of conntrack.

use super::report::is_running;
use crate::config::{NODE_PORTS, Place, Run};
use crate::datapath::others;
use crate::datapath::sysctl::{Conntrack, Setting, accept_local, reserve};
use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::ops::RangeInclusive;
use tracing::{debug, warn};

/// What has come of it.
pub struct Preparations {
    /// Source ports of masked flows.
    pub snat_ports: RangeInclusive<u16>,
    /// Ports that no socket gets unless it asks for them; `None`: that could not be set.
    pub reserved_ports: Option<String>,
    /// Settings of netfilter's conntrack; none where there is no conntrack.
    pub conntrack: Vec<Setting>,
    /// What the operator should put right.
    pub warnings: Vec<String>,
}

impl Preparations {
    /// Sets what can be set and warns of the rest: without it the agent does what it can.
    ///
    /// # Errors
    /// The node's ephemeral range can't be read.
    pub fn make(
        snat_ports: &RangeInclusive<u16>,
        conntrack: &Conntrack,
        place: &Place,
    ) -> Result<Self> {
        raise_file_limit();
        let mut warnings = Run::overlaps(snat_ports)?;
        let reserved = reserve(&[snat_ports.clone(), NODE_PORTS]);
        let accepting = accept_local();
        let conntrack = conntrack.make();
        let settings = [&reserved, &accepting].into_iter().chain(&conntrack);
        warnings.extend(settings.filter_map(Setting::warning));
        warnings.extend(others::warnings(&place.bpffs, is_running(&place.run_dir)));
        for warning in &warnings {
            warn!("{warning}");
        }
        Ok(Self {
            snat_ports: snat_ports.clone(),
            reserved_ports: reserved.problem.is_none().then_some(reserved.value),
            conntrack,
            warnings,
        })
    }
}

/// The soft limit is low for the sake of programs that use select(2); health checks may need thousands of sockets.
fn raise_file_limit() {
    let files = Resource::RLIMIT_NOFILE;
    let raised = getrlimit(files).and_then(|(_, hard)| setrlimit(files, hard, hard));
    if let Err(error) = raised {
        debug!("the limit of open files stays: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_operator_allows() {
        let files = Resource::RLIMIT_NOFILE;
        let (_, hard) = getrlimit(files).unwrap();
        setrlimit(files, hard - 1, hard).unwrap();
        raise_file_limit();
        assert_eq!(getrlimit(files).unwrap(), (hard, hard));
    }
}
