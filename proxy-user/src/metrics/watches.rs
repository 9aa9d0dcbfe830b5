//! The watches of the API server: how old the agent's view may be.

use super::sample::{counters, gauges};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use std::fmt::Result;
use std::time::Instant;
use tokio::sync::watch;

/// What is known of the watch of one kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchAge {
    /// The kind, as manifests write it.
    pub kind: &'static str,
    /// When the API server was last heard of it: an event, a bookmark, a list. Before the first: when it was
    /// first asked.
    pub heard: Instant,
    /// Requests that have failed, and watches that were cut, since the start.
    pub errors: u64,
}

pub(super) fn register(registry: &mut Registry, watches: watch::Receiver<Vec<WatchAge>>) {
    let registry = registry.sub_registry_with_prefix("ferrule");
    registry.register_collector(Box::new(Watches { watches }));
}

#[derive(Debug)]
struct Watches {
    watches: watch::Receiver<Vec<WatchAge>>,
}

impl Collector for Watches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        let watches = self.watches.borrow().clone();
        let label = |watch: &WatchAge| [("kind", watch.kind)];
        let ages = watches
            .iter()
            .map(|it| (label(it), it.heard.elapsed().as_secs_f64()));
        let help = "Since the API server was last heard of this kind";
        gauges(&mut encoder, "watch_age_seconds", help, ages)?;
        let errors = watches.iter().map(|it| (label(it), it.errors));
        let help = "Requests to the API server that have failed, and watches that were cut";
        counters(&mut encoder, "watch_errors", help, errors)
    }
}
