//! Which objects of a kind are known, so that a new list says what has gone.

use super::seen::{Seen, Watched};
use crate::source::{Event, ObjectKey};
use std::collections::{HashMap, HashSet};

/// The objects of one kind.
#[derive(Debug, Default)]
pub(super) struct Known {
    objects: HashMap<ObjectKey, Sighting>,
    /// The last version that came of these could not be read.
    unreadable: HashSet<ObjectKey>,
    /// Counts lists.
    list: u32,
}

/// When an object was last seen.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    list: u32,
    version: u64,
}

impl Known {
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// A list begins.
    pub(super) fn begin(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    /// An object of the list. Whatever is known of it, this is true now: the server's store may have been put back to
    /// an earlier state.
    pub(super) fn listed<K: Watched>(&mut self, seen: Seen<K>, batch: &mut Vec<Event>) {
        let key = seen.key();
        self.see(&key, seen.version());
        self.read(key, seen, batch);
    }

    /// The list is complete: what was not in it has gone.
    pub(super) fn end(&mut self, batch: &mut Vec<Event>) {
        let list = self.list;
        let gone = self.objects.extract_if(|_, sighting| sighting.list != list);
        let gone: Vec<ObjectKey> = gone.map(|(key, _)| key).collect();
        for key in gone {
            self.forget(key, batch);
        }
    }

    /// An object that is new or has changed. One that is older than what is known was sent out of order.
    pub(super) fn changed<K: Watched>(&mut self, seen: Seen<K>, batch: &mut Vec<Event>) {
        let key = seen.key();
        let known = self.objects.get(&key).map(|sighting| sighting.version);
        if known.is_some_and(|known| seen.version() != 0 && seen.version() < known) {
            return;
        }
        self.see(&key, seen.version());
        self.read(key, seen, batch);
    }

    /// An object that has gone, or is no longer selected.
    pub(super) fn deleted<K: Watched>(&mut self, seen: &Seen<K>, batch: &mut Vec<Event>) {
        let key = seen.key();
        if self.objects.remove(&key).is_some() {
            self.forget(key, batch);
        }
    }

    fn see(&mut self, key: &ObjectKey, version: u64) {
        let sighting = Sighting {
            list: self.list,
            version,
        };
        match self.objects.get_mut(key) {
            Some(known) => *known = sighting,
            None => {
                self.objects.insert(key.clone(), sighting);
            }
        }
    }

    /// One that can't be read stays what it was.
    fn read<K: Watched>(&mut self, key: ObjectKey, seen: Seen<K>, batch: &mut Vec<Event>) {
        match seen.into_object() {
            Ok(object) => {
                if self.unreadable.remove(&key) {
                    batch.push(problems(&key, Vec::new()));
                }
                batch.push(Event::Apply(object));
            }
            Err(wrong) => {
                batch.push(problems(&key, vec![format!("{key}: {wrong}")]));
                self.unreadable.insert(key);
            }
        }
    }

    fn forget(&mut self, key: ObjectKey, batch: &mut Vec<Event>) {
        if self.unreadable.remove(&key) {
            batch.push(problems(&key, Vec::new()));
        }
        batch.push(Event::Delete(key));
    }
}

fn problems(key: &ObjectKey, problems: Vec<String>) -> Event {
    Event::Problems {
        origin: key.to_string(),
        problems,
    }
}
