//! One kind of object: its lists and watches, one after the other.

use super::connection::Connection;
use super::failure::{Cause, Failure};
use super::known::Known;
use super::pulse::Pulse;
use super::seen::{Seen, Watched};
use crate::source::{Delivery, Event};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use kube::Api;
use kube::runtime::watcher::{self, Config, DefaultBackoff, InitialListStrategy};
use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events that go on together, if they have come together. Few: objects as they come are large.
const BATCH: usize = 32;

/// Which objects of a kind are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
    /// Older servers do not know the kind: then there is none of it.
    pub(super) may_be_missing: bool,
}

/// How many kinds have not been listed yet.
#[derive(Clone, Debug)]
pub(super) struct Synced(Arc<AtomicUsize>);

impl Synced {
    pub(super) fn of(kinds: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(kinds)))
    }

    /// Returns whether it was the last one.
    fn count_down(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// Follows one kind.
pub(super) struct Follower {
    pub(super) connection: Connection,
    pub(super) pulse: Arc<Pulse>,
    pub(super) silence: Duration,
    /// Until all has been listed once.
    pub(super) synced: Option<Synced>,
    pub(super) events: mpsc::Sender<Delivery>,
    pub(super) known: Known,
    pub(super) strategy: InitialListStrategy,
    /// Since something last went well.
    pub(super) failures: u32,
    /// How long nothing may come: longer where that was nothing to worry about.
    pub(super) patience: Duration,
    /// Whether the list that comes next is one because nothing came.
    pub(super) is_check: bool,
    /// When all were last listed.
    pub(super) listed: Option<Instant>,
    pub(super) backoff: DefaultBackoff,
    /// The origins of problems that have been told of.
    pub(super) complaints: BTreeSet<String>,
    /// The server's good answers up to the last failure.
    pub(super) answers: u64,
    /// When it was last asked for something.
    pub(super) asked: Instant,
}

/// Why a watch is not followed any more.
pub(super) enum End {
    /// Nobody listens to what it brings.
    Unheard,
    /// It has to be made anew.
    Anew,
}

impl Follower {
    pub(super) fn new(
        connection: Connection,
        pulse: Arc<Pulse>,
        silence: Duration,
        synced: Synced,
        events: mpsc::Sender<Delivery>,
    ) -> Self {
        Self {
            connection,
            pulse,
            silence,
            synced: Some(synced),
            events,
            known: Known::default(),
            strategy: InitialListStrategy::StreamingList,
            failures: 0,
            patience: silence,
            is_check: false,
            listed: None,
            backoff: DefaultBackoff::default(),
            complaints: BTreeSet::new(),
            answers: 0,
            asked: Instant::now(),
        }
    }

    /// Runs until nobody listens.
    pub(super) async fn run<K: Watched>(mut self, selection: Selection) {
        while let Err(End::Anew) = self.follow::<K>(&selection).await {}
    }

    /// Lists and watches, until it has to be done anew.
    async fn follow<K: Watched>(&mut self, selection: &Selection) -> Result<(), End> {
        let client = match self.connection.client(&self.pulse).await {
            Ok(client) => client,
            Err(error) => {
                let failure = Failure::new(Cause::Credentials, format!("{error:#}"));
                return self.handle(failure, selection).await;
            }
        };
        self.asked = Instant::now();
        let config = self.config(selection);
        let mut stream = pin!(watcher::watcher(Api::<Seen<K>>::all(client), config));
        loop {
            self.step(stream.as_mut(), selection).await?;
        }
    }

    fn config(&self, selection: &Selection) -> Config {
        Config {
            label_selector: selection.labels.clone(),
            field_selector: selection.fields.clone(),
            initial_list_strategy: self.strategy.clone(),
            ..Config::default()
        }
    }

    /// Waits for something to happen, and does what follows from it.
    async fn step<K: Watched>(
        &mut self,
        mut stream: Pin<&mut impl Stream<Item = watcher::Result<watcher::Event<Seen<K>>>>>,
        selection: &Selection,
    ) -> Result<(), End> {
        let next = tokio::select! {
            next = stream.next() => next,
            () = self.pulse.silent(self.patience, self.asked) => {
                return self.handle(self.silence(), selection).await;
            }
            () = self.pulse.answer(self.answers), if !self.complaints.is_empty() => {
                return self.settle().await;
            }
            () = self.events.closed() => return Err(End::Unheard),
        };
        let failure = self.take(next, stream).await?;
        match failure {
            Some(failure) => self.handle(failure, selection).await,
            None => Ok(()),
        }
    }

    /// Hands on what has come, and what is there already behind it, up to the first failure.
    async fn take<K: Watched>(
        &mut self,
        mut next: Option<watcher::Result<watcher::Event<Seen<K>>>>,
        mut stream: Pin<&mut impl Stream<Item = watcher::Result<watcher::Event<Seen<K>>>>>,
    ) -> Result<Option<Failure>, End> {
        let heard = self.pulse.heard();
        let mut batch = Vec::new();
        let mut is_listed = false;
        let mut failure = None;
        while let Some(item) = next.take() {
            match item {
                Ok(event) => is_listed |= self.read(event, &mut batch),
                Err(error) => {
                    failure = Some(Failure::of(&error));
                    break;
                }
            }
            if batch.len() < BATCH {
                next = stream.next().now_or_never().flatten();
            }
        }
        self.pulse.count(self.known.len());
        self.deliver(batch, heard).await?;
        if is_listed {
            self.listed().await?;
        }
        Ok(failure)
    }

    /// Returns whether a list is complete.
    fn read<K: Watched>(&mut self, event: watcher::Event<Seen<K>>, batch: &mut Vec<Event>) -> bool {
        match event {
            watcher::Event::Init => self.known.begin(),
            watcher::Event::InitApply(seen) => self.known.listed(seen, batch),
            watcher::Event::InitDone => {
                self.known.end(batch);
                self.pulse.listed();
                self.failures = 0;
                self.judge_silence();
                return true;
            }
            watcher::Event::Apply(seen) => self.known.changed(seen, batch),
            watcher::Event::Delete(seen) => self.known.deleted(&seen, batch),
        }
        false
    }

    /// After what has been listed was sent on.
    pub(super) async fn listed(&mut self) -> Result<(), End> {
        let was_last = self.synced.take().is_some_and(|synced| synced.count_down());
        if was_last {
            self.send(vec![Event::Synced]).await?;
        }
        Ok(())
    }

    pub(super) fn kind(&self) -> &'static str {
        self.pulse.kind().name()
    }

    pub(super) async fn send(&self, batch: Vec<Event>) -> Result<(), End> {
        self.deliver(batch, Instant::now()).await
    }

    async fn deliver(&self, events: Vec<Event>, heard: Instant) -> Result<(), End> {
        if events.is_empty() {
            return Ok(());
        }
        let heard = heard.into_std();
        let sent = self.events.send(Delivery { events, heard }).await;
        sent.map_err(|_| End::Unheard)
    }
}
