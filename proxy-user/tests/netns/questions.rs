//! Services with other specs, statuses and slices, and what becomes of questions to them.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::refused::expect_refused;
use crate::sockets::{any, inside};
use crate::stage::{PATIENCE, PROTOCOLS, SHORT, Stage};
use serde_json::Value;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};
use xtask::cluster::{Pod, Protocol, Service};
use xtask::traffic::{Answer, tcp_open_from, udp_open_from};

/// So many questions to each address, so that somebody who must not answer would have.
const QUESTIONS: usize = 10;
/// With three servers one is missed by so many once in ten million runs.
const AT_MOST: usize = 40;

/// Gives the Service of the stage these lines, and puts these pods behind it.
pub(crate) fn set(stage: &mut Stage, lines: &[&str], pods: &[Pod]) {
    stage.service.spec_lines = lines.iter().map(|line| (*line).to_owned()).collect();
    stage.set_backends(pods);
}

/// Writes a Service and its slices as `edit` has changed them.
pub(crate) fn publish(stage: &Stage, service: &Service, edit: impl Fn(&mut Value)) {
    for mut object in service.objects().unwrap() {
        edit(&mut object);
        let kind = object["kind"].as_str().unwrap().to_lowercase();
        let name = format!("{kind}-{}", object["metadata"]["name"].as_str().unwrap());
        // JSON is YAML, too.
        let manifests = stage.cluster.manifests().unwrap();
        manifests.replace(&name, &object.to_string()).unwrap();
    }
}

/// Changes every endpoint of an object, if it is a slice; `edit` is told the pod's name.
pub(crate) fn edit_endpoints(object: &mut Value, edit: impl Fn(&str, &mut Value)) {
    if let Some(endpoints) = object["endpoints"].as_array_mut() {
        for endpoint in endpoints {
            let name = endpoint["targetRef"]["name"].as_str().unwrap().to_owned();
            edit(&name, endpoint);
        }
    }
}

/// Makes an endpoint that of a pod on its way out that still answers.
pub(crate) fn terminate(endpoint: &mut Value) {
    endpoint["conditions"] =
        serde_json::json!({"ready": false, "serving": true, "terminating": true});
}

/// The stage's Service without pods, under another name, address and number.
pub(crate) fn another(stage: &Stage, name: &str, host: u8) -> Service {
    let mut service = stage.service.clone();
    let ips = [format!("10.96.0.{host}"), format!("fd00:10:96::{host}")];
    service.name = name.to_owned();
    service.cluster_ips = ips.map(|ip| ip.parse().unwrap()).to_vec();
    for port in &mut service.ports {
        port.node_port = Some(30_000 + u16::from(host));
    }
    service.spec_lines.clear();
    service
}

/// A pod, and the node's own processes: by packets and by sockets.
pub(crate) fn callers(stage: &Stage, node: u8, pod: &Pod) -> [Pod; 4] {
    let process = stage.cluster.node(node).host_pod("process");
    let [pod_inside, process_inside] = [pod, &process].map(|it| inside(stage, node, it));
    [pod.clone(), process, pod_inside, process_inside]
}

/// Who may be seen: the client's own addresses.
pub(crate) fn itself(client: &Pod) -> impl Fn(&Pod) -> Vec<IpAddr> {
    let addresses = client.addresses().to_vec();
    move |_| addresses.clone()
}

/// Who may be seen: these.
pub(crate) fn these(addresses: &[IpAddr]) -> impl Fn(&Pod) -> Vec<IpAddr> {
    let addresses = addresses.to_vec();
    move |_| addresses.clone()
}

/// One question, from a port that has asked none before: else an earlier connection of that port to the same
/// backend is a reason to mask this one.
pub(crate) fn ask(
    from: &Pod,
    protocol: Protocol,
    to: SocketAddr,
    patience: Duration,
) -> std::io::Result<Answer> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mut own = any(to);
    // Of the ephemeral ones.
    own.set_port(33_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 27_000);
    match protocol {
        Protocol::Tcp => Ok(tcp_open_from(from.namespace(), own, to, patience)?
            .answer()
            .clone()),
        Protocol::Udp => udp_open_from(from.namespace(), own, to, patience)?.ask(b"who are you?"),
    }
}

/// All of `servers` answer and nobody else, over both protocols, and each sees one of the addresses that
/// `seen` says.
pub(crate) fn answered(
    from: &Pod,
    to: &[SocketAddr],
    servers: &[Pod],
    seen: impl Fn(&Pod) -> Vec<IpAddr>,
) -> Result<(), String> {
    for to in to {
        for protocol in PROTOCOLS {
            let what = format!("{protocol} {} -> {to}", from.name());
            let mut left: Vec<&Pod> = servers.iter().collect();
            for number in 0..AT_MOST {
                if number >= QUESTIONS && left.is_empty() {
                    break;
                }
                let answer = ask(from, protocol, *to, PATIENCE);
                let answer = answer.map_err(|error| format!("{what}: {error}"))?;
                let server = servers.iter().find(|pod| pod.name() == answer.server);
                let server = server.ok_or_else(|| format!("{what}: {} answers", answer.server))?;
                let source = answer.seen_source.ip();
                if !seen(server).contains(&source) {
                    return Err(format!("{what}: {} sees {source}", answer.server));
                }
                left.retain(|pod| *pod != server);
            }
            if let Some(pod) = left.first() {
                return Err(format!("{what}: {} never answers", pod.name()));
            }
        }
    }
    Ok(())
}

/// Nobody answers, and nobody says so, over both protocols.
pub(crate) fn silent(from: &Pod, to: &[SocketAddr]) -> Result<(), String> {
    // At once: who waits for nothing waits for long.
    std::thread::scope(|scope| {
        let questions: Vec<_> = to
            .iter()
            .flat_map(|to| PROTOCOLS.map(|protocol| (protocol, *to)))
            .map(|(protocol, to)| scope.spawn(move || unanswered(from, protocol, to)))
            .collect();
        let mut answers = questions.into_iter().map(ScopedJoinHandle::join);
        answers.try_for_each(Result::unwrap)
    })
}

fn unanswered(from: &Pod, protocol: Protocol, to: SocketAddr) -> Result<(), String> {
    let what = format!("{protocol} {} -> {to}", from.name());
    match ask(from, protocol, to, SHORT) {
        Ok(answer) => Err(format!("{what}: {} answers", answer.server)),
        Err(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(()),
            _ => Err(format!("{what}: {error}")),
        },
    }
}

/// All are refused at once, over both protocols.
pub(crate) fn refused(from: &Pod, to: &[SocketAddr]) {
    for to in to {
        for protocol in PROTOCOLS {
            expect_refused(from, protocol, *to);
        }
    }
}

/// Waits until it is so; from then on it has to stay so.
pub(crate) fn settles(what: &str, is_so: impl Fn() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(error) = is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: {error}");
    }
    is_so().unwrap_or_else(|error| panic!("{what}, after it was so: {error}"));
}
