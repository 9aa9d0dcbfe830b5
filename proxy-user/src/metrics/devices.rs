//! The node's devices, by whether the programs are on them.

use crate::datapath::attach::DeviceReport;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Label = [(&'static str, &'static str); 1];

/// Handles; a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct DeviceMetrics {
    devices: Family<Label, Gauge>,
}

impl DeviceMetrics {
    /// All devices, as of now.
    pub fn set(&self, devices: &[DeviceReport]) {
        let states = ["attached", "not-attached", "not-suitable"];
        for state in states {
            let count = devices.iter().filter(|it| state_of(it) == state).count();
            let gauge = self.devices.get_or_create(&[("state", state)]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("ferrule").register(
            "devices",
            "Devices of the node, by whether the programs are on them",
            self.devices.clone(),
        );
    }
}

const fn state_of(device: &DeviceReport) -> &'static str {
    match (device.attached, device.is_suitable) {
        (Some(_), _) => "attached",
        (None, true) => "not-attached",
        (None, false) => "not-suitable",
    }
}
