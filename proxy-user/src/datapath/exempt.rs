//! Pods whose sockets are left alone: found on this node by their cgroup, else by their network namespace,
//! and told to the programs.
//!
//! A thread of its own: cgroups and namespaces of a pod appear some time after the pod is known.

mod search;

use crate::datapath::bpf::Row;
use crate::datapath::kernel::open;
use crate::datapath::pins::Pins;
use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData, MapError};
use proxy_common::{ExemptBy, ExemptKey};
use search::Search;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// Who wants to be left alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// What people call it.
    pub name: String,
    /// What the name of its cgroup contains.
    pub uid: String,
    /// Its addresses, as far as they are known.
    pub addresses: Vec<IpAddr>,
    /// Whether it shares the node's network namespace.
    pub is_host: bool,
}

/// One that has been found, or not, in `ferrule status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExemptReport {
    /// What people call it.
    pub name: String,
    /// What its sockets are told by; `None`: nothing yet, so that they get a backend like all others.
    pub by: Option<Mark>,
}

/// What the programs tell a client's sockets by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// The cgroup of the caller.
    Cgroup,
    /// The network namespace of the socket.
    Netns,
}

/// Between two questions for clients.
const PAUSE: Duration = Duration::from_millis(100);
/// So often there is a look in a row while a client is new, and one in so many later: containers may have been
/// made anew.
const OFTEN: u32 = 50;
const SELDOM: u32 = 20;

/// The maps, and whom they are about.
pub struct Exempt {
    rows: HashMap<MapData, Row<ExemptKey>, u32>,
    by: Array<MapData, Row<ExemptBy>>,
    search: Search,
    clients: watch::Receiver<Option<Vec<Client>>>,
    reports: watch::Sender<Vec<ExemptReport>>,
    problem: Option<String>,
}

impl Exempt {
    /// Opens the maps; cgroups are looked for below `cgroup`. Returns where reports will be found, too.
    ///
    /// # Errors
    /// What is not there.
    pub fn open(
        pins: &Pins,
        cgroup: PathBuf,
        clients: watch::Receiver<Option<Vec<Client>>>,
    ) -> Result<(Self, watch::Receiver<Vec<ExemptReport>>)> {
        let (reports, receiver) = watch::channel(Vec::new());
        let exempt = Self {
            rows: open(pins, "EXEMPT")?,
            by: open(pins, "EXEMPT_BY")?,
            search: Search::new(cgroup),
            clients,
            reports,
            problem: None,
        };
        Ok((exempt, receiver))
    }

    /// Goes on as long as there is somebody who tells of clients.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(mut self) -> Result<()> {
        let thread = std::thread::Builder::new().name("exempt".into());
        let spawned = thread.spawn(move || self.run());
        spawned.context("starting the thread that finds pods")?;
        Ok(())
    }

    fn run(&mut self) {
        let mut rounds = 0_u32;
        while let Ok(is_new) = self.clients.has_changed() {
            rounds = if is_new { 0 } else { rounds.saturating_add(1) };
            let is_searching = self.reports.borrow().iter().any(|it| it.by.is_none());
            if is_new || (is_searching && rounds < OFTEN) || rounds.is_multiple_of(SELDOM) {
                let outcome = self.look();
                self.complain(outcome);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn complain(&mut self, outcome: Result<()>) {
        let problem = outcome.err().map(|error| format!("{error:#}"));
        if let Some(problem) = &problem
            && self.problem.as_ref() != Some(problem)
        {
            warn!("pods that have opted out, this is tried again: {problem}");
        }
        self.problem = problem;
    }

    /// Nothing before all clients are known: what an earlier agent has left stays until then.
    fn look(&mut self) -> Result<()> {
        let Some(clients) = self.clients.borrow_and_update().clone() else {
            return Ok(());
        };
        let mut wanted = BTreeSet::new();
        let mut by = ExemptBy::default();
        let mut reports = Vec::new();
        let mut found = self.search.find(&clients);
        for client in &clients {
            let marks = found.remove(&client.uid).unwrap_or_default();
            reports.push(ExemptReport {
                name: client.name.clone(),
                by: marks.kind(),
            });
            by.netns |= u32::from(marks.netns.is_some());
            wanted.extend(marks.netns.map(ExemptKey::netns));
            for (id, levels) in marks.cgroups {
                by.levels |= levels;
                wanted.insert(ExemptKey::cgroup(id));
            }
        }
        self.write(&wanted, by)?;
        self.reports.send_if_modified(|before| {
            let changed = *before != reports;
            *before = reports;
            changed
        });
        Ok(())
    }

    /// What is to be looked for is in the map before it is looked for.
    fn write(&mut self, wanted: &BTreeSet<ExemptKey>, by: ExemptBy) -> Result<()> {
        let there = self.rows.keys().map(|key| key.map(|key| key.0));
        let there: BTreeSet<ExemptKey> =
            there.collect::<Result<_, _>>().context("reading EXEMPT")?;
        for key in wanted.difference(&there) {
            let written = self.rows.insert(Row(*key), 0, 0);
            written.context("writing EXEMPT")?;
        }
        self.by.set(0, Row(by), 0).context("writing EXEMPT_BY")?;
        for key in there.difference(wanted) {
            match self.rows.remove(&Row(*key)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).context("removing a row of EXEMPT"),
            }
        }
        Ok(())
    }
}
