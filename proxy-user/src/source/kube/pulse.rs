//! How a watch is doing: when it last brought anything, and what is wrong with it.

use crate::source::Kind;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What a watch says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchReport {
    /// Of which kind of object.
    pub kind: String,
    /// Whether all objects have been listed once.
    pub is_synced: bool,
    /// How many are known.
    pub objects: usize,
    /// Seconds since the server last sent anything of this kind, be it a bookmark.
    pub age_seconds: f64,
    /// How often all were listed.
    pub lists: u64,
    /// How often asking failed, or broke off.
    pub failures: u64,
    /// Why it does not work at this time.
    pub problem: Option<String>,
}

/// Reads how a watch is doing.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<State>);

impl Watch {
    /// As of now.
    pub fn report(&self) -> WatchReport {
        let state = self.0.borrow();
        WatchReport {
            kind: state.kind.name().to_owned(),
            is_synced: state.is_synced,
            objects: state.objects,
            age_seconds: state.heard.elapsed().as_secs_f64(),
            lists: state.lists,
            failures: state.failures,
            problem: state.problem.clone(),
        }
    }
}

#[cfg(test)]
impl Watch {
    /// One that has failed so often.
    pub(crate) fn failed(kind: Kind, times: u32) -> Self {
        let pulse = Pulse::new(kind);
        (0..times).for_each(|_| pulse.failed());
        pulse.watch()
    }
}

/// Written by whoever follows a kind, and by its connection.
#[derive(Debug)]
pub(super) struct Pulse(watch::Sender<State>);

#[derive(Debug)]
struct State {
    kind: Kind,
    is_synced: bool,
    objects: usize,
    heard: Instant,
    /// Until then the server wants to be left alone.
    busy: Instant,
    /// Requests that were answered well.
    answers: u64,
    lists: u64,
    failures: u64,
    problem: Option<String>,
}

impl Pulse {
    pub(super) fn new(kind: Kind) -> Self {
        Self(watch::Sender::new(State {
            kind,
            is_synced: false,
            objects: 0,
            heard: Instant::now(),
            busy: Instant::now(),
            answers: 0,
            lists: 0,
            failures: 0,
            problem: None,
        }))
    }

    pub(super) fn kind(&self) -> Kind {
        self.0.borrow().kind
    }

    pub(super) fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }

    /// The server has sent something.
    pub(super) fn beat(&self) {
        self.0.send_modify(|state| state.heard = Instant::now());
    }

    /// When it last did.
    pub(super) fn heard(&self) -> Instant {
        self.0.borrow().heard
    }

    /// The server has answered, and not with an error. That a watch has begun is no news yet.
    pub(super) fn answered(&self) {
        self.0.send_modify(|state| state.answers += 1);
    }

    /// How many such answers there were.
    pub(super) fn answers(&self) -> u64 {
        self.0.borrow().answers
    }

    /// Waits until there are more than these.
    pub(super) async fn answer(&self, before: u64) {
        let mut state = self.0.subscribe();
        // The sender is right here.
        let _ = state.wait_for(|state| state.answers > before).await;
    }

    /// The server wants to be left alone for so long.
    pub(super) fn retry_after(&self, time: Duration) {
        self.0
            .send_modify(|state| state.busy = Instant::now() + time);
    }

    /// When it may be asked again.
    pub(super) fn busy_until(&self) -> Instant {
        self.0.borrow().busy
    }

    /// Waits until nothing has come for so long, counted from `start` at the earliest.
    pub(super) async fn silent(&self, limit: Duration, start: Instant) {
        loop {
            let due = self.0.borrow().heard.max(start) + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    pub(super) fn listed(&self) {
        self.0.send_modify(|state| {
            state.is_synced = true;
            state.lists += 1;
        });
    }

    pub(super) fn count(&self, objects: usize) {
        self.0.send_modify(|state| state.objects = objects);
    }

    pub(super) fn failed(&self) {
        self.0.send_modify(|state| state.failures += 1);
    }

    pub(super) fn set_problem(&self, problem: Option<String>) {
        self.0.send_modify(|state| state.problem = problem);
    }
}
