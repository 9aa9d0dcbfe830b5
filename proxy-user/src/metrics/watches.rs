//! The watches of the API server: how old the agent's view may be.

use super::sample::{counters, gauges};
use crate::source::kube::{Watch, WatchReport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use std::fmt;

pub(super) fn register(registry: &mut Registry, watches: Vec<Watch>) {
    let registry = registry.sub_registry_with_prefix("ferrule");
    registry.register_collector(Box::new(Watches(watches)));
}

#[derive(Debug)]
struct Watches(Vec<Watch>);

impl Collector for Watches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let watches: Vec<WatchReport> = self.0.iter().map(Watch::report).collect();
        let label = |watch: &WatchReport| [("kind", watch.kind.clone())];
        let ages = watches.iter().map(|it| (label(it), it.age_seconds));
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
