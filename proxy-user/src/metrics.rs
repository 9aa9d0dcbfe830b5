//! What Prometheus is told. docs/metrics.md has every metric.
//!
//! What happens in the agent is counted where it happens, in handles that the registry shares; what the kernel and
//! other threads know is looked at when it is asked for. Nobody waits for the sync loop.

mod contents;
mod devices;
mod flows;
mod packets;
mod probes;
mod problems;
mod process;
mod rules;
mod sample;
mod sockets;
mod watches;

pub use contents::Contents;
pub use devices::DeviceMetrics;
pub use probes::ProbeMetrics;
pub use problems::{Part, ProblemMetrics};
pub use rules::{LoopMetrics, Turn};

use crate::datapath::closing::ClosingReport;
use crate::datapath::exempt::ExemptReport;
use crate::datapath::pins::Pins;
use crate::flows::FlowReport;
use crate::source::kube::Watch;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use std::ops::RangeInclusive;
use std::time::SystemTime;
use tokio::sync::watch;

pub use prometheus_text::CONTENT_TYPE;

/// Where the figures come from.
pub struct Sources {
    /// The sync loop.
    pub sync: LoopMetrics,
    /// Whoever answers for the agent's health.
    pub probes: ProbeMetrics,
    /// Whoever notices that something is wrong.
    pub problems: ProblemMetrics,
    /// Whoever attaches programs to devices.
    pub devices: DeviceMetrics,
    /// The maps.
    pub pins: Pins,
    /// The thread that ends flows.
    pub flows: watch::Receiver<FlowReport>,
    /// Source ports of masked flows.
    pub snat_ports: RangeInclusive<u16>,
    /// The thread that closes sockets.
    pub closed: watch::Receiver<ClosingReport>,
    /// Pods whose sockets are left alone.
    pub exempt: watch::Receiver<Vec<ExemptReport>>,
    /// The watches on the API server; none if objects come from elsewhere.
    pub watches: Vec<Watch>,
    /// When the agent was started.
    pub started: SystemTime,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Of these sources.
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        sources.sync.register(&mut registry);
        sources.probes.register(&mut registry);
        sources.problems.register(&mut registry);
        sources.devices.register(&mut registry);
        packets::register(&mut registry, sources.pins.clone());
        flows::register(
            &mut registry,
            &sources.pins,
            sources.flows,
            &sources.snat_ports,
        );
        sockets::register(&mut registry, sources.closed, sources.exempt);
        watches::register(&mut registry, sources.watches);
        process::register(&mut registry, sources.started);
        Self { registry }
    }

    /// All values as of now, in Prometheus' text format. Reads files and maps: not for a thread of the runtime.
    ///
    /// # Errors
    /// A source that can't be read is left out, and that is logged; there are none.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
