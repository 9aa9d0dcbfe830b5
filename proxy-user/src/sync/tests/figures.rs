//! What the loop tells of itself.

use super::*;

/// The samples of a metric, as Prometheus would have them.
fn samples(sync: &Sync<Fake>, name: &str) -> Vec<(String, f64)> {
    let mut registry = prometheus_client::registry::Registry::default();
    sync.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::prometheus_text::encode(&mut text, &registry).unwrap();
    let lines = text.lines().filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let labels = sample.strip_prefix(name)?;
        let is_it = labels.is_empty() || labels.starts_with('{');
        is_it.then(|| (labels.to_owned(), value.parse().unwrap()))
    });
    lines.collect()
}

fn sample(sync: &Sync<Fake>, name: &str, labels: &str) -> f64 {
    let samples = samples(sync, name);
    let found = samples.iter().find(|(its, _)| its.contains(labels));
    found
        .unwrap_or_else(|| panic!("{name}{labels} in {samples:?}"))
        .1
}

#[test]
fn counts_are_those_of_all_rows() {
    let mut sync = sync(Fake::new(ROOM));
    sync.apply(vec![Event::Synced]);
    for backends in [TWO, ONE, "", TWO] {
        sync.apply(service(backends));
        let content = sync.datapath().content();
        let report = sync.report();
        let keys = content.frontends_v4.iter().map(|(key, _)| key);
        let dialled = keys.filter(|key| !key.is_of_address()).count();
        assert_eq!(report.frontends.v4, dialled);
        assert_eq!(report.backends.v4, content.backends_v4.len());
        assert_eq!(report.service_ports.v4, content.services.len());
        let gauge = sample(&sync, "ferrule_backends", "IPv4");
        assert_eq!(gauge, report.backends.v4 as f64);
    }
    sync.apply(vec![Event::Delete(
        ServiceName::new("default", "web").key(),
    )]);
    let report = sync.report();
    assert_eq!(
        (report.services, report.frontends.v4, report.backends.v4),
        (0, 0, 0)
    );
    assert_eq!(report.service_ports, PerFamily::default());
}

#[test]
fn turns_changes_and_failures_are_counted() {
    let mut sync = sync(Fake::new(ROOM));
    sync.apply(service(ONE));
    let turns = "kubeproxy_sync_proxy_rules_duration_seconds_count";
    assert_eq!(sample(&sync, turns, "IPv4"), 0.0, "nothing is written yet");
    sync.apply(vec![Event::Synced]);
    sync.apply(service(TWO));
    assert_eq!(sample(&sync, turns, "IPv4"), 2.0);
    assert_eq!(sample(&sync, turns, "IPv6"), 0.0);
    let full = "kubeproxy_sync_full_proxy_rules_duration_seconds_count";
    assert_eq!(sample(&sync, full, "IPv4"), 1.0);
    assert_eq!(
        sample(
            &sync,
            "kubeproxy_sync_proxy_rules_service_changes_total",
            ""
        ),
        2.0
    );
    assert_eq!(
        sample(
            &sync,
            "kubeproxy_sync_proxy_rules_endpoint_changes_total",
            ""
        ),
        2.0
    );
    sync.datapath().fail(Some(Failing { every: 1 }));
    sync.apply(service(ONE));
    let pending = "kubeproxy_sync_proxy_rules_endpoint_changes_pending";
    assert_eq!(sample(&sync, pending, ""), 1.0);
    assert_eq!(sample(&sync, "ferrule_services_waiting", "error"), 1.0);
    assert!(sample(&sync, "ferrule_sync_errors_total", "") > 0.0);
    sync.datapath().fail(None);
    sync.retry();
    assert_eq!(sample(&sync, pending, ""), 0.0);
    assert_eq!(sample(&sync, "ferrule_services_waiting", "error"), 0.0);
}

#[test]
fn what_is_not_written_makes_its_family_wait_and_what_has_no_room_does_not() {
    let mut sync = sync(Fake::new(ROOM));
    let vitals = sync.vitals();
    sync.apply(service(TWO));
    assert_eq!(
        vitals.borrow().waiting_since,
        [None; 2],
        "all is not known yet"
    );
    sync.apply(vec![Event::Synced]);
    assert_eq!(vitals.borrow().waiting_since, [None; 2]);
    assert!(vitals.borrow().written.iter().all(Option::is_some));
    sync.datapath().fail(Some(Failing { every: 1 }));
    sync.apply(service(ONE));
    let waiting = vitals.borrow().waiting_since;
    assert!(waiting[0].is_some() && waiting[1].is_none(), "{waiting:?}");
    sync.datapath().fail(None);
    let many: Vec<String> = (1..9)
        .map(|it| format!("{{addresses: [10.244.1.{it}]}}"))
        .collect();
    sync.apply(service(&many.join(",")));
    assert_eq!(sync.report().pending, 1);
    assert_eq!(vitals.borrow().waiting_since, [None; 2]);
    assert_eq!(sample(&sync, "ferrule_services_waiting", "no-room"), 1.0);
    assert_eq!(sample(&sync, "ferrule_services_waiting", "error"), 0.0);
}

#[test]
fn the_way_of_a_change_into_the_maps_is_timed_but_not_that_of_the_first_list() {
    let slice = |address: &str, time: &str| {
        let annotations =
            format!("annotations: {{endpoints.kubernetes.io/last-change-trigger-time: '{time}'}},");
        let text = format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: s, {annotations}
               labels: {{kubernetes.io/service-name: web}}}}, addressType: IPv4,
               ports: [{{port: 8080}}], endpoints: [{{addresses: [{address}]}}]}}"
        );
        objects(&text)
    };
    let ago = |seconds| {
        let time = SystemTime::now() - std::time::Duration::from_secs(seconds);
        humantime::format_rfc3339_nanos(time).to_string()
    };
    let mut sync = sync(Fake::new(ROOM));
    sync.apply(service(ONE));
    sync.apply(slice("10.244.1.1", &ago(1000)));
    sync.apply(vec![Event::Synced]);
    let delays = "kubeproxy_network_programming_duration_seconds_count";
    assert_eq!(sample(&sync, delays, "IPv4"), 0.0);
    sync.apply(slice("10.244.1.2", &ago(10)));
    sync.apply(slice("10.244.1.2", &ago(5)));
    assert_eq!(
        sample(&sync, delays, "IPv4"),
        1.0,
        "the second has changed nothing"
    );
    let below = |bound: &str| {
        sample(
            &sync,
            "kubeproxy_network_programming_duration_seconds_bucket",
            &format!("ip_family=\"IPv4\",le=\"{bound}\""),
        )
    };
    assert_eq!((below("9"), below("30")), (0.0, 1.0));
    sync.apply(slice("10.244.1.3", "yesterday"));
    assert_eq!(
        sync.report().skipped[0].why,
        "\"yesterday\" is not a time as RFC 3339 has it"
    );
    assert_eq!(sample(&sync, "ferrule_skipped", "not-a-time"), 1.0);
    sync.apply(slice("10.244.1.3", &ago(1)));
    assert_eq!(sample(&sync, "ferrule_skipped", "not-a-time"), 0.0);
}

#[test]
fn ports_that_must_stay_local_and_can_not_are_counted() {
    let mut sync = sync(Fake::new(ROOM));
    sync.apply(vec![Event::Synced]);
    sync.apply(service(ONE));
    let gaps = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
    let count = |sync: &Sync<Fake>, policy| {
        sample(sync, gaps, &format!("\"IPv4\",traffic_policy=\"{policy}\""))
    };
    assert_eq!(count(&sync, "internal"), 0.0);
    sync.apply(objects(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.1,
           internalTrafficPolicy: Local, externalTrafficPolicy: Cluster, ports: [{port: 80}]}}",
    ));
    assert_eq!(
        (count(&sync, "internal"), count(&sync, "external")),
        (1.0, 0.0)
    );
    sync.apply(service("{addresses: [10.244.1.1], nodeName: node-a}"));
    assert_eq!(count(&sync, "internal"), 0.0);
}

#[test]
fn the_node_object_makes_itself_known_as_it_comes_and_goes() {
    let mut sync = sync(Fake::new(ROOM));
    let vitals = sync.vitals();
    let node = |more: &str| {
        objects(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: node-a{more}}}}}"
        ))
    };
    let taint = objects(
        "{apiVersion: v1, kind: Node, metadata: {name: node-a}, spec: {taints: [
           {key: ToBeDeletedByClusterAutoscaler, value: '1', effect: NoSchedule}]}}",
    );
    assert_eq!(vitals.borrow().node, NodeState::NeverSeen);
    sync.apply(node(""));
    assert_eq!(vitals.borrow().node, NodeState::Present);
    sync.apply(taint);
    assert_eq!(vitals.borrow().node, NodeState::Leaving);
    sync.apply(node(""));
    assert_eq!(vitals.borrow().node, NodeState::Present);
    sync.apply(node(", deletionTimestamp: '2026-11-26T10:00:00Z'"));
    assert_eq!(vitals.borrow().node, NodeState::Leaving);
    let Event::Apply(object) = node("").remove(0) else {
        panic!("an object");
    };
    sync.apply(vec![Event::Delete(object.key())]);
    assert_eq!(vitals.borrow().node, NodeState::Gone);
}
