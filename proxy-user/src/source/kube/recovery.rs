//! What comes after a list or a watch that has failed, or that nothing comes of.

use super::failure::{Cause, Failure};
use super::follow::{End, Follower, Selection};
use crate::source::Event;
use kube::runtime::watcher::InitialListStrategy;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

/// After so many failures the settings are read again: there may be another server, or another certificate.
const PATIENCE: u32 = 10;
/// A kind that the server does not know may come with its next version.
const UNKNOWN_KIND: Duration = Duration::from_secs(300);
/// However quiet a kind is, it is listed again after this time without a sign.
const LONGEST_SILENCE: Duration = Duration::from_secs(900);
/// A list from which no watch can go on for this long is asked for with pauses.
const LIST_LASTS: Duration = Duration::from_secs(5);
/// The longest pause between two tries.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

impl Follower {
    pub(super) fn silence(&self) -> Failure {
        let time = humantime::format_duration(self.patience);
        let text = format!("nothing has come for {time}, not even a bookmark");
        Failure::new(Cause::Silence, text)
    }

    /// What a list has found that was asked for because nothing came. Where little happens some servers send no
    /// bookmarks for long: then it is asked for less often.
    pub(super) fn judge_silence(&mut self) {
        self.listed = Some(Instant::now());
        if !std::mem::take(&mut self.is_check) {
            return;
        }
        match self.known.news() {
            0 => self.patience = (self.patience * 2).min(self.silence.max(LONGEST_SILENCE)),
            news => {
                let (connection, kind) = (&self.connection, self.kind());
                warn!(
                    "{connection}: {kind}: the watch was silent on {news} changes; all is listed again"
                );
                self.patience = self.silence;
            }
        }
    }

    /// Says what has failed, waits, and decides whether to resume or to begin anew.
    pub(super) async fn handle(
        &mut self,
        failure: Failure,
        selection: &Selection,
    ) -> Result<(), End> {
        self.pulse.failed();
        if std::mem::replace(&mut self.answers, self.pulse.answers()) != self.answers {
            self.failures = 0;
        }
        self.failures += 1;
        let streams = self.strategy == InitialListStrategy::StreamingList;
        match failure.cause {
            Cause::UnknownKind if selection.may_be_missing => return self.lack().await,
            Cause::Refused if streams => {
                debug!("{}: lists are not streamed: {}", self.kind(), failure.text);
                self.strategy = InitialListStrategy::ListWatch;
                return Err(End::Anew);
            }
            Cause::Silence => return self.check(streams, &failure).await,
            // So it is after every outage.
            Cause::Expired if !self.has_just_listed() => return Err(End::Anew),
            // A connection that breaks is resumed; that is the way of connections.
            Cause::Connection if self.failures == 1 && self.synced.is_none() => {}
            _ => self.complain(&failure).await?,
        }
        self.pause().await;
        let resumes = matches!(failure.cause, Cause::Connection | Cause::Server);
        if resumes && !self.failures.is_multiple_of(PATIENCE) {
            Ok(())
        } else {
            Err(End::Anew)
        }
    }

    /// Asks for everything, of another server if there are several: that says whether anything was missed.
    async fn check(&mut self, streams: bool, failure: &Failure) -> Result<(), End> {
        self.connection.leave();
        self.is_check = self.synced.is_none();
        // It did bring something since the last list: that it does not any more is suspect again.
        if self.listed.is_some_and(|at| self.pulse.heard() > at) {
            self.patience = self.silence;
        }
        if self.synced.is_some() || self.failures > 1 {
            self.complain(failure).await?;
        }
        // Perhaps it takes no notice of what it does not know.
        if self.synced.is_some() && streams {
            self.strategy = InitialListStrategy::ListWatch;
        }
        Err(End::Anew)
    }

    fn has_just_listed(&self) -> bool {
        self.listed.is_some_and(|at| at.elapsed() < LIST_LASTS)
    }

    /// There is none of this kind, and for a while it need not be asked for.
    async fn lack(&mut self) -> Result<(), End> {
        let mut batch = Vec::new();
        self.known.begin();
        self.known.end(&mut batch);
        self.pulse.listed();
        self.pulse.beat();
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
                self.connection.set_missed(self.pulse.kind(), true);
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
        self.complaints.insert(origin.clone());
        self.send(vec![Event::Problems {
            origin,
            problems: vec![text],
        }])
        .await
    }

    /// All is well again.
    pub(super) async fn settle(&mut self) -> Result<(), End> {
        self.pulse.set_problem(None);
        let mut complaints = std::mem::take(&mut self.complaints);
        // The servers' own problem is over when all kinds reach them.
        if self.connection.set_missed(self.pulse.kind(), false) {
            complaints.remove(&self.connection.to_string());
        }
        let settled = complaints.into_iter().map(|origin| Event::Problems {
            origin,
            problems: Vec::new(),
        });
        self.send(settled.collect()).await
    }
}
