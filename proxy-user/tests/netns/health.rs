//! What probes and Prometheus are told.

use crate::stage::{NODE_PORT, PATIENCE, START, Stage, ask, binary, eventually, within};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use xtask::cluster::{Namespace, Protocol};

const HEALTH: u16 = 10256;
const METRICS: u16 = 10249;
/// A port is tried again every five seconds.
const NEXT_TRY: Duration = Duration::from_secs(20);

/// Status and body; an error if nobody answers.
pub(crate) fn get(from: &Namespace, to: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
    let answer = from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    })??;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").expect("an answer").1;
    Ok((status.expect("a status"), body.to_owned()))
}

/// Of the first node, asked on the node itself.
fn on_node(stage: &Stage, path: &str) -> (u16, String) {
    let here = stage.cluster.node(1).namespace();
    get(here, (Ipv4Addr::LOCALHOST, METRICS).into(), path).expect("metrics are served")
}

/// Of the first node, asked from outside.
fn from_outside(stage: &Stage, path: &str) -> std::io::Result<u16> {
    let to = SocketAddr::new(stage.cluster.node(1).addresses()[0], HEALTH);
    get(stage.cluster.client().namespace(), to, path).map(|(status, _)| status)
}

/// All samples that have a value.
pub(crate) fn metrics(stage: &Stage) -> BTreeMap<String, f64> {
    let (status, text) = on_node(stage, "/metrics");
    assert_eq!(status, 200);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.filter_map(|line| line.rsplit_once(' '));
    samples
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect()
}

#[test]
fn probes_and_prometheus_are_told_how_it_is() {
    let mut stage = Stage::new(&[]);
    assert_eq!(on_node(&stage, "/proxyMode"), (200, "ferrule".to_owned()));
    assert_eq!(on_node(&stage, "/healthz"), (200, "ok".to_owned()));
    assert_eq!(from_outside(&stage, "/healthz").expect("it is served"), 200);
    assert_eq!(from_outside(&stage, "/livez").expect("it is served"), 200);
    let before = metrics(&stage);
    for to in stage.node_ports(1) {
        ask(stage.cluster.client(), Protocol::Tcp, to, PATIENCE).expect("it answers");
    }
    let web = stage.web.clone();
    stage.set_backends(&web[1..]);
    let moved = [
        "ferrule_packets_passed_total{verdict=\"created\"}",
        "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}",
        "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"}",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total",
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"}",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv6\"}",
    ];
    eventually("it is counted", || {
        let now = metrics(&stage);
        moved.iter().all(|name| now[*name] > before[*name])
    });
    let now = metrics(&stage);
    assert_eq!(now["kubeproxy_proxy_livez_total{code=\"200\"}"], 1.0);
    let backends = "ferrule_backends{ip_family=\"IPv4\"}";
    assert_eq!((before[backends], now[backends]), (6.0, 4.0));
    assert_eq!(now["ferrule_services_waiting{reason=\"error\"}"], 0.0);
    assert!(now["ferrule_flow_table_capacity{map=\"HALF_OPEN_V6\"}"] > 0.0);
    assert!(now["ferrule_devices{state=\"attached\"}"] >= 2.0);
    eventually("the flows have been looked through", || {
        let rows = "ferrule_flow_table_entries{map=\"FLOWS_V4\"}";
        metrics(&stage).get(rows).is_some_and(|rows| *rows > 0.0)
    });
}

#[test]
fn a_node_that_leaves_is_said_to_and_serves_on() {
    let stage = Stage::new(&[]);
    let node = stage.cluster.node(1);
    let file = stage.cluster.manifests().expect("there are manifests");
    let path = file.folder().join(format!("{}.yaml", node.name()));
    let object = std::fs::read_to_string(path).expect("the node has an object");
    let taint = "spec:\n  taints:\n  - {key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}\n";
    let tainted = object.replace("spec:\n", taint);
    file.replace(&node.name(), &tainted).expect("it is written");
    eventually("load balancers are told", || {
        from_outside(&stage, "/healthz").expect("it is served") == 503
    });
    assert_eq!(from_outside(&stage, "/livez").expect("it is served"), 200);
    let to = SocketAddr::new(node.addresses()[0], NODE_PORT);
    ask(stage.cluster.client(), Protocol::Tcp, to, PATIENCE).expect("it answers");
    file.replace(&node.name(), &object).expect("it is written");
    eventually("load balancers are told", || {
        from_outside(&stage, "/healthz").expect("it is served") == 200
    });
}

#[test]
fn a_port_that_is_taken_is_waited_for_and_nothing_else_is() {
    let mut stage = Stage::new(&[]);
    drop(stage.take_agent(1));
    let place = stage.cluster.node(1).namespace().clone();
    let bind = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, HEALTH));
    let other = place.run(bind).expect("a place").expect("the port is free");
    stage.start_agent(1);
    let log = stage.agent(1).log();
    assert!(
        log.contains("health can't be served on 0.0.0.0:10256"),
        "{log}"
    );
    assert!(
        log.contains("kube-proxy is probably still running"),
        "{log}"
    );
    assert_eq!(on_node(&stage, "/healthz").0, 200, "metrics are served");
    let problem = "ferrule_problems{what=\"health-port\"}";
    assert_eq!(metrics(&stage)[problem], 1.0);
    let warned = |stage: &Stage| {
        let status = stage.agent(1).status().expect("it answers");
        let warnings = status["agent"]["warnings"].to_string();
        warnings.contains("health can't be served on 0.0.0.0:10256")
    };
    assert!(warned(&stage));
    drop(other);
    within(NEXT_TRY, "health is served", || {
        from_outside(&stage, "/livez").is_ok_and(|status| status == 200)
    });
    assert_eq!(metrics(&stage)[problem], 0.0);
    assert!(!warned(&stage));
    drop(stage.take_agent(1));
    let other = place.run(bind).expect("a place").expect("the port is free");
    let node = stage.cluster.node(1);
    let agent = node.start_agent(&binary(), &["--bind-address-hard-fail"]);
    let ended = agent.expect("it starts").wait_synced(START).unwrap_err();
    assert!(ended.to_string().contains("ended"), "{ended}");
    assert!(ended.to_string().contains("0.0.0.0:10256"), "{ended}");
    drop(other);
}
