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
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

/// Events that go on together, if they have come together. Few: objects as they come are large.
const BATCH: usize = 32;
/// After so many failures the settings are read again: there may be another server, or another certificate.
const PATIENCE: u32 = 10;
/// A kind that the server does not know may come with its next version.
const UNKNOWN_KIND: Duration = Duration::from_secs(300);
/// The longest pause between two tries.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

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
    connection: Connection,
    pulse: Arc<Pulse>,
    silence: Duration,
    /// Until all has been listed once.
    synced: Option<Synced>,
    events: mpsc::Sender<Delivery>,
    known: Known,
    strategy: InitialListStrategy,
    /// Since something last went well.
    failures: u32,
    backoff: DefaultBackoff,
    /// The origins of problems that have been told of.
    complaints: BTreeSet<String>,
    /// The server's good answers up to the last of them.
    answers: u64,
    /// When it was last asked for something.
    asked: Instant,
}

/// Why a watch is not followed any more.
enum End {
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
            () = self.pulse.silent(self.silence, self.asked) => {
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
                return true;
            }
            watcher::Event::Apply(seen) => {
                self.known.changed(seen, batch);
                self.failures = 0;
            }
            watcher::Event::Delete(seen) => {
                self.known.deleted(&seen, batch);
                self.failures = 0;
            }
        }
        false
    }

    /// After what has been listed was sent on.
    async fn listed(&mut self) -> Result<(), End> {
        let was_last = self.synced.take().is_some_and(|synced| synced.count_down());
        if was_last {
            self.send(vec![Event::Synced]).await?;
        }
        Ok(())
    }

    fn silence(&self) -> Failure {
        let time = humantime::format_duration(self.silence);
        let text = format!("nothing has come for {time}, not even a bookmark");
        Failure::new(Cause::Silence, text)
    }

    /// Says what has failed, waits, and decides whether to resume or to begin anew.
    async fn handle(&mut self, failure: Failure, selection: &Selection) -> Result<(), End> {
        self.pulse.failed();
        self.failures += 1;
        let streams = self.strategy == InitialListStrategy::StreamingList;
        match failure.cause {
            Cause::UnknownKind if selection.may_be_missing => return self.lack().await,
            // The watcher lists again by itself.
            Cause::Expired if self.failures == 1 => return Ok(()),
            Cause::Refused | Cause::Silence if streams => {
                debug!("{}: lists are not streamed: {}", self.kind(), failure.text);
                self.strategy = InitialListStrategy::ListWatch;
                return Err(End::Anew);
            }
            // A connection that breaks is resumed; that is the way of connections.
            Cause::Connection if self.failures == 1 && self.synced.is_none() => {}
            _ => self.complain(&failure).await?,
        }
        self.pause().await;
        let resumes = matches!(
            failure.cause,
            Cause::Connection | Cause::Server | Cause::Expired
        );
        if resumes && !self.failures.is_multiple_of(PATIENCE) {
            Ok(())
        } else {
            Err(End::Anew)
        }
    }

    /// There is none of this kind, and for a while it need not be asked for.
    async fn lack(&mut self) -> Result<(), End> {
        let mut batch = Vec::new();
        self.known.begin();
        self.known.end(&mut batch);
        self.pulse.listed();
        self.send(batch).await?;
        self.listed().await?;
        tokio::select! {
            () = sleep(UNKNOWN_KIND) => Err(End::Anew),
            () = self.events.closed() => Err(End::Unheard),
        }
    }

    async fn pause(&mut self) {
        let delay = self.backoff.next().unwrap_or(LONGEST_DELAY);
        let busy = self.pulse.busy_until();
        sleep_until(busy.max(Instant::now() + delay)).await;
        self.asked = Instant::now();
    }

    async fn complain(&mut self, failure: &Failure) -> Result<(), End> {
        let (origin, text) = match failure.cause {
            Cause::Connection => {
                let origin = self.connection.to_string();
                let text = format!("{origin}: {}{}", failure.text, self.connection.hint());
                (origin, text)
            }
            _ => {
                let origin = format!("{}: {}", self.connection, self.kind());
                let text = format!("{origin}: {}", failure.text);
                (origin, text)
            }
        };
        self.pulse.set_problem(Some(text.clone()));
        self.answers = self.pulse.answers();
        self.complaints.insert(origin.clone());
        self.send(vec![Event::Problems {
            origin,
            problems: vec![text],
        }])
        .await
    }

    /// All is well again.
    async fn settle(&mut self) -> Result<(), End> {
        self.pulse.set_problem(None);
        let complaints = std::mem::take(&mut self.complaints).into_iter();
        let settled = complaints.map(|origin| Event::Problems {
            origin,
            problems: Vec::new(),
        });
        self.send(settled.collect()).await
    }

    fn kind(&self) -> &'static str {
        self.pulse.kind().name()
    }

    async fn send(&self, batch: Vec<Event>) -> Result<(), End> {
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
