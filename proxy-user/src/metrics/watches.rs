//! The watches of the API server: how old the agent's view may be.

use super::sample::{counters, gauges};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use std::fmt::{self, Debug, Formatter};

/// What is known of the watch of one kind of object.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchAge {
    /// The kind, as manifests write it.
    pub kind: String,
    /// Since the API server last sent anything of this kind, be it a bookmark.
    pub seconds: f64,
    /// How many objects are known.
    pub objects: usize,
    /// How often all were listed, since the agent was started.
    pub lists: u64,
    /// How often asking has failed or broken off, since then.
    pub failures: u64,
}

/// Reads how all watches are doing.
pub type ReadWatches = Box<dyn Fn() -> Vec<WatchAge> + Send + Sync>;

pub(super) fn register(registry: &mut Registry, read: ReadWatches) {
    let registry = registry.sub_registry_with_prefix("ferrule");
    registry.register_collector(Box::new(Watches { read }));
}

struct Watches {
    read: ReadWatches,
}

impl Debug for Watches {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches").finish_non_exhaustive()
    }
}

impl Collector for Watches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let watches = (self.read)();
        let label = |watch: &WatchAge| [("kind", watch.kind.clone())];
        let ages = watches.iter().map(|it| (label(it), it.seconds));
        let help = "Since the API server last sent anything of this kind";
        gauges(&mut encoder, "watch_age_seconds", help, ages)?;
        let objects = watches.iter().map(|it| (label(it), it.objects));
        gauges(
            &mut encoder,
            "watch_objects",
            "Objects of this kind that are known",
            objects,
        )?;
        let lists = watches.iter().map(|it| (label(it), it.lists));
        counters(
            &mut encoder,
            "watch_lists",
            "How often all were listed",
            lists,
        )?;
        let failures = watches.iter().map(|it| (label(it), it.failures));
        let help = "How often asking the API server has failed or broken off";
        counters(&mut encoder, "watch_failures", help, failures)
    }
}
