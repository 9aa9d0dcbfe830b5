//! The objects, their one counter of versions, and the history that watches and pages read.

use super::object::Object;
use super::resource::{Resource, Target};
use super::selector::Selector;
use super::status::Status;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What happened to an object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) previous: Option<Arc<Object>>,
    /// `None` after a deletion.
    pub(super) object: Option<Arc<Object>>,
}

/// Objects of one kind and what happened to them.
#[derive(Debug, Default)]
struct Table {
    objects: BTreeMap<String, Arc<Object>>,
    changes: VecDeque<Arc<Change>>,
    /// The revision of the last change that has left `changes`.
    forgotten: u64,
}

/// What a list is made of.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) revision: u64,
    pub(super) objects: Vec<Arc<Object>>,
    /// How many selected objects come after the page.
    pub(super) remaining: usize,
}

/// All objects.
#[derive(Debug)]
pub(super) struct Store {
    revision: u64,
    /// The oldest revision that can be asked for.
    compacted: u64,
    tables: Vec<Table>,
    /// Changes of each kind that are kept.
    history: usize,
}

impl Store {
    pub(super) fn new(history: usize) -> Self {
        Self {
            // A fresh server has written some objects of its own.
            revision: 100,
            compacted: 0,
            tables: Resource::all().map(|_| Table::default()).collect(),
            history,
        }
    }

    /// The newest revision of anything.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Forgets what was before the newest revision, for whoever asks from now on.
    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
    }

    pub(super) fn get(&self, resource: Resource, key: &str) -> Option<&Arc<Object>> {
        self.tables[resource.index()].objects.get(key)
    }

    /// Stores an object whose metadata lacks no more than its version.
    pub(super) fn put(
        &mut self,
        resource: Resource,
        mut object: Map<String, Value>,
    ) -> Arc<Object> {
        self.revision += 1;
        let metadata = object
            .entry("metadata")
            .or_insert_with(|| Map::new().into());
        metadata["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(Object::new(resource, self.revision, object));
        let objects = &mut self.tables[resource.index()].objects;
        let previous = objects.insert(object.key.clone(), Arc::clone(&object));
        self.record(resource, previous, Some(Arc::clone(&object)));
        object
    }

    /// Removes an object and returns its last state.
    pub(super) fn remove(&mut self, resource: Resource, key: &str) -> Option<Arc<Object>> {
        let previous = self.tables[resource.index()].objects.remove(key)?;
        self.revision += 1;
        self.record(resource, Some(Arc::clone(&previous)), None);
        Some(previous)
    }

    /// The keys of all objects of a kind.
    pub(super) fn keys(&self, resource: Resource) -> Vec<String> {
        let objects = &self.tables[resource.index()].objects;
        objects.keys().cloned().collect()
    }

    fn record(
        &mut self,
        resource: Resource,
        previous: Option<Arc<Object>>,
        object: Option<Arc<Object>>,
    ) {
        let table = &mut self.tables[resource.index()];
        table.changes.push_back(Arc::new(Change {
            revision: self.revision,
            previous,
            object,
        }));
        while table.changes.len() > self.history
            && let Some(change) = table.changes.pop_front()
        {
            table.forgotten = change.revision;
        }
    }

    /// Fails if what came after this revision is no longer known completely.
    pub(super) fn check_known(&self, resource: Resource, revision: u64) -> Result<(), Status> {
        let oldest = self.compacted.max(self.tables[resource.index()].forgotten);
        match revision < oldest {
            true => Err(Status::too_old(revision, oldest)),
            false => Ok(()),
        }
    }

    /// At most `limit` changes of a kind after a revision, for a watch that is open: compaction does
    /// not concern it, falling too far behind does.
    pub(super) fn changes(
        &self,
        resource: Resource,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>, Status> {
        let table = &self.tables[resource.index()];
        if after < table.forgotten {
            return Err(Status::too_old(after, table.forgotten));
        }
        let start = table.changes.partition_point(|it| it.revision <= after);
        let changes = table.changes.range(start..).take(limit);
        Ok(changes.cloned().collect())
    }

    /// The revision before the last `count` changes up to `revision`, as far as they are known.
    pub(super) fn back(&self, resource: Resource, revision: u64, count: usize) -> u64 {
        let changes = &self.tables[resource.index()].changes;
        let end = changes.partition_point(|it| it.revision <= revision);
        let first = changes.get(end.saturating_sub(count));
        first.map_or(revision, |change| revision.min(change.revision - 1))
    }

    /// Selected objects as they were at `revision`, the first `limit` of those whose key is not
    /// before `start`.
    pub(super) fn page(
        &self,
        target: &Target,
        selector: &Selector,
        (revision, start, limit): (u64, &str, usize),
    ) -> Page {
        let table = &self.tables[target.resource.index()];
        let since = table.since(revision);
        let of_now = table.objects.range(start.to_owned()..);
        let of_now = of_now.filter(|(key, _)| !since.contains_key(key.as_str()));
        let of_then = since.range(start..);
        let of_then = of_then.filter_map(|(_, object)| *object);
        let mut objects: Vec<&Arc<Object>> = of_now.map(|(_, object)| object).collect();
        objects.extend(of_then);
        if !since.is_empty() {
            objects.sort_by(|one, other| one.key.cmp(&other.key));
        }
        objects.retain(|it| target.covers(&it.key) && selector.matches(it.as_ref()));
        Page {
            revision,
            remaining: objects.len().saturating_sub(limit),
            objects: objects.into_iter().take(limit).cloned().collect(),
        }
    }
}

impl Table {
    /// What all objects that have changed since were then.
    fn since(&self, revision: u64) -> BTreeMap<&str, Option<&Arc<Object>>> {
        let later = self.changes.iter().rev();
        let later = later.take_while(|change| change.revision > revision);
        let mut then = BTreeMap::new();
        for change in later {
            let either = change.object.as_ref().or(change.previous.as_ref());
            if let Some(object) = either {
                then.insert(object.key.as_str(), change.previous.as_ref());
            }
        }
        then
    }
}
