//! What the sync loop counts, by the names that kube-proxy has for it.

use super::contents::{Contents, Gauges};
use crate::cluster::IpFamily;
use crate::source::Kind;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use std::collections::BTreeMap;
use std::iter::once;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Labels of one name.
pub(super) type Label = [(&'static str, &'static str); 1];
type Seconds = Gauge<f64, AtomicU64>;

/// A turn of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How long it has taken.
    pub took: Duration,
    /// Whether all Services were looked at.
    pub is_full: bool,
    /// Whether rows of IPv4 and IPv6 were written.
    pub wrote: [bool; 2],
}

/// Handles; a clone is the same.
#[derive(Clone, Debug)]
pub struct LoopMetrics {
    turns: ByFamily<Histogram>,
    full_turns: ByFamily<Histogram>,
    partial_turns: ByFamily<Histogram>,
    delays: ByFamily<Histogram>,
    lags: Histogram,
    queued: ByFamily<Seconds>,
    written: ByFamily<Seconds>,
    service_events: Counter,
    endpoint_events: Counter,
    errors: Counter,
    gauges: Gauges,
}

impl Default for LoopMetrics {
    fn default() -> Self {
        Self {
            turns: ByFamily::new(turn_buckets),
            full_turns: ByFamily::new(turn_buckets),
            partial_turns: ByFamily::new(turn_buckets),
            delays: ByFamily::new(delay_buckets),
            lags: Histogram::new(LAGS),
            queued: ByFamily::new(Seconds::default),
            written: ByFamily::new(Seconds::default),
            service_events: Counter::default(),
            endpoint_events: Counter::default(),
            errors: Counter::default(),
            gauges: Gauges::default(),
        }
    }
}

impl LoopMetrics {
    /// An object of this kind has come, changed or gone.
    pub fn count_event(&self, kind: Kind) {
        match kind {
            Kind::Service => drop(self.service_events.inc()),
            Kind::EndpointSlice => drop(self.endpoint_events.inc()),
            Kind::Node | Kind::Pod | Kind::ServiceCidr => {}
        }
    }

    /// A write to the maps has failed.
    pub fn count_error(&self) {
        self.errors.inc();
    }

    /// A turn had something to do.
    pub fn observe_turn(&self, turn: &Turn) {
        let own = match turn.is_full {
            true => &self.full_turns,
            false => &self.partial_turns,
        };
        for family in IpFamily::ALL {
            if turn.wrote[family as usize] {
                let took = turn.took.as_secs_f64();
                self.turns.of(family).observe(took);
                own.of(family).observe(took);
            }
        }
    }

    /// Endpoints of this family are in the maps so long after what they were changed for.
    pub fn observe_delay(&self, family: IpFamily, delay: Duration) {
        self.delays.of(family).observe(delay.as_secs_f64());
    }

    /// So much time has gone by since the source heard of what is in the maps now.
    pub fn observe_lag(&self, lag: Duration) {
        self.lags.observe(lag.as_secs_f64());
    }

    /// Something was queued at this time.
    pub fn set_queued(&self, at: SystemTime) {
        for family in IpFamily::ALL {
            self.queued.of(family).set(since_epoch(at));
        }
    }

    /// All of each family was in the maps at these times.
    pub fn set_written(&self, at: [Option<SystemTime>; 2]) {
        for family in IpFamily::ALL {
            if let Some(at) = at[family as usize] {
                self.written.of(family).set(since_epoch(at));
            }
        }
    }

    /// What there is now, and what can't be used, by reason.
    pub fn set_contents(&self, contents: &Contents, skipped: &BTreeMap<&'static str, usize>) {
        self.gauges.set(contents, skipped);
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let kube_proxy = registry.sub_registry_with_prefix("kubeproxy");
        self.register_turns(kube_proxy);
        self.queued.register(
            kube_proxy,
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When a change was last queued",
        );
        self.written.register(
            kube_proxy,
            "sync_proxy_rules_last_timestamp_seconds",
            "When the maps were last brought up to date",
        );
        kube_proxy.register(
            "sync_proxy_rules_service_changes",
            "Services that have come, changed or gone",
            self.service_events.clone(),
        );
        kube_proxy.register(
            "sync_proxy_rules_endpoint_changes",
            "EndpointSlices that have come, changed or gone",
            self.endpoint_events.clone(),
        );
        self.gauges.register(registry);
        let own = registry.sub_registry_with_prefix("ferrule");
        own.register(
            "sync_errors",
            "Writes to the maps that have failed",
            self.errors.clone(),
        );
        own.register(
            "sync_lag_seconds",
            "From an event's bytes that were read to the maps",
            self.lags.clone(),
        );
    }

    fn register_turns(&self, registry: &mut Registry) {
        self.turns.register(
            registry,
            "sync_proxy_rules_duration_seconds",
            "How long bringing the maps up to date has taken",
        );
        self.full_turns.register(
            registry,
            "sync_full_proxy_rules_duration_seconds",
            "The same, when all Services were looked at",
        );
        self.partial_turns.register(
            registry,
            "sync_partial_proxy_rules_duration_seconds",
            "The same, when only those were that had changed",
        );
        self.delays.register(
            registry,
            "network_programming_duration_seconds",
            "From the change of a pod or Service to its endpoints in the maps",
        );
    }
}

/// A metric with a value for each IP family.
#[derive(Debug)]
struct ByFamily<M> {
    family: Family<Label, M, fn() -> M>,
    each: [M; 2],
}

impl<M: Clone> Clone for ByFamily<M> {
    fn clone(&self) -> Self {
        Self {
            family: self.family.clone(),
            each: self.each.clone(),
        }
    }
}

impl<M: Clone + Metric> ByFamily<M>
where
    Family<Label, M, fn() -> M>: Metric,
    fn() -> M: MetricConstructor<M>,
{
    fn new(metric: fn() -> M) -> Self {
        let family = Family::new_with_constructor(metric);
        let each = IpFamily::ALL.map(|it| family.get_or_create_owned(&label(it)));
        Self { family, each }
    }

    const fn of(&self, family: IpFamily) -> &M {
        &self.each[family as usize]
    }

    fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.family.clone());
    }
}

/// The label that kube-proxy has for a family.
pub(super) const fn label(family: IpFamily) -> Label {
    [("ip_family", family.name())]
}

/// Bounds for lags, in seconds: finest around a millisecond, which few should exceed.
const LAGS: [f64; 19] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_4, 0.000_5, 0.000_6, 0.000_8, 0.001, 0.001_5, 0.002,
    0.003, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0,
];

/// kube-proxy's.
fn turn_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// kube-proxy's.
fn delay_buckets() -> Histogram {
    let seconds = (1..60)
        .chain((60..120).step_by(5))
        .chain((120..=300).step_by(30));
    let finer = once(0.25).chain(once(0.5));
    Histogram::new(finer.chain(seconds.map(f64::from)))
}

/// Seconds since 1970; 0 before.
pub(super) fn since_epoch(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
