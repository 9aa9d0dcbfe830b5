//! Writing to the maps, several Services at a time.

use super::Sync;
use crate::cluster::ServiceName;
use crate::datapath::{Datapath, Op};
use crate::tables::{diff, sort};
use std::collections::BTreeSet;
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
        let failed = self.write(names, ops);
        for (owner, name) in names.iter().enumerate() {
            if failed.contains(&owner) {
                self.failed.insert(name.clone());
            } else {
                self.arrived(name);
            }
        }
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

    fn arrived(&mut self, name: &ServiceName) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        entry.desired = None;
        if entry.lacks_room {
            self.failed.insert(name.clone());
            return;
        }
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
