//! The connections of the demo, and what has to be true of their answers.

use super::stage::{CLUSTER_IPS, NODE_PORT, PORT, Stage};
use crate::cluster::{Pod, Protocol};
use crate::traffic::{Answer, tcp_ask, udp_ask};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
/// Columns of the longest bar.
const BAR: usize = 24;

/// Answers to one kind of question.
#[derive(Debug)]
pub(super) struct Asked {
    protocol: Protocol,
    /// Who asks, and the Service's kind of address.
    title: String,
    to: SocketAddr,
    client: Pod,
    answers: Vec<Answer>,
}

/// Asks over TCP and UDP, over IPv4 and IPv6: a pod the ClusterIP, the external client a NodePort.
pub(super) fn ask_all(stage: &Stage, count: u32) -> Result<Vec<Asked>> {
    let (shell, client) = (&stage.shell, stage.cluster.client());
    let node = stage.cluster.node(1);
    let mut outcomes = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for address in CLUSTER_IPS {
            let title = format!("pod {} -> ClusterIP", shell.name());
            let to = SocketAddr::new(address, PORT);
            outcomes.push(ask(protocol, title, shell, to, count)?);
        }
        for address in node.addresses() {
            let title = format!("external client -> NodePort of {}", node.name());
            let to = SocketAddr::new(address, NODE_PORT);
            outcomes.push(ask(protocol, title, client, to, count)?);
        }
    }
    Ok(outcomes)
}

fn ask(
    protocol: Protocol,
    title: String,
    client: &Pod,
    to: SocketAddr,
    count: u32,
) -> Result<Asked> {
    let question = match protocol {
        Protocol::Tcp => tcp_ask,
        Protocol::Udp => udp_ask,
    };
    let answers = (1..=count).map(|number| {
        question(client.namespace(), to, PATIENCE)
            .with_context(|| format!("{protocol}, {title} {to}: connection {number} failed"))
    });
    Ok(Asked {
        protocol,
        answers: answers.collect::<Result<Vec<Answer>>>()?,
        title,
        to,
        client: client.clone(),
    })
}

impl Asked {
    /// What is not as it has to be, one line each.
    pub(super) fn wrong(&self, stage: &Stage) -> Vec<String> {
        let mut wrong = Vec::new();
        for pod in &stage.backends {
            let sources = self.sources(pod.name());
            let expected = self.expected_source(pod, stage);
            if sources.is_empty() {
                wrong.push(format!("{}: {} got nothing", self.name(), pod.name()));
            } else if sources != BTreeSet::from([expected]) {
                let name = (self.name(), pod.name());
                wrong.push(format!(
                    "{}: {} saw {sources:?}, not {expected}",
                    name.0, name.1
                ));
            }
        }
        let known: BTreeSet<&str> = stage.backends.iter().map(Pod::name).collect();
        let strangers = self.answers.iter().map(|answer| answer.server.as_str());
        let strangers: BTreeSet<&str> = strangers.filter(|name| !known.contains(name)).collect();
        wrong.extend(
            strangers
                .iter()
                .map(|name| format!("{}: {name} answered", self.name())),
        );
        wrong
    }

    /// Pods keep their address. So do external clients, unless the pod is on another node than the
    /// one they asked: its answer has to come back through that node.
    fn expected_source(&self, backend: &Pod, stage: &Stage) -> IpAddr {
        let asked = stage.cluster.node(1);
        let family = usize::from(self.to.is_ipv6());
        let is_external = self.client.node().is_none();
        if is_external && backend.node() != Some(&asked.name()) {
            asked.addresses()[family]
        } else {
            self.client.addresses()[family]
        }
    }

    fn name(&self) -> String {
        format!("{}, {} {}", self.protocol, self.title, self.to)
    }

    fn sources(&self, server: &str) -> BTreeSet<IpAddr> {
        let answers = self.answers.iter().filter(|answer| answer.server == server);
        answers.map(|answer| answer.seen_source.ip()).collect()
    }

    fn median(&self) -> Duration {
        let mut times: Vec<Duration> = self.answers.iter().map(|answer| answer.elapsed).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// Shares, sources and times as a table.
pub(super) fn report(outcomes: &[Asked]) -> String {
    let mut text = String::new();
    for asked in outcomes {
        let _ = writeln!(text, "{} {}  {}", asked.protocol, asked.to, asked.title);
        let total = asked.answers.len();
        let median = asked.median().as_secs_f64() * 1e3;
        let _ = writeln!(
            text,
            "    {total} of {total} answered, median {median:.2} ms"
        );
        let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
        for answer in &asked.answers {
            *shares.entry(&answer.server).or_default() += 1;
        }
        for (server, share) in shares {
            let sources: Vec<String> = asked
                .sources(server)
                .iter()
                .map(ToString::to_string)
                .collect();
            let bar = "#".repeat((share * BAR).div_ceil(total));
            let _ = writeln!(
                text,
                "    {server:<6} {share:>5} {bar:<BAR$} saw {}",
                sources.join(", ")
            );
        }
    }
    text
}
