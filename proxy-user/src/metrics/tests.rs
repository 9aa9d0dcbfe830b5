use super::*;
use crate::source::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn sources() -> Sources {
    let report = FlowReport {
        tables: vec![crate::flows::TableReport {
            map: "FLOWS_V4".to_owned(),
            counts: crate::flows::Counts {
                established: 7,
                rows: 14,
                ..crate::flows::Counts::default()
            },
        }],
        busiest: vec![crate::flows::Busiest {
            address: [10, 244, 1, 1].into(),
            port: 80,
            protocol: "TCP".to_owned(),
            masked_as: [192, 168, 0, 1].into(),
            used: 9,
            of: 1024,
        }],
        removed: 3,
    };
    let (sync, devices) = (LoopMetrics::default(), DeviceMetrics::default());
    sync.set_contents(&Contents::default(), &[("missing", 0)].into());
    devices.set(&[]);
    Sources {
        sync,
        probes: ProbeMetrics::default(),
        problems: ProblemMetrics::default(),
        devices,
        pins: Pins::new(Path::new("/nowhere")),
        flows: watch::channel(report).1,
        snat_ports: 1024..=2047,
        closed: watch::channel(ClosingReport::default()).1,
        exempt: watch::channel(Vec::new()).1,
        watches: Vec::new(),
        started: SystemTime::now(),
    }
}

/// Types by name of the metric, and values by name and labels; fails where Prometheus would.
fn parse(text: &str) -> (BTreeMap<&str, &str>, BTreeMap<&str, f64>) {
    let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a text");
            assert!(helped.insert(name) && !text.is_empty(), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(types.insert(name, kind).is_none(), "twice: {line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            let name = sample.split('{').next().unwrap();
            assert!(has_type(&types, name), "no type: {line}");
            let value = value.parse().expect("a number");
            assert!(samples.insert(sample, value).is_none(), "twice: {line}");
        }
    }
    assert!(types.keys().all(|name| helped.contains(name)), "{types:?}");
    (types, samples)
}

fn has_type(types: &BTreeMap<&str, &str>, name: &str) -> bool {
    let parts = ["_bucket", "_sum", "_count"];
    let whole = parts.iter().find_map(|part| name.strip_suffix(part));
    let is_part = whole.is_some_and(|whole| types.get(whole) == Some(&"histogram"));
    is_part || types.get(name).is_some_and(|kind| *kind != "histogram")
}

/// As a kube-proxy of version 1.36 has them.
const OF_KUBE_PROXY: [(&str, &str); 15] = [
    (
        "kubeproxy_network_programming_duration_seconds",
        "histogram",
    ),
    ("kubeproxy_proxy_healthz_total", "counter"),
    ("kubeproxy_proxy_livez_total", "counter"),
    (
        "kubeproxy_sync_full_proxy_rules_duration_seconds",
        "histogram",
    ),
    (
        "kubeproxy_sync_partial_proxy_rules_duration_seconds",
        "histogram",
    ),
    ("kubeproxy_sync_proxy_rules_duration_seconds", "histogram"),
    (
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
        "gauge",
    ),
    (
        "kubeproxy_sync_proxy_rules_endpoint_changes_total",
        "counter",
    ),
    (
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "gauge",
    ),
    ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "gauge"),
    (
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        "gauge",
    ),
    (
        "kubeproxy_sync_proxy_rules_service_changes_pending",
        "gauge",
    ),
    (
        "kubeproxy_sync_proxy_rules_service_changes_total",
        "counter",
    ),
    ("process_cpu_seconds_total", "counter"),
    ("process_start_time_seconds", "gauge"),
];

#[test]
fn the_text_can_be_read_and_has_the_names_and_types_of_kube_proxy() {
    let text = Metrics::new(sources()).text().unwrap();
    let (types, samples) = parse(&text);
    for (name, kind) in OF_KUBE_PROXY {
        assert_eq!(types.get(name), Some(&kind), "{name}");
    }
    let ours = types.keys().filter(|name| name.starts_with("kubeproxy_"));
    assert_eq!(ours.count(), 13, "{:?}", types.keys());
    let families = "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=";
    let bounds = samples.keys().filter(|it| it.starts_with(families));
    assert_eq!(bounds.count(), 16);
    let families = "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv6\",le=";
    let bounds = samples.keys().filter(|it| it.starts_with(families));
    assert_eq!(bounds.count(), 2 + 59 + 12 + 7 + 1);
    assert_eq!(samples["kubeproxy_proxy_livez_total{code=\"503\"}"], 0.0);
}

#[test]
fn what_others_have_found_is_told() {
    let mut sources = sources();
    sources.watches = vec![Watch::failed(Kind::Node, 3)];
    let text = Metrics::new(sources).text().unwrap();
    let (types, samples) = parse(&text);
    let established = "ferrule_flows{map=\"FLOWS_V4\",protocol=\"TCP\",state=\"established\"}";
    assert_eq!(samples[established], 7.0);
    assert_eq!(
        samples["ferrule_flow_table_entries{map=\"FLOWS_V4\"}"],
        14.0
    );
    assert_eq!(samples["ferrule_snat_ports_used{ip_family=\"IPv4\"}"], 9.0);
    assert_eq!(
        samples["ferrule_snat_ports_free{ip_family=\"IPv4\"}"],
        1015.0
    );
    assert_eq!(
        samples["ferrule_snat_ports_free{ip_family=\"IPv6\"}"],
        1024.0
    );
    assert_eq!(samples["ferrule_flows_removed_total"], 3.0);
    assert!(samples["ferrule_watch_age_seconds{kind=\"Node\"}"] >= 0.0);
    assert_eq!(samples["ferrule_watch_failures_total{kind=\"Node\"}"], 3.0);
    assert!(samples["process_resident_memory_bytes"] > 1e6);
    assert!(samples["process_open_fds"] > 2.0);
    assert_eq!(types["ferrule_packets_dropped_total"], "counter");
}

#[test]
fn docs_have_every_metric() {
    let text = Metrics::new(sources()).text().unwrap();
    let docs = include_str!("../../../docs/metrics.md");
    let missing = |name: &&&str| !docs.contains(&format!("| `{name}` |"));
    let types = parse(&text).0;
    let missing: Vec<_> = types.keys().filter(missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let rows = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let rows = rows.filter(|name| !name.starts_with('-'));
    let unknown: Vec<_> = rows.filter(|name| !types.contains_key(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
