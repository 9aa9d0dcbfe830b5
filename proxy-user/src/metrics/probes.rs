//! What those were told who have asked for the agent's health.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

type Label = [(&'static str, &'static str); 1];

/// Handles; a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct ProbeMetrics {
    healthz: Family<Label, Counter>,
    livez: Family<Label, Counter>,
}

impl ProbeMetrics {
    /// `/healthz` was answered: whether all is well.
    pub fn count_healthz(&self, is_well: bool) {
        self.healthz.get_or_create(&code(is_well)).inc();
    }

    /// `/livez` was answered: whether all is well.
    pub fn count_livez(&self, is_well: bool) {
        self.livez.get_or_create(&code(is_well)).inc();
    }

    /// Answers of `/healthz` and `/livez`, good and bad.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> [[u64; 2]; 2] {
        let count = |family: &Family<Label, Counter>| {
            [true, false].map(|is_well| family.get_or_create(&code(is_well)).get())
        };
        [count(&self.healthz), count(&self.livez)]
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        for family in [&self.healthz, &self.livez] {
            drop(family.get_or_create(&code(true)));
            drop(family.get_or_create(&code(false)));
        }
        let registry = registry.sub_registry_with_prefix("kubeproxy");
        registry.register("proxy_healthz", "Answers of /healthz", self.healthz.clone());
        registry.register("proxy_livez", "Answers of /livez", self.livez.clone());
    }
}

const fn code(is_well: bool) -> Label {
    match is_well {
        true => [("code", "200")],
        false => [("code", "503")],
    }
}
