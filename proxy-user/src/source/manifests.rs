//! Objects from a folder of manifests: `*.yaml`, `*.yml` and `*.json`, not in folders below it.

mod catalog;
mod folder;
mod parse;
mod watch;

use super::{Delivery, Event, Object};
use catalog::Catalog;
use folder::Folder;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use watch::{IDLE, Look, Scope, Watch};

/// How often to compare what files look like even if nobody tells of a change: a link's target is
/// not watched, and not every file system tells.
const COMPARE: Duration = Duration::from_secs(1);

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

/// What a folder holds now: its objects, and what is wrong with its files.
///
/// # Errors
/// The folder can't be listed.
pub fn read(path: impl Into<PathBuf>) -> io::Result<Vec<Event>> {
    let mut folder = Folder::new(path.into());
    let everything = Look {
        scope: Scope::Everything,
        ..Look::default()
    };
    let changes = folder.changes(&everything, |_| false)?;
    let display = |name: &str| folder.path().join(name).display().to_string();
    Ok(Catalog::default().update(changes, display))
}

/// A watched folder.
#[derive(Debug)]
pub struct Manifests {
    folder: Folder,
    catalog: Catalog,
    watch: Option<Watch>,
    /// When the files were last compared with what was known of them.
    compared: Instant,
    /// Of the folder itself, as said last.
    problems: Vec<String>,
    synced: bool,
}

impl Manifests {
    /// The folder at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            folder: Folder::new(path.into()),
            catalog: Catalog::default(),
            watch: None,
            compared: Instant::now(),
            problems: Vec::new(),
            synced: false,
        }
    }

    /// Sends what the folder holds, then what changes. [`Event::Synced`] waits until the folder
    /// exists. Blocks: give it a thread of its own; returns soon after the receiver is dropped.
    pub fn run(mut self, events: &mpsc::Sender<Delivery>) {
        let mut look = None;
        while !events.is_closed() {
            let batch = self.look(look);
            if !batch.is_empty() && events.blocking_send(batch.into()).is_err() {
                return;
            }
            look = self.wait();
        }
    }

    /// Waits for something to look at; returns `None` now and then.
    fn wait(&mut self) -> Option<Look> {
        let Some(watch) = &mut self.watch else {
            thread::sleep(IDLE);
            return None;
        };
        let look = watch.wait();
        let due = self.compared.elapsed() >= COMPARE;
        look.or_else(|| due.then(Look::default))
    }

    /// Makes sure that the folder that is there is the one that is watched, and looks at its files.
    fn look(&mut self, look: Option<Look>) -> Vec<Event> {
        let identity = match self.folder.identity() {
            Ok(identity) => identity,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.vanished(&error),
            Err(error) => return self.complain(&error),
        };
        if self.watch.as_ref().is_some_and(|it| it.is_on(identity)) {
            return look.map_or_else(Vec::new, |look| self.scan(&look));
        }
        self.watch = None;
        match Watch::new(self.folder.path(), identity) {
            Ok(watch) => {
                self.watch = Some(watch);
                self.scan(&Look {
                    scope: Scope::Everything,
                    ..Look::default()
                })
            }
            Err(error) => self.complain(&error),
        }
    }

    fn vanished(&mut self, error: &dyn Error) -> Vec<Event> {
        self.watch = None;
        let gone = self.folder.clear();
        let mut events = self.complain(error);
        events.extend(self.update(gone));
        events
    }

    fn scan(&mut self, look: &Look) -> Vec<Event> {
        self.compared = Instant::now();
        let watch = self.watch.as_ref();
        let is_writing = |name: &str| watch.is_some_and(|watch| watch.is_writing(name));
        let mut changes = match self.folder.changes(look, is_writing) {
            Ok(changes) => changes,
            Err(error) => return self.complain(&error),
        };
        if let Some(watch) = self.watch.as_mut().filter(|_| !changes.is_empty()) {
            watch.catch_up();
            // Possibly read while it was written. It is read again.
            changes.retain(|(name, change)| change.is_gone() || !watch.is_in_motion(name));
        }
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

#[cfg(test)]
mod tests;
