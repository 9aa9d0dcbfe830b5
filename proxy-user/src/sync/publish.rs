//! What the loop tells of itself, turn by turn: to Prometheus, and to those who answer for its health.

use super::{Sync, Vitals, tally};
use crate::cluster::{IpFamily, ServiceName, Trigger};
use crate::datapath::Datapath;
use crate::metrics::{Contents, LoopMetrics, Turn};
use crate::source::Kind;
use crate::tables::Map;
use std::time::{Instant, SystemTime};
use tokio::sync::watch;

impl<D: Datapath> Sync<D> {
    /// What Prometheus is told; shared with the loop.
    pub fn metrics(&self) -> LoopMetrics {
        self.metrics.clone()
    }

    /// How the loop is, from now on.
    pub fn vitals(&self) -> watch::Receiver<Vitals> {
        self.vitals.subscribe()
    }

    /// Services are to be looked at because an object of this kind has changed.
    pub(super) fn queue(&mut self, names: &[ServiceName], kind: Kind, trigger: Option<Trigger>) {
        if names.is_empty() {
            return;
        }
        let now = Instant::now();
        for name in names {
            self.progress.queue(name, kind, trigger, now);
        }
        self.metrics.set_queued(SystemTime::now());
    }

    /// Tells of what is queued first: a turn that hangs must not go unnoticed.
    pub(super) fn begin_turn(&mut self) {
        self.progress.begin(Instant::now());
        self.tell_of_health();
    }

    pub(super) fn end_turn(&mut self) {
        let wall = SystemTime::now();
        if let Some(finished) = self.progress.end(Instant::now(), wall) {
            self.metrics.observe_turn(&Turn {
                took: finished.took,
                is_full: finished.is_full,
                wrote: finished.wrote,
            });
            self.metrics.set_written(self.progress.written());
        }
    }

    /// All of these is in the maps now.
    pub(super) fn observe_delays(&self, triggers: &[Trigger]) {
        let now = SystemTime::now();
        for trigger in triggers {
            // The other machine's clock may be ahead.
            let delay = now.duration_since(trigger.at).unwrap_or_default();
            self.metrics.observe_delay(trigger.family, delay);
        }
    }

    /// Tells of everything that is not told where it happens.
    pub(super) fn publish(&mut self) {
        self.tell_of_health();
        let mut skipped = self.skipped.clone();
        let of_node = self.cluster.node().into_iter();
        let of_node = of_node.flat_map(|node| &node.skipped);
        tally::count(&mut skipped, of_node.chain(self.cluster.unowned()));
        // Reasons that there are no more are 0, not what they were.
        for reason in skipped.keys() {
            self.skipped.entry(reason).or_default();
        }
        self.metrics.set_contents(&self.contents(), &skipped);
    }

    fn contents(&self) -> Contents {
        let (tally, pending) = (&self.tally, self.progress.pending());
        Contents {
            synced: self.synced,
            services: tally.services,
            service_ports: tally.service_ports.into(),
            frontends: tally.frontends.into(),
            backends: tally.backends.into(),
            no_local: [tally.gaps.internal.into(), tally.gaps.external.into()],
            pending_services: pending.services,
            pending_endpoints: pending.endpoints,
            failing: self.progress.failing(),
            lacking_room: self.failed.len().saturating_sub(self.progress.failing()),
            problems: self.problems.values().map(Vec::len).sum(),
            used: Map::ALL.map(|map| self.ids.used(map)),
            capacity: Map::ALL.map(|map| self.datapath.capacity().of(map)),
        }
    }

    fn tell_of_health(&self) {
        let is_leaving = self.cluster.node().map(|node| node.is_leaving);
        let waiting = IpFamily::ALL.map(|family| self.progress.waiting_since(family));
        self.vitals.send_modify(|vitals| {
            *vitals = Vitals {
                synced: self.synced,
                waiting_since: waiting,
                written: self.progress.written(),
                node: vitals.node.after(is_leaving),
            }
        });
    }
}
