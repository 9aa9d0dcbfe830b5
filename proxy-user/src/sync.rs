//! The loop: changed Services -> frontends -> rows -> ops -> maps, with retry.
//!
//! One owner of everything, no locks. What is in the maps (`actual`) advances op by op after
//! success, so that an error leaves nothing to roll back: the next turn goes on from there.

mod health_checks;
mod names;
mod node;
mod orphans;
mod progress;
mod publish;
mod report;
mod run;
mod skipping;
mod tally;
mod vitals;
mod write;

pub use health_checks::HealthChecks;
pub use names::{At, NotAPlace};
pub use node::Followed;
pub use report::{MapFill, NodeReport, PerFamily, Report, SkippedReport};
pub use vitals::{NodeState, Vitals};

use crate::cluster::{Cluster, Dirty, OptedOut, ServiceName, Skipped};
use crate::datapath::{Datapath, Error};
use crate::frontend::{HealthCheck, LocalAddresses, NodeContext, left_alone, service_ports};
use crate::metrics::LoopMetrics;
use crate::source::{Event, Kind};
use crate::tables::{Batch, Encoded, Freed, Ids, Orphans, ServiceTables, Sockets, encode};
use progress::Progress;
use proxy_common::NodeConfig;
use skipping::{of_node, taken};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::SystemTime;
use tally::{Gaps, Tally};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

/// How many Services are written together; bounds memory, not correctness.
const SERVICES_PER_TURN: usize = 1024;
/// What the loop is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this node's object.
    pub node_name: String,
    /// Addresses of this node that take precedence over those of its object, family by family.
    pub node_addresses: Vec<IpAddr>,
    /// What may change while the loop runs.
    pub followed: Followed,
    /// Source ports for masked flows.
    pub snat_ports: RangeInclusive<u16>,
    /// What the programs at cgroups must know.
    pub sockets: Sockets,
    /// Where generations start: a random number, except in tests.
    pub first_generation: u32,
}

/// The loop's state.
#[derive(Debug)]
pub struct Sync<D> {
    settings: Settings,
    datapath: D,
    cluster: Cluster,
    ids: Ids,
    orphans: Orphans,
    services: HashMap<ServiceName, Box<Entry>>,
    /// To be encoded anew.
    dirty: BTreeSet<ServiceName>,
    /// Have failed; waiting for the next retry.
    failed: BTreeSet<ServiceName>,
    node: NodeContext,
    config: Option<NodeConfig>,
    synced: bool,
    problems: BTreeMap<String, Vec<String>>,
    last_error: Option<String>,
    /// Who listens to what becomes of pods; `None` before all are known.
    opted_out: watch::Sender<Option<Vec<OptedOut>>>,
    progress: Progress,
    tally: Tally,
    /// What can't be used of Services, by reason.
    skipped: BTreeMap<&'static str, usize>,
    metrics: LoopMetrics,
    vitals: watch::Sender<Vitals>,
    health_checks: watch::Sender<HealthChecks>,
}

/// A Service and its rows.
#[derive(Debug, Default)]
struct Entry {
    actual: ServiceTables,
    /// Where the rows are going, until they are there.
    desired: Option<Box<ServiceTables>>,
    skipped: Vec<Skipped>,
    served: bool,
    /// A map is too full for what the Service needs; `desired` is not that then.
    lacks_room: bool,
    gaps: Gaps,
    /// Few Services have one.
    health_check: Option<Box<HealthCheck>>,
    /// As it was last counted.
    tally: Tally,
}

/// Asks a running loop.
#[derive(Debug)]
pub enum Request {
    /// For its state.
    Report(oneshot::Sender<Report>),
    /// For the name of what is dialled here.
    Name(At, oneshot::Sender<Option<String>>),
}

impl<D: Datapath> Sync<D> {
    /// Reads what an earlier run has left in the maps. Nothing is written before
    /// [`Event::Synced`].
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn new(settings: Settings, mut datapath: D) -> Result<Self, Error> {
        let dump = datapath.dump()?;
        let (orphans, ids) =
            Orphans::restore(&dump, datapath.capacity(), settings.first_generation);
        Ok(Self {
            cluster: Cluster::new(&settings.node_name),
            node: NodeContext::of(
                settings.node_addresses.iter().copied(),
                LocalAddresses::new(),
                &settings.followed.node_ports,
            ),
            settings,
            datapath,
            ids,
            orphans,
            services: HashMap::new(),
            dirty: BTreeSet::new(),
            failed: BTreeSet::new(),
            config: None,
            synced: false,
            problems: BTreeMap::new(),
            last_error: None,
            opted_out: watch::Sender::new(None),
            progress: Progress::default(),
            tally: Tally::default(),
            skipped: BTreeMap::new(),
            metrics: LoopMetrics::default(),
            vitals: watch::Sender::new(Vitals::default()),
            health_checks: watch::Sender::default(),
        })
    }

    /// Takes in a batch of events and writes what follows from them. What can't be written is
    /// kept for [`Sync::retry`].
    pub fn apply(&mut self, events: Vec<Event>) {
        let was_synced = self.synced;
        for event in events {
            match event {
                Event::Apply(object) => {
                    let dirty = self.cluster.apply(&object);
                    self.mark(dirty, object.kind());
                }
                Event::Delete(key) => {
                    let dirty = self.cluster.delete(&key);
                    self.mark(dirty, key.kind);
                }
                Event::Synced => self.start(),
                Event::Problems { origin, problems } => self.note(origin, problems),
            }
        }
        self.work();
        if self.synced && !was_synced {
            let (services, failed) = (self.services.len(), self.failed.len());
            info!("in sync: {services} Services, {failed} of them to be tried again");
        }
    }

    /// Whether something has failed and waits for [`Sync::retry`].
    pub fn needs_retry(&self) -> bool {
        !self.failed.is_empty() || self.synced && self.config != Some(self.wanted_config())
    }

    /// Tries again what has failed.
    pub fn retry(&mut self) {
        self.begin_turn();
        let failed = std::mem::take(&mut self.failed);
        let lacks_room = |name: &ServiceName| {
            let entry = self.services.get(name);
            entry.is_some_and(|entry| entry.lacks_room)
        };
        let (lacking, going): (Vec<_>, Vec<_>) = failed.into_iter().partition(lacks_room);
        self.dirty.extend(lacking);
        self.settle(&going);
        self.work();
    }

    /// What has become free since the last call. To be handed to [`Sync::release`] when a grace
    /// period that begins now is over.
    pub fn take_freed(&mut self) -> Option<Batch> {
        self.ids.seal()
    }

    /// Makes freed ids available again.
    pub fn release(&mut self, batch: Batch) {
        self.ids.release(batch);
        self.publish();
    }

    /// The maps.
    pub fn datapath(&mut self) -> &mut D {
        &mut self.datapath
    }

    /// Ends the loop's life; the maps stay as they are.
    pub fn into_datapath(self) -> D {
        self.datapath
    }

    fn mark(&mut self, dirty: Dirty, kind: Kind) {
        self.metrics.count_event(kind);
        for skipped in dirty.skipped {
            warn!("{skipped}");
        }
        if dirty.node {
            self.node_changed();
        }
        if dirty.pods {
            self.tell_of_pods();
        }
        if self.synced {
            self.queue(&dirty.services, kind, dirty.trigger);
            self.dirty.extend(dirty.services);
        }
    }

    fn start(&mut self) {
        self.synced = true;
        self.tell_of_pods();
        self.mark_all();
    }

    fn mark_all(&mut self) {
        if self.synced {
            self.dirty.extend(self.cluster.names().cloned());
            self.progress.queue_all();
            self.metrics.set_queued(SystemTime::now());
        }
    }

    /// Writes everything that is dirty, some Services at a time.
    fn work(&mut self) {
        if self.synced {
            self.begin_turn();
            self.turn();
            self.end_turn();
        }
        self.publish();
    }

    fn turn(&mut self) {
        self.configure();
        while !self.dirty.is_empty() {
            let names = self.take_dirty();
            for name in &names {
                self.refresh(name);
            }
            self.settle(&names);
        }
        self.disown();
        if !self.needs_retry() {
            self.last_error = None;
        }
    }

    fn take_dirty(&mut self) -> Vec<ServiceName> {
        let mut names = Vec::new();
        while names.len() < SERVICES_PER_TURN
            && let Some(name) = self.dirty.pop_first()
        {
            names.push(name);
        }
        names
    }

    /// Computes where a Service's rows are going.
    fn refresh(&mut self, name: &ServiceName) {
        let view = self.cluster.view(name);
        let ports = view.as_ref().map(|view| service_ports(view, &self.node));
        let ports = ports.unwrap_or_default();
        let mut entry = self.services.remove(name).unwrap_or_default();
        entry.served = view.is_some();
        entry.gaps = Gaps::of(&ports);
        entry.health_check = view.as_ref().and_then(|view| self.health_check(view));
        let rows = self.orphans.take(&ports);
        self.adopt(name, &mut entry, rows);
        self.abandon(&mut entry);
        let alone = view.iter().flat_map(|view| left_alone(view, &self.node));
        let mut skipped: Vec<Skipped> = alone
            .map(|(address, device)| of_node(name, address, device))
            .collect();
        skipped.extend(view.map(|view| view.skipped).unwrap_or_default());
        let encoded = encode(name, &ports, &entry.actual, &mut self.ids);
        entry.lacks_room = encoded.is_err();
        match encoded {
            Ok(Encoded { tables, conflicts }) => {
                skipped.extend(conflicts.into_iter().map(|conflict| taken(name, conflict)));
                entry.desired = Some(Box::new(tables));
            }
            Err(full) => {
                self.fail(&full);
                entry.desired = Some(Box::new(entry.actual.reachable()));
            }
        }
        self.skip(&mut entry, skipped);
        self.services.insert(name.clone(), entry);
    }

    /// Makes rows of an earlier run this Service's own.
    fn adopt(&mut self, name: &ServiceName, entry: &mut Entry, rows: ServiceTables) {
        self.ids.adopt(name, rows.dialled());
        entry.actual.absorb(rows);
    }

    /// Gives up where the rows were going; what has been written of it stays in `actual`.
    fn abandon(&mut self, entry: &mut Entry) {
        if let Some(desired) = entry.desired.take() {
            let waiting = self.ids.unuse(desired.beyond(&entry.actual));
            self.dirty.extend(waiting);
        }
        let unpublished = entry.actual.drop_unpublished();
        self.free(unpublished);
    }

    fn free(&mut self, freed: Vec<Freed>) {
        let waiting = self.ids.free(freed);
        self.dirty.extend(waiting);
    }
}

#[cfg(test)]
mod tests;
