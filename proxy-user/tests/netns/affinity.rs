//! Clients that stay with a backend: sessionAffinity ClientIP.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

use crate::questions::{answered, ask, itself, set, settles};
use crate::sockets::inside;
use crate::stage::{PATIENCE, PROTOCOLS, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use xtask::cluster::{Pod, Protocol};

const STICKY: &str = "sessionAffinity: ClientIP";
/// With three backends nothing else is drawn so often.
const QUESTIONS: usize = 20;

fn who(from: &Pod, protocol: Protocol, to: SocketAddr) -> String {
    let answer = ask(from, protocol, to, PATIENCE);
    let what = format!("{protocol} {} -> {to}", from.name());
    answer
        .unwrap_or_else(|error| panic!("{what}: {error}"))
        .server
}

/// The one backend that a client has, by protocol and address; an error where it has more.
pub(crate) fn chosen(from: &Pod, to: &[SocketAddr]) -> Result<BTreeMap<String, String>, String> {
    let mut chosen = BTreeMap::new();
    for protocol in PROTOCOLS {
        for to in to {
            let first = who(from, protocol, *to);
            for _ in 1..QUESTIONS {
                let next = who(from, protocol, *to);
                if next != first {
                    let name = from.name();
                    return Err(format!("{protocol} {name} -> {to}: {first}, then {next}"));
                }
            }
            chosen.insert(format!("{protocol} {to}"), first);
        }
    }
    Ok(chosen)
}

/// Pods of the first node by packets, and one of them by sockets, too.
fn clients(stage: &mut Stage) -> Vec<Pod> {
    let other = stage.cluster.add_pod(1, "other").unwrap();
    let socket = inside(stage, 1, &stage.shell);
    vec![stage.shell.clone(), other, stage.web[0].clone(), socket]
}

#[test]
fn a_client_stays_with_its_backend_as_long_as_that_is_there() {
    let mut stage = Stage::new(&[]);
    let (clients, web) = (clients(&mut stage), stage.web.clone());
    let to = stage.cluster_ips();
    set(&mut stage, &[STICKY], &web);
    settles("each has one", || {
        clients.iter().try_for_each(|it| chosen(it, &to).map(drop))
    });
    let choices = || clients.iter().map(|it| chosen(it, &to).unwrap());
    let before: Vec<_> = choices().collect();
    // 16 draws of three lead to one backend once in fourteen million runs.
    let different: BTreeSet<&String> = before.iter().flat_map(BTreeMap::values).collect();
    assert!(different.len() > 1, "clients are independent: {before:?}");

    stage.take_agent(1).kill().unwrap();
    assert_eq!(choices().collect::<Vec<_>>(), before, "without an agent");
    stage.start_agent(1);
    assert_eq!(choices().collect::<Vec<_>>(), before, "with another agent");

    let left: Vec<Pod> = web[1..].to_vec();
    stage.set_backends(&left);
    let moved: Vec<_> = choices().collect();
    for (before, moved) in before.iter().zip(&moved) {
        for (key, server) in before {
            match server == web[0].name() {
                true => assert_ne!(moved[key], *server, "{key}: it is gone"),
                false => assert_eq!(moved[key], *server, "{key}: it is still there"),
            }
        }
    }
    stage.set_backends(&web);
    assert_eq!(choices().collect::<Vec<_>>(), moved, "one more");
    stage.assert_undisturbed();
}

#[test]
fn who_has_been_idle_for_too_long_is_given_another_backend() {
    let mut stage = Stage::new(&[]);
    let (web, to) = (stage.web.clone(), stage.cluster_ips());
    let shell = [stage.shell.clone(), inside(&stage, 1, &stage.shell)];
    let short = "sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}";
    set(&mut stage, &[STICKY, short], &web);
    for shell in &shell {
        settles("it has one", || chosen(shell, &to).map(drop));
        for protocol in PROTOCOLS {
            let first = who(shell, protocol, to[0]);
            let start = Instant::now();
            while who(shell, protocol, to[0]) == first {
                // So many draws bring the same one each time once in forty million runs.
                assert!(start.elapsed() < 4 * PATIENCE, "{protocol}: always {first}");
                // To be idle is what is tried here; ticks are about a second.
                std::thread::sleep(Duration::from_millis(2500));
            }
        }
    }
}

#[test]
fn affinity_can_be_switched_on_and_off() {
    let mut stage = Stage::new(&[]);
    let (web, to) = (stage.web.clone(), stage.cluster_ips());
    let clients = [stage.shell.clone(), inside(&stage, 1, &stage.shell)];
    for _ in 0..2 {
        set(&mut stage, &["sessionAffinity: None"], &web);
        for client in &clients {
            settles("all answer", || answered(client, &to, &web, itself(client)));
        }
        set(&mut stage, &[STICKY], &web);
        for client in &clients {
            settles("one answers", || chosen(client, &to).map(drop));
        }
    }
}

#[test]
fn node_ports_and_cluster_addresses_lead_a_client_to_one_backend() {
    let mut stage = Stage::new(&[]);
    let web = stage.web.clone();
    set(&mut stage, &[STICKY], &web);
    let (client, to) = (stage.cluster.client(), stage.node_ports(1));
    settles("the client outside", || chosen(client, &to).map(drop));
    // Whatever is dialled, it is one port of one Service.
    let [shell, inside] = [stage.shell.clone(), inside(&stage, 1, &stage.shell)];
    for client in [shell, inside] {
        for (cluster_ip, node_port) in stage.cluster_ips().iter().zip(&to) {
            for protocol in PROTOCOLS {
                let all = [*cluster_ip, *node_port].map(|to| who(&client, protocol, to));
                assert_eq!(all[0], all[1], "{protocol} {cluster_ip} {node_port}");
            }
        }
    }
}
