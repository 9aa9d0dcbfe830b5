//! What keeps a part of the agent from its work, as those tell who notice.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What can be in trouble while all else goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The configuration file: another content was refused.
    Configuration,
    /// The programs at cgroups: they could not be attached.
    Sockets,
    /// Where health is served: it can't be bound.
    HealthPort,
    /// Where metrics are served: it can't be bound.
    MetricsPort,
    /// Where load balancers ask after Services: not all of it can be bound.
    HealthCheckPorts,
}

impl Part {
    const ALL: [Self; 5] = [
        Self::Configuration,
        Self::Sockets,
        Self::HealthPort,
        Self::MetricsPort,
        Self::HealthCheckPorts,
    ];

    const fn label(self) -> Label {
        let name = match self {
            Self::Configuration => "configuration",
            Self::Sockets => "sockets",
            Self::HealthPort => "health-port",
            Self::MetricsPort => "metrics-port",
            Self::HealthCheckPorts => "health-check-ports",
        };
        [("what", name)]
    }
}

type Label = [(&'static str, &'static str); 1];

/// Handles; a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct ProblemMetrics(Family<Label, Gauge>);

impl ProblemMetrics {
    /// Whether this part is in trouble now.
    pub fn set(&self, part: Part, is_in_trouble: bool) {
        self.0
            .get_or_create(&part.label())
            .set(is_in_trouble.into());
    }

    /// As it was set last.
    #[cfg(test)]
    pub(crate) fn is_in_trouble(&self, part: Part) -> bool {
        self.0.get_or_create(&part.label()).get() == 1
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        for part in Part::ALL {
            drop(self.0.get_or_create(&part.label()));
        }
        let registry = registry.sub_registry_with_prefix("ferrule");
        registry.register(
            "problems",
            "Whether this part of the agent is in trouble; ferrule status says why",
            self.0.clone(),
        );
    }
}
