//! The end of flows that nobody uses any more.

use crate::stage::{NODE_PORT, PATIENCE, PROTOCOLS, Stage, ask, eventually};
use serde_json::Value;
use std::time::{Duration, Instant};
use xtask::cluster::Protocol;
use xtask::traffic::tcp_open;

/// Longer than it takes to see a flow end.
const LONG: Duration = Duration::from_secs(8);
const FLAGS: [&str; 6] = [
    "--tcp-timeout-closing=2s",
    "--tcp-timeout-half-open=2s",
    "--conntrack-tcp-timeout-established=3s",
    "--conntrack-tcp-timeout-close-wait=2s",
    "--conntrack-udp-timeout=2s",
    "--conntrack-udp-timeout-stream=2s",
];

/// The sum of a count over all flow tables of a node, as the last pass has found them.
fn flows(stage: &Stage, node: u8, count: &str) -> u64 {
    let status = stage.agent(node).status().expect("status answers");
    let tables = status["agent"]["flows"]["tables"].as_array().cloned();
    let tables: Vec<Value> = tables.unwrap_or_default();
    tables.iter().filter_map(|it| it[count].as_u64()).sum()
}

/// Rows in the tables themselves.
fn rows(stage: &Stage, node: u8) -> u64 {
    let status = stage.agent(node).status().expect("status answers");
    let tables = status["readings"]["flows"]
        .as_array()
        .expect("status has the tables");
    tables.iter().filter_map(|it| it["used"].as_u64()).sum()
}

#[test]
fn rows_of_ended_flows_go_and_those_of_others_stay() {
    let stage = Stage::new(&FLAGS);
    let open: Vec<_> = stage.cluster_ips();
    let mut open: Vec<_> = open
        .iter()
        .map(|to| tcp_open(stage.shell.namespace(), *to, PATIENCE).unwrap())
        .collect();
    for to in stage.cluster_ips() {
        for protocol in PROTOCOLS {
            ask(&stage.shell, protocol, to, PATIENCE).unwrap();
        }
    }
    assert!(rows(&stage, 1) >= 12, "{}", rows(&stage, 1));
    let start = Instant::now();
    while start.elapsed() < LONG {
        for conversation in &mut open {
            conversation.echo(b"still here?").unwrap();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(rows(&stage, 1), 4, "two rows of each open connection");
    assert_eq!(flows(&stage, 1, "established"), 2);
    // Silence ends them, too.
    eventually("the tables are empty", || rows(&stage, 1) == 0);
    eventually("the next pass finds that", || flows(&stage, 1, "rows") == 0);
    stage.assert_undisturbed();
}

/// The filter in front of the tables forgets what a pass over them has not seen.
#[test]
fn a_silent_connection_is_known_after_many_passes() {
    let stage = Stage::new(&[]);
    let open = stage.cluster_ips();
    let mut open: Vec<_> = open
        .iter()
        .map(|to| tcp_open(stage.shell.namespace(), *to, PATIENCE).unwrap())
        .collect();
    std::thread::sleep(LONG);
    for conversation in &mut open {
        conversation.echo(b"still here?").unwrap();
    }
    assert_eq!(stage.count(1, "passed", "no-flow"), 0);
    stage.assert_undisturbed();
}

#[test]
fn masked_flows_are_counted_and_their_ports_are_free_again() {
    // A range of one port: each flow towards a backend needs the one before to have ended.
    let stage = Stage::new(&[&FLAGS[..], &["--snat-ports=2000-2000"]].concat());
    let client = stage.cluster.client();
    let remote = |node: u8| stage.node_ports(node);
    for _ in 0..2 {
        for to in remote(1) {
            // Enough questions that every backend, local and remote, has had some.
            let answered = (0..20).filter(|_| ask(client, Protocol::Udp, to, SHORT).is_ok());
            assert!(answered.count() > 0, "UDP {to}:{NODE_PORT}");
        }
        eventually("status tells of the port", || {
            let status = stage.agent(1).status().unwrap();
            let busiest = &status["agent"]["flows"]["busiest"];
            busiest[0]["used"] == 1 && busiest[0]["of"] == 1
        });
        assert!(stage.count(1, "drops", "ports-exhausted") > 0);
        eventually("the tables are empty", || rows(&stage, 1) == 0);
    }
    let log = stage.agent(1).log();
    assert!(log.contains("1 of 1 source ports are in use"), "{log}");
}

/// For an answer that may not come.
const SHORT: Duration = Duration::from_millis(100);
