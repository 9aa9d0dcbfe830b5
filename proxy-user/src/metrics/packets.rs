//! What became of packets and of calls of sockets, as the programs have counted it.

use super::sample::counters;
use crate::datapath::pins::Pins;
use crate::datapath::readings;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use proxy_common::Counter;
use std::fmt::Result;
use tracing::warn;

pub(super) fn register(registry: &mut Registry, pins: Pins) {
    let registry = registry.sub_registry_with_prefix("ferrule");
    registry.register_collector(Box::new(Packets { pins }));
}

#[derive(Debug)]
struct Packets {
    pins: Pins,
}

impl Collector for Packets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        let counts = readings::counters(&self.pins).unwrap_or_else(|error| {
            warn!("metrics without counts of packets: {error:#}");
            Vec::new()
        });
        let named = |label: &'static str, wanted: fn(&Counter) -> bool| {
            let counts = counts.iter().filter(move |(counter, _)| wanted(counter));
            counts.map(move |(counter, count)| ([(label, counter.name())], *count))
        };
        counters(
            &mut encoder,
            "packets_passed",
            "Packets let through, by what was done to them",
            named("verdict", |it| matches!(it, Counter::Passed(_))),
        )?;
        counters(
            &mut encoder,
            "packets_dropped",
            "Packets dropped",
            named("reason", |it| matches!(it, Counter::Dropped(_))),
        )?;
        counters(
            &mut encoder,
            "socket_calls",
            "Calls of sockets that named a frontend, by what became of them",
            named("outcome", |it| matches!(it, Counter::Socket(_))),
        )
    }
}
