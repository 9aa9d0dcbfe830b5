//! Sockets that were closed, and pods whose sockets are left alone.

use super::sample::{NONE, counters, gauges};
use crate::datapath::closing::ClosingReport;
use crate::datapath::exempt::ExemptReport;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use std::fmt::Result;
use tokio::sync::watch;

pub(super) fn register(
    registry: &mut Registry,
    closed: watch::Receiver<ClosingReport>,
    exempt: watch::Receiver<Vec<ExemptReport>>,
) {
    let registry = registry.sub_registry_with_prefix("ferrule");
    registry.register_collector(Box::new(Sockets { closed, exempt }));
}

#[derive(Debug)]
struct Sockets {
    closed: watch::Receiver<ClosingReport>,
    exempt: watch::Receiver<Vec<ExemptReport>>,
}

impl Collector for Sockets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        let closed = self.closed.borrow().closed;
        let help = "Sockets closed because their backend had gone";
        counters(&mut encoder, "sockets_closed", help, [(NONE, closed)])?;
        let exempt = self.exempt.borrow().len();
        let help = "Pods of this node whose sockets are left alone";
        gauges(&mut encoder, "exempt_pods", help, [(NONE, exempt)])
    }
}
