//! Writing to the maps, several Services at a time.

use super::{Entry, Sync};
use crate::cluster::{ServiceName, Trigger};
use crate::datapath::{Datapath, Error, Op};
use crate::tables::{ServiceTables, diff, sort};
use proxy_common::{AddrV4, AddrV6};
use std::collections::BTreeSet;
use std::time::Instant;
use tracing::error;

impl<D: Datapath> Sync<D> {
    /// Writes what separates these Services from where they are going.
    pub(super) fn settle(&mut self, names: &[ServiceName]) {
        let mut ops = Vec::new();
        for (owner, name) in names.iter().enumerate() {
            let entry = self.services.get(name);
            let desired = entry.and_then(|entry| Some((&entry.actual, entry.desired.as_ref()?)));
            let diff = desired.map(|(actual, desired)| diff(actual, desired));
            ops.extend(diff.into_iter().flatten().map(|op| (owner, op)));
        }
        sort(&mut ops, |(_, op)| op);
        if !names.is_empty() {
            let families = self.families(names, &ops);
            self.progress.work(families);
        }
        let failed = self.write(names, ops);
        let mut triggers = Vec::new();
        for (owner, name) in names.iter().enumerate() {
            self.recount(name);
            if failed.contains(&owner) {
                self.failed.insert(name.clone());
            } else {
                self.tell_of_health_check(name);
                self.arrived(name, &mut triggers);
            }
        }
        self.observe_delays(&triggers);
    }

    /// Whether there are writes for IPv4 and IPv6. Those to maps that the families share come with others of the
    /// same family, unless endpoints have only changed places: then for those that the Services have rows of.
    fn families(&self, names: &[ServiceName], ops: &[(usize, Op)]) -> [bool; 2] {
        let any = |wanted: fn(&Op) -> bool| ops.iter().any(|(_, op)| wanted(op));
        let own = [
            any(|op| matches!(op, Op::V4(_))),
            any(|op| matches!(op, Op::V6(_))),
        ];
        if own != [false; 2] {
            return own;
        }
        let entries = ops
            .iter()
            .filter_map(|(owner, _)| self.services.get(&names[*owner]));
        entries
            .map(|entry| entry.families())
            .fold(own, |[v4, v6], more| [v4 || more[0], v6 || more[1]])
    }

    /// Applies ops, each with the index of its Service. After an error the Service's other ops are
    /// left out and the rest goes on. Returns the Services with errors.
    fn write(&mut self, names: &[ServiceName], ops: Vec<(usize, Op)>) -> BTreeSet<usize> {
        let mut failed = BTreeSet::new();
        let (mut owners, mut ops): (Vec<usize>, Vec<Op>) = ops.into_iter().unzip();
        while !ops.is_empty() {
            let (applied, result) = self.datapath.apply(&ops);
            let mut done = ops.drain(..applied);
            for run in owners[..applied].chunk_by(|one, other| one == other) {
                self.advance(&names[run[0]], done.by_ref().take(run.len()));
            }
            drop(done);
            owners.drain(..applied);
            if let (Err(error), Some(&owner)) = (result, owners.first()) {
                self.fail(&error);
                self.gave_up(&names[owner], &error);
                failed.insert(owner);
                let rest = owners.into_iter().zip(ops);
                (owners, ops) = rest.filter(|(other, _)| *other != owner).unzip();
            }
        }
        failed
    }

    fn advance(&mut self, name: &ServiceName, ops: impl Iterator<Item = Op>) {
        let mut freed = Vec::new();
        let mut entry = self.services.get_mut(name);
        for op in ops {
            if let Some(entry) = &mut entry {
                entry.actual.apply(&op, &mut freed);
            }
        }
        self.free(freed);
    }

    /// A write of a Service has failed.
    fn gave_up(&mut self, name: &ServiceName, error: &Error) {
        self.metrics.count_error();
        let entry = self.services.get(name);
        let families = entry.map_or([true; 2], |entry| entry.families());
        match error {
            Error::Full { .. } => drop(self.progress.done(name)),
            Error::Syscall { .. } => self.progress.failed(name, families, Instant::now()),
        }
    }

    /// All of a Service is where it was going. Adds what that goes back to.
    fn arrived(&mut self, name: &ServiceName, triggers: &mut Vec<Trigger>) {
        let done = self.progress.done(name);
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        entry.desired = None;
        if entry.lacks_room {
            self.failed.insert(name.clone());
            return;
        }
        triggers.extend(done);
        self.failed.remove(name);
        if !entry.served && entry.actual.is_empty() {
            self.services.remove(name);
        }
    }

    /// Says what has failed, once as long as it is the same.
    pub(super) fn fail(&mut self, error: &dyn std::error::Error) {
        let text = error.to_string();
        if self.last_error.as_ref() != Some(&text) {
            error!("{text}; will be tried again");
            self.last_error = Some(text);
        }
    }
}

impl Entry {
    /// Whether there are rows of IPv4 and IPv6, or will be.
    fn families(&self) -> [bool; 2] {
        let tables = || {
            [Some(&self.actual), self.desired.as_deref()]
                .into_iter()
                .flatten()
        };
        let v4 = |it: &ServiceTables| *it.family::<AddrV4>() != Default::default();
        let v6 = |it: &ServiceTables| *it.family::<AddrV6>() != Default::default();
        [tables().any(v4), tables().any(v6)]
    }
}
