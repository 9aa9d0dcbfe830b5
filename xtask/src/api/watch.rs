//! GET with `watch`: a stream of events.

use super::event::Event;
use super::fault::{Effect, Moment};
use super::list::wait_for;
use super::object::Object;
use super::query::{Query, Version};
use super::resource::{Resource, Target};
use super::selector::Selector;
use super::shared::Shared;
use super::status::{Status, json_response};
use super::stream::{self, Piece};
use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode, header};
use serde_json::Value;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

/// Events that wait for a slow client, beyond what its connection holds.
const WAITING: usize = 64;

/// Changes that are taken from the history at once.
const BATCH: usize = 256;

/// Events before a resumed version that [`Effect::Replay`] sends again.
const REPLAYED: usize = 10;

/// How long before its end a watch sends a last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// The watch is over: in order, or because nobody reads.
struct Over;

/// One open watch.
struct Watch {
    shared: Arc<Shared>,
    target: Target,
    query: Query,
    /// Everything up to this revision has been sent.
    cursor: u64,
    sender: Sender<Piece>,
    _open: Open,
}

/// Counts a watch while it lives.
struct Open {
    shared: Arc<Shared>,
    resource: Resource,
}

impl Open {
    fn count(shared: &Arc<Shared>, resource: Resource) -> Self {
        *shared.state().watches.entry(resource.plural).or_default() += 1;
        let shared = Arc::clone(shared);
        Self { shared, resource }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(count) = state.watches.get_mut(self.resource.plural) {
            *count -= 1;
        }
    }
}

/// Opens a watch.
pub(super) async fn open(
    shared: &Arc<Shared>,
    target: Target,
    query: Query,
) -> Result<Response<Body>, Status> {
    if let (Some(true), Version::At(revision)) = (query.initial_events, query.version) {
        wait_for(shared, revision).await?;
    }
    let (sender, receiver) = mpsc::channel(WAITING);
    let fault = shared.fault(Some(target.resource), true, Moment::WatchStart, "");
    let pause = match fault {
        Some(Effect::Trickle(pause)) => Some(pause),
        _ => None,
    };
    if fault != Some(Effect::Close) {
        let (initial, cursor) = start(shared, &target, &query, fault);
        let watch = Watch {
            _open: Open::count(shared, target.resource),
            shared: Arc::clone(shared),
            target,
            query,
            cursor,
            sender,
        };
        tokio::spawn(watch.run(initial));
    }
    let mut response = json_response(StatusCode::OK, &Value::Null);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = stream::channel(receiver, pause);
    Ok(response)
}

/// What a watch begins with: objects or an error, and the revision after which changes follow.
type Start = Result<Vec<Arc<Object>>, Status>;

fn start(shared: &Shared, target: &Target, query: &Query, fault: Option<Effect>) -> (Start, u64) {
    let state = shared.state();
    let newest = state.store.revision();
    let wants_objects = match (query.initial_events, query.version) {
        (Some(wants), _) => wants,
        (None, Version::Newest | Version::Any) => true,
        (None, Version::At(_)) => false,
    };
    if wants_objects {
        let page = (newest, "", usize::MAX);
        let page = state.store.page(target, &query.selector, page);
        return (Ok(page.objects), newest);
    }
    let Version::At(revision) = query.version else {
        return (Ok(Vec::new()), newest);
    };
    let known = state.store.check_known(target.resource, revision);
    let cursor = match fault {
        Some(Effect::Replay) => state.store.back(target.resource, revision, REPLAYED),
        _ => revision,
    };
    (known.map(|()| Vec::new()), cursor)
}

impl Watch {
    async fn run(mut self, initial: Start) {
        let mut closings = self.shared.closings.subscribe();
        let sender = self.sender.clone();
        // Whoever ends it first: its time, its owner, its client.
        tokio::select! {
            _ = self.follow(initial) => {}
            _ = closings.changed() => {}
            () = sender.closed() => {}
        }
    }

    async fn follow(&mut self, initial: Start) -> Result<(), Over> {
        let lasts = self
            .query
            .timeout
            .unwrap_or(self.shared.options.watch_timeout);
        let end = Instant::now() + lasts;
        let mut revisions = self.shared.revisions();
        match initial {
            Ok(objects) => self.send_initial(objects).await?,
            Err(status) => return self.send(&Event::error(&status)).await,
        }
        let interval = self.shared.options.bookmark_interval;
        let mut bookmark = Instant::now() + interval;
        let mut last_bookmark = end
            .checked_sub(LAST_BOOKMARK)
            .filter(|at| *at > Instant::now());
        loop {
            self.send_changes(&mut revisions).await?;
            let next = last_bookmark.map_or(bookmark, |last| last.min(bookmark));
            tokio::select! {
                changed = revisions.changed() => changed.map_err(|_| Over)?,
                () = sleep_until(end) => return Ok(()),
                () = sleep_until(next) => {
                    self.send_bookmark(false).await?;
                    bookmark = Instant::now() + interval;
                    last_bookmark = last_bookmark.filter(|last| *last > next);
                }
            }
        }
    }

    async fn send_initial(&mut self, objects: Vec<Arc<Object>>) -> Result<(), Over> {
        for object in objects {
            self.send(&Event::added(&object)).await?;
        }
        match self.query.initial_events {
            Some(true) => self.send_bookmark(true).await,
            Some(false) | None => Ok(()),
        }
    }

    /// Sends everything up to the newest revision.
    async fn send_changes(&mut self, revisions: &mut Receiver<u64>) -> Result<(), Over> {
        loop {
            let newest = *revisions.borrow_and_update();
            let resource = self.target.resource;
            let changes = self
                .shared
                .state()
                .store
                .changes(resource, self.cursor, BATCH);
            let changes = match changes {
                Ok(changes) => changes,
                Err(status) => {
                    self.send(&Event::error(&status)).await?;
                    return Err(Over);
                }
            };
            for change in &changes {
                self.cursor = change.revision;
                if let Some(event) = Event::of(change, &self.target, &self.query) {
                    self.send(&event).await?;
                }
            }
            if changes.len() < BATCH {
                self.cursor = self.cursor.max(newest);
                return Ok(());
            }
        }
    }

    async fn send_bookmark(&mut self, ends_initial_events: bool) -> Result<(), Over> {
        if !self.query.bookmarks {
            return Ok(());
        }
        let resource = self.target.resource;
        let event = Event::bookmark(resource, self.cursor, ends_initial_events);
        self.send(&event).await
    }

    /// Sends an event, with the fault that is due.
    async fn send(&mut self, event: &Event) -> Result<(), Over> {
        let resource = self.target.resource;
        let fault = self
            .shared
            .fault(Some(resource), true, Moment::WatchSend, event.kind);
        match fault {
            Some(Effect::Silence) => pending().await,
            Some(Effect::Cut) => {
                self.write(event.half_line()).await?;
                let _ = self.sender.send(Err(stream::broken())).await;
                Err(Over)
            }
            Some(Effect::Garbage) => self.write(event.garbled_line()).await,
            Some(Effect::WrongShape) => self.write(event.misshapen_line(resource)).await,
            Some(Effect::Duplicate) => {
                self.write(event.line()).await?;
                self.write(event.line()).await
            }
            Some(Effect::Reorder) => {
                self.write(event.line()).await?;
                match event.stale() {
                    Some(stale) => self.write(stale.line()).await,
                    None => Ok(()),
                }
            }
            _ => self.write(event.line()).await,
        }
    }

    async fn write(&mut self, line: Bytes) -> Result<(), Over> {
        self.sender.send(Ok(line)).await.map_err(|_| Over)
    }
}

/// Everything of a kind, wherever it is.
pub(super) fn everything(resource: Resource) -> (Target, Selector) {
    let target = Target {
        resource,
        namespace: None,
        name: None,
    };
    (target, Selector::default())
}
