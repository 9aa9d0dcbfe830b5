//! Objects from a folder of manifests: `*.yaml`, `*.yml` and `*.json`, not in folders below it.

mod catalog;
mod folder;
mod parse;

use super::{Event, Object};
use catalog::Catalog;
use folder::{Folder, is_manifest};
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::error::Error;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A finished change may be one of several: wait this long for the others.
const SETTLED: Duration = Duration::from_millis(3);
/// A write that goes on: wait this long for its end.
const UNSETTLED: Duration = Duration::from_millis(20);
/// How often to see if the folder has appeared, vanished or been replaced.
const LOOK: Duration = Duration::from_millis(200);

/// The objects in a manifest's text.
///
/// # Errors
/// Line, field and what is wrong with it.
pub fn objects(text: &str) -> Result<Vec<Object>, String> {
    let parsed = parse::parse(text.as_bytes());
    parsed
        .map(|parsed| parsed.objects)
        .map_err(|broken| broken.to_string())
}

/// A watched folder.
#[derive(Debug)]
pub struct Manifests {
    folder: Folder,
    catalog: Catalog,
    watcher: Option<RecommendedWatcher>,
    /// The folder that `watcher` watches.
    watched: Option<(u64, u64)>,
    /// Of the folder itself, as said last.
    problems: Vec<String>,
    synced: bool,
}

/// What is to be looked at, and when.
#[derive(Debug)]
struct Look {
    at: Instant,
    suspects: BTreeSet<String>,
}

impl Manifests {
    /// The folder at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            folder: Folder::new(path.into()),
            catalog: Catalog::default(),
            watcher: None,
            watched: None,
            problems: Vec::new(),
            synced: false,
        }
    }

    /// Sends what the folder holds, then what changes. [`Event::Synced`] waits until the folder
    /// exists. Blocks: give it a thread of its own; returns soon after the receiver is dropped.
    pub fn run(mut self, events: &mpsc::Sender<Vec<Event>>) {
        let (notices, changes) = channel();
        let mut suspects = None;
        while !events.is_closed() {
            let mut batch = self.watch(&notices);
            if let (Some(suspects), Some(_)) = (suspects, self.watched) {
                batch.extend(self.scan(&suspects));
            }
            if !batch.is_empty() && events.blocking_send(batch).is_err() {
                return;
            }
            suspects = wait(&changes);
        }
    }

    /// Makes sure that the folder that is there is the one that is watched.
    fn watch(&mut self, notices: &Sender<notify::Result<notify::Event>>) -> Vec<Event> {
        let identity = match self.folder.identity() {
            Ok(identity) => identity,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.vanished(&error),
            Err(error) => return self.complain(&error),
        };
        if self.watched == Some(identity) {
            return Vec::new();
        }
        let watcher = notify::recommended_watcher(notices.clone()).and_then(|mut watcher| {
            watcher.watch(self.folder.path(), RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.watched = Some(identity);
                self.scan(&BTreeSet::new())
            }
            Err(error) => self.complain(&error),
        }
    }

    fn vanished(&mut self, error: &dyn Error) -> Vec<Event> {
        self.watcher = None;
        self.watched = None;
        let gone = self.folder.clear();
        let mut events = self.complain(error);
        events.extend(self.update(gone));
        events
    }

    fn scan(&mut self, suspects: &BTreeSet<String>) -> Vec<Event> {
        let changes = match self.folder.changes(suspects) {
            Ok(changes) => changes,
            Err(error) => return self.complain(&error),
        };
        let mut events = self.say(Vec::new());
        events.extend(self.update(changes));
        if !self.synced {
            self.synced = true;
            events.push(Event::Synced);
        }
        events
    }

    fn update(&mut self, changes: Vec<(String, catalog::Change)>) -> Vec<Event> {
        let path = self.folder.path();
        let display = |name: &str| path.join(name).display().to_string();
        self.catalog.update(changes, display)
    }

    /// Reports the problems of the folder itself, if they are not what was said before.
    fn say(&mut self, problems: Vec<String>) -> Vec<Event> {
        if self.problems == problems {
            return Vec::new();
        }
        self.problems.clone_from(&problems);
        vec![Event::Problems {
            origin: self.display(),
            problems,
        }]
    }

    fn complain(&mut self, error: &dyn Error) -> Vec<Event> {
        self.say(vec![format!("{}: {error}", self.display())])
    }

    fn display(&self) -> String {
        self.folder.path().display().to_string()
    }
}

/// Waits for a change and until it has settled. Returns the names of files that it was about;
/// `None` if nothing has happened for a while.
fn wait(changes: &Receiver<notify::Result<notify::Event>>) -> Option<BTreeSet<String>> {
    let mut look: Option<Look> = None;
    let idle = Instant::now() + LOOK;
    loop {
        let until = look.as_ref().map_or(idle, |look| look.at);
        let timeout = until.saturating_duration_since(Instant::now());
        match changes.recv_timeout(timeout) {
            Ok(notice) => take_in(&mut look, notice),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return look.map(|look| look.suspects);
            }
        }
    }
}

fn take_in(look: &mut Option<Look>, notice: notify::Result<notify::Event>) {
    // Notices may have been lost: see what has changed.
    let Ok(event) = notice else {
        look.get_or_insert_with(|| Look::in_(SETTLED));
        return;
    };
    let Some(delay) = delay(event.kind) else {
        return;
    };
    let names = event
        .paths
        .iter()
        .filter_map(|path| path.file_name()?.to_str());
    let names = names.filter(|name| is_manifest(name)).map(str::to_owned);
    let look = look.get_or_insert_with(|| Look::in_(delay));
    look.at = look.at.min(Instant::now() + delay);
    look.suspects.extend(names);
}

impl Look {
    fn in_(delay: Duration) -> Self {
        Self {
            at: Instant::now() + delay,
            suspects: BTreeSet::new(),
        }
    }
}

/// How long to wait for what may follow; `None` if nothing has changed.
fn delay(kind: EventKind) -> Option<Duration> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(SETTLED),
        EventKind::Access(_) => None,
        EventKind::Create(CreateKind::File) => Some(UNSETTLED),
        EventKind::Modify(ModifyKind::Data(_)) => Some(UNSETTLED),
        EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Any
        | EventKind::Other => Some(SETTLED),
    }
}

#[cfg(test)]
mod tests;
