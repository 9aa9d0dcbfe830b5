//! The loop itself: which of events, requests, retries and grace periods comes next.

use super::{Followed, Request, Sync};
use crate::datapath::{Datapath, Grace};
use crate::frontend::LocalAddresses;
use crate::source::Delivery;
use crate::tables::Batch;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// The first retry comes after this, the next after twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(10);
/// So many deliveries are written together at most.
const TOGETHER: usize = 32;
/// No retry comes later than this.
const LAST_RETRY: Duration = Duration::from_secs(5);

impl<D: Datapath> Sync<D> {
    /// Runs until `events` is closed, following the addresses of the node's devices and settings, and tells `gone` when
    /// backends have gone; returns the maps as they are then.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Delivery>,
        mut requests: mpsc::Receiver<Request>,
        mut addresses: watch::Receiver<LocalAddresses>,
        mut followed: watch::Receiver<Followed>,
        gone: impl Fn(),
    ) -> D {
        let known = addresses.borrow_and_update().clone();
        self.set_local_addresses(known);
        let mut backoff = Backoff::default();
        let mut quarantine: Option<Quarantine> = None;
        loop {
            if quarantine.is_none() {
                quarantine = self.take_freed().map(|batch| Quarantine {
                    grace: self.datapath.grace(),
                    batch,
                });
            }
            backoff.update(self.needs_retry());
            tokio::select! {
                delivery = events.recv() => match delivery {
                    Some(delivery) => self.take(delivery, &mut events),
                    None => return self.datapath,
                },
                Some(request) = requests.recv() => self.answer(request),
                Ok(()) = addresses.changed() => {
                    let now = addresses.borrow_and_update().clone();
                    self.set_local_addresses(now);
                }
                Ok(()) = followed.changed() => {
                    let now = followed.borrow_and_update().clone();
                    self.set_followed(now);
                }
                () = backoff.elapsed() => {
                    self.retry();
                    backoff.lengthen();
                }
                batch = over(&mut quarantine) => {
                    // No program is on its way to a backend that is gone.
                    if batch.has_backends() {
                        gone();
                    }
                    self.release(batch);
                }
            }
        }
    }
}

impl<D: Datapath> Sync<D> {
    /// The asker may have given up; that is no concern of the loop.
    fn answer(&self, request: Request) {
        match request {
            Request::Report(reply) => drop(reply.send(self.report())),
            Request::Name(at, reply) => drop(reply.send(self.name_at(&at))),
        }
    }

    /// Writes it, and with it what waits behind it already: of a Service that changes faster than it can be
    /// written, only the last state is.
    fn take(&mut self, first: Delivery, events: &mut mpsc::Receiver<Delivery>) {
        let mut heard = vec![first.heard];
        let mut batch = first.events;
        while heard.len() < TOGETHER
            && let Ok(next) = events.try_recv()
        {
            heard.push(next.heard);
            batch.extend(next.events);
        }
        self.apply(batch);
        if self.synced {
            let lags = heard.iter().map(std::time::Instant::elapsed);
            lags.for_each(|lag| self.metrics.observe_lag(lag));
        }
    }
}

/// Freed ids and the grace period they wait for.
struct Quarantine {
    grace: Grace,
    batch: Batch,
}

/// Waits for the end of the grace period, if there is one.
async fn over(quarantine: &mut Option<Quarantine>) -> Batch {
    if let Some(quarantine) = quarantine {
        quarantine.grace.as_mut().await;
    }
    match quarantine.take() {
        Some(quarantine) => quarantine.batch,
        None => std::future::pending().await,
    }
}

/// When to retry.
#[derive(Default)]
struct Backoff {
    delay: Duration,
    at: Option<Instant>,
}

impl Backoff {
    fn update(&mut self, needed: bool) {
        if !needed {
            *self = Self::default();
        } else if self.at.is_none() {
            self.delay = FIRST_RETRY;
            self.at = Some(Instant::now() + self.delay);
        }
    }

    fn lengthen(&mut self) {
        self.delay = (self.delay * 2).min(LAST_RETRY);
        self.at = Some(Instant::now() + self.delay);
    }

    async fn elapsed(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}
