//! What there is: Services and their rows, how full the maps are, what waits and what can't be used.

use super::rules::Label;
use crate::cluster::IpFamily;
use crate::tables::Map;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The sync loop's figures. What has two values has them for IPv4 and IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Whether everything that existed at the start is known.
    pub synced: bool,
    /// Services with at least one row.
    pub services: usize,
    /// Service ports in the maps.
    pub service_ports: [usize; 2],
    /// Rows of `FRONTENDS_*`.
    pub frontends: [usize; 2],
    /// Rows of `BACKENDS_*`.
    pub backends: [usize; 2],
    /// Service ports without an endpoint that their internal, external policy lets them have.
    pub no_local: [[usize; 2]; 2],
    /// Services that have changed themselves, and are not written yet.
    pub pending_services: usize,
    /// Services whose endpoints have changed, and are not written yet.
    pub pending_endpoints: usize,
    /// Services that could not be written.
    pub failing: usize,
    /// Services that lack room in a map.
    pub lacking_room: usize,
    /// What is wrong with the origins of objects.
    pub problems: usize,
    /// Rows in use of each map, in the order of [`Map::ALL`].
    pub used: [u32; Map::ALL.len()],
    /// Rows that fit into each.
    pub capacity: [u32; Map::ALL.len()],
}

/// Handles; a clone is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauges {
    synced: Gauge,
    services: Gauge,
    service_ports: Family<Label, Gauge>,
    frontends: Family<Label, Gauge>,
    backends: Family<Label, Gauge>,
    no_local: Family<Labels<2>, Gauge>,
    pending_services: Gauge,
    pending_endpoints: Gauge,
    waiting: Family<Label, Gauge>,
    problems: Gauge,
    used: Family<Label, Gauge>,
    capacity: Family<Label, Gauge>,
    skipped: Family<Label, Gauge>,
}

impl Gauges {
    pub(super) fn set(&self, contents: &Contents, skipped: &BTreeMap<&'static str, usize>) {
        self.synced.set(contents.synced.into());
        put(&self.services, contents.services);
        put(&self.pending_services, contents.pending_services);
        put(&self.pending_endpoints, contents.pending_endpoints);
        put(&self.problems, contents.problems);
        self.set_by_family(contents);
        for (reason, count) in [
            ("error", contents.failing),
            ("no-room", contents.lacking_room),
        ] {
            put(&self.waiting.get_or_create(&[("reason", reason)]), count);
        }
        for (index, map) in Map::ALL.into_iter().enumerate() {
            let label = [("map", map.name())];
            self.used
                .get_or_create(&label)
                .set(contents.used[index].into());
            self.capacity
                .get_or_create(&label)
                .set(contents.capacity[index].into());
        }
        for (reason, count) in skipped {
            put(&self.skipped.get_or_create(&[("reason", reason)]), *count);
        }
    }

    fn set_by_family(&self, contents: &Contents) {
        let families = [
            (&self.service_ports, contents.service_ports),
            (&self.frontends, contents.frontends),
            (&self.backends, contents.backends),
        ];
        for ip in IpFamily::ALL {
            for (family, counts) in families {
                let gauge = family.get_or_create(&super::rules::label(ip));
                put(&gauge, counts[ip as usize]);
            }
            for (policy, counts) in ["internal", "external"].into_iter().zip(contents.no_local) {
                let labels = [("ip_family", ip.name()), ("traffic_policy", policy)];
                put(&self.no_local.get_or_create(&labels), counts[ip as usize]);
            }
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_kube_proxy(registry.sub_registry_with_prefix("kubeproxy"));
        let own = registry.sub_registry_with_prefix("ferrule");
        let plain = [
            (
                "synced",
                "Whether everything that existed at the start is known; before, nothing is written",
                &self.synced,
            ),
            ("services", "Services with rows in the maps", &self.services),
            (
                "source_problems",
                "What is wrong with files or watches that objects come from",
                &self.problems,
            ),
        ];
        for (name, help, gauge) in plain {
            own.register(name, help, gauge.clone());
        }
        let families = [
            (
                "service_ports",
                "Ports of Services in the maps",
                &self.service_ports,
            ),
            (
                "frontends",
                "Addresses, ports and protocols that can be dialled",
                &self.frontends,
            ),
            ("backends", "Endpoints in the maps", &self.backends),
            (
                "services_waiting",
                "Services that could not be written and are tried again",
                &self.waiting,
            ),
            (
                "map_entries",
                "Rows in use, or not yet to be used again; words in the case of SLOTS",
                &self.used,
            ),
            ("map_capacity", "Rows that fit", &self.capacity),
            (
                "skipped",
                "Fields of objects that can't be used",
                &self.skipped,
            ),
        ];
        for (name, help, family) in families {
            own.register(name, help, family.clone());
        }
    }

    fn register_kube_proxy(&self, registry: &mut Registry) {
        registry.register(
            "sync_proxy_rules_service_changes_pending",
            "Services that have changed and are not written yet",
            self.pending_services.clone(),
        );
        registry.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Services whose endpoints have changed and are not written yet",
            self.pending_endpoints.clone(),
        );
        registry.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports with the traffic policy Local and endpoints on other nodes only",
            self.no_local.clone(),
        );
    }
}

fn put(gauge: &Gauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
