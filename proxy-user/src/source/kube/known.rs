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
    /// The newest version of the list, and of what came after it.
    position: u64,
    /// How many objects the list has brought, changed or taken away.
    news: usize,
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
        self.position = 0;
        self.news = 0;
    }

    /// How many objects the last list has brought, changed or taken away: those that watches have missed.
    pub(super) fn news(&self) -> usize {
        self.news
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
        self.news += gone.len();
        for key in gone {
            self.forget(key, batch);
        }
    }

    /// An object that is new or has changed.
    pub(super) fn changed<K: Watched>(&mut self, seen: Seen<K>, batch: &mut Vec<Event>) {
        if self.is_old(seen.version()) {
            return;
        }
        let key = seen.key();
        self.see(&key, seen.version());
        self.read(key, seen, batch);
    }

    /// An object that has gone, or is no longer selected.
    pub(super) fn deleted<K: Watched>(&mut self, seen: &Seen<K>, batch: &mut Vec<Event>) {
        if self.is_old(seen.version()) {
            return;
        }
        self.position = self.position.max(seen.version());
        let key = seen.key();
        if self.objects.remove(&key).is_some() {
            self.forget(key, batch);
        }
    }

    /// Whether it was sent once more, or out of order: a watch brings what happens in the order of versions.
    fn is_old(&self, version: u64) -> bool {
        version != 0 && version < self.position
    }

    fn see(&mut self, key: &ObjectKey, version: u64) {
        self.position = self.position.max(version);
        let sighting = Sighting {
            list: self.list,
            version,
        };
        let before = match self.objects.get_mut(key) {
            Some(known) => Some(std::mem::replace(known, sighting)),
            None => self.objects.insert(key.clone(), sighting),
        };
        self.news += usize::from(before.is_none_or(|before| before.version != version));
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

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;

    fn seen(name: &str, version: u64) -> Seen<Service> {
        let text =
            format!(r#"{{"metadata": {{"name": "{name}", "resourceVersion": "{version}"}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn lines(batch: &mut Vec<Event>) -> Vec<String> {
        let line = |event| match event {
            Event::Apply(object) => format!("+{}", object.key().name),
            Event::Delete(key) => format!("-{}", key.name),
            other => format!("{other:?}"),
        };
        batch.drain(..).map(line).collect()
    }

    #[test]
    fn what_comes_twice_or_out_of_order_changes_nothing() {
        let (mut known, mut batch) = (Known::default(), Vec::new());
        known.begin();
        known.listed(seen("a", 3), &mut batch);
        known.end(&mut batch);
        known.deleted(&seen("a", 5), &mut batch);
        known.changed(seen("a", 4), &mut batch);
        assert_eq!(lines(&mut batch), ["+a", "-a"]);
        known.changed(seen("a", 6), &mut batch);
        known.deleted(&seen("a", 5), &mut batch);
        assert_eq!(lines(&mut batch), ["+a"]);
        assert_eq!(known.len(), 1);
    }

    #[test]
    fn a_list_says_what_was_missed_and_is_true_even_if_it_is_older() {
        let (mut known, mut batch) = (Known::default(), Vec::new());
        let list = |known: &mut Known, batch: &mut Vec<Event>, objects: &[(&str, u64)]| {
            known.begin();
            for (name, version) in objects {
                known.listed(seen(name, *version), batch);
            }
            known.end(batch);
        };
        list(&mut known, &mut batch, &[("a", 3), ("b", 4)]);
        assert_eq!((lines(&mut batch).len(), known.news()), (2, 2));
        list(&mut known, &mut batch, &[("a", 3), ("b", 4)]);
        assert_eq!(known.news(), 0);
        batch.clear();
        // The store was put back to an earlier state.
        list(&mut known, &mut batch, &[("a", 2)]);
        assert_eq!(
            (lines(&mut batch), known.news()),
            (vec!["+a".into(), "-b".into()], 2)
        );
        known.changed(seen("c", 3), &mut batch);
        assert_eq!(lines(&mut batch), ["+c"]);
    }
}
