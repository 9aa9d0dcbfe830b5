//! What the server's tasks and its owner share.

use super::Request;
use super::fault::{Effect, Faults, Moment};
use super::options::Options;
use super::resource::Resource;
use super::store::Store;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch::{Receiver, Sender};

/// What is behind the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) faults: Faults,
    pub(super) token: Option<String>,
    /// Plurals of the kinds that the client has no right to.
    pub(super) forbidden: Vec<String>,
    pub(super) requests: Vec<Request>,
    /// Open watches of each kind, by its plural.
    pub(super) watches: BTreeMap<&'static str, usize>,
}

/// Everything that is shared.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) options: Options,
    revision: Sender<u64>,
    /// Whether nobody can connect.
    pub(super) outage: Sender<bool>,
    /// Counts how often all watches had to end.
    pub(super) closings: Sender<u64>,
    /// Whether the server has to end.
    pub(super) stop: Sender<bool>,
}

impl Shared {
    pub(super) fn new(options: Options) -> Self {
        let store = Store::new(options.history);
        Self {
            revision: Sender::new(store.revision()),
            outage: Sender::new(false),
            closings: Sender::new(0),
            stop: Sender::new(false),
            state: Mutex::new(State {
                store,
                faults: Faults::default(),
                token: options.token.clone(),
                forbidden: Vec::new(),
                requests: Vec::new(),
                watches: BTreeMap::new(),
            }),
            options,
        }
    }

    /// The lock; a task that panicked in it leaves nothing half-done that matters to a test.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the objects and wakes the watches if it changed any.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        let mut state = self.state();
        let outcome = work(&mut state.store);
        let revision = state.store.revision();
        drop(state);
        self.revision.send_if_modified(|current| {
            let is_new = *current < revision;
            *current = revision.max(*current);
            is_new
        });
        outcome
    }

    /// Follows the newest revision.
    pub(super) fn revisions(&self) -> Receiver<u64> {
        self.revision.subscribe()
    }

    /// The fault that is due at this moment.
    pub(super) fn fault(
        &self,
        resource: Option<Resource>,
        is_watch: bool,
        moment: Moment,
        event: &str,
    ) -> Option<Effect> {
        let mut state = self.state();
        state.faults.take(resource, is_watch, moment, event)
    }
}
