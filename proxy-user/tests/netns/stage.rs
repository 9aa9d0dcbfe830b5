//! A cluster with agents and one service, and questions to it.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use proxy_common::Address as _;
use proxy_user::datapath::Datapath as _;
use proxy_user::datapath::kernel::Kernel;
use proxy_user::datapath::pins::Pins;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use xtask::cluster::{Agent, Cluster, Pod, Protocol, Service, ServicePort, Shape};
use xtask::traffic::{Answer, Server, tcp_ask, udp_ask};

pub(crate) const PORT: u16 = 80;
pub(crate) const NODE_PORT: u16 = 30080;
pub(crate) const TARGET: u16 = 8080;
/// What has to happen happens long before; what must not is given a shorter time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const SHORT: Duration = Duration::from_millis(500);
/// Three agents at once, each with programs to be verified, on a machine that may be emulated.
pub(crate) const START: Duration = Duration::from_secs(90);
/// A device is looked at again within this time if nothing happens to it.
pub(crate) const RELIST: Duration = Duration::from_secs(15);
pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// Small flow tables: a machine holds many of them during tests.
pub(crate) const FLOWS: [&str; 2] = ["--max-flows", "65536"];

/// The agent. A virtual machine has it elsewhere than where it was built.
pub(crate) fn binary() -> PathBuf {
    let elsewhere = std::env::var_os("CARGO_BIN_EXE_ferrule");
    elsewhere.map_or_else(|| env!("CARGO_BIN_EXE_ferrule").into(), PathBuf::from)
}

/// Three nodes; pod `shell` on the first, a pod of service `web` on each, all agents in sync.
pub(crate) struct Stage {
    pub(crate) shell: Pod,
    pub(crate) web: Vec<Pod>,
    pub(crate) service: Service,
    pub(crate) agents: Vec<Option<Agent>>,
    servers: Vec<Server>,
    extra_args: Vec<&'static str>,
    pub(crate) cluster: Cluster,
}

impl Stage {
    pub(crate) fn new(extra_args: &[&'static str]) -> Self {
        Self::shaped(Shape::default(), extra_args)
    }

    /// As [`Stage::new`], with another network.
    pub(crate) fn shaped(shape: Shape, extra_args: &[&'static str]) -> Self {
        let mut cluster = Cluster::shaped(3, shape).expect("the cluster can be laid out");
        let shell = cluster.add_pod(1, "shell").unwrap();
        let web: Vec<Pod> = (1..=3)
            .map(|node| cluster.add_pod(node, &format!("web-{node}")).unwrap())
            .collect();
        let servers = web
            .iter()
            .map(|pod| Server::start(pod, TARGET).unwrap())
            .collect();
        let service = web_service(&web);
        cluster.manifests().unwrap().write(&service).unwrap();
        let mut stage = Self {
            shell,
            web,
            service,
            agents: vec![None, None, None],
            servers,
            extra_args: with_flows(extra_args),
            cluster,
        };
        (1..=3).for_each(|node| stage.spawn_agent(node));
        (1..=3).for_each(|node| stage.wait_synced(node));
        stage
    }

    pub(crate) fn start_agent(&mut self, node: u8) {
        self.spawn_agent(node);
        self.wait_synced(node);
    }

    /// Ends the agent of a node, and starts one with other flags.
    pub(crate) fn restart_agent(&mut self, node: u8, extra_args: &[&'static str]) {
        drop(self.take_agent(node));
        self.extra_args = with_flows(extra_args);
        self.start_agent(node);
    }

    fn spawn_agent(&mut self, node: u8) {
        let place = self.cluster.node(node);
        let agent = place.start_agent(&binary(), &self.extra_args);
        self.agents[usize::from(node) - 1] = Some(agent.expect("the agent starts"));
    }

    fn wait_synced(&mut self, node: u8) {
        let agent = self.agents[usize::from(node) - 1].as_mut();
        let synced = agent.expect("the agent runs").wait_synced(START);
        synced.unwrap_or_else(|error| panic!("{error:#}"));
    }

    pub(crate) fn agent(&self, node: u8) -> &Agent {
        self.agents[usize::from(node) - 1]
            .as_ref()
            .expect("the agent runs")
    }

    pub(crate) fn take_agent(&mut self, node: u8) -> Agent {
        self.agents[usize::from(node) - 1]
            .take()
            .expect("the agent runs")
    }

    /// Another pod that serves, on one of the nodes.
    pub(crate) fn add_server(&mut self, node: u8, name: &str) -> Pod {
        let pod = self.cluster.add_pod(node, name).unwrap();
        self.serve(&pod);
        pod
    }

    pub(crate) fn serve(&mut self, pod: &Pod) {
        self.servers.push(Server::start(pod, TARGET).unwrap());
    }

    /// Puts other pods behind the service, and waits until all agents have followed.
    pub(crate) fn set_backends(&mut self, pods: &[Pod]) {
        self.service.pods = pods.to_vec();
        self.cluster
            .manifests()
            .unwrap()
            .write(&self.service)
            .unwrap();
        let wanted: BTreeSet<IpAddr> = pods.iter().flat_map(Pod::addresses).collect();
        for node in self.cluster.nodes() {
            eventually("the maps follow", || {
                backends(&node.paths().bpffs) == wanted
            });
        }
    }

    /// Whether the maps of a node have an IPv4 backend.
    pub(crate) fn has_backend(&self, node: u8, backend: SocketAddrV4) -> bool {
        let pins = Pins::new(&self.cluster.node(node).paths().bpffs);
        let dump = Kernel::open(&pins).unwrap().dump().unwrap();
        let mut rows = dump.backends_v4.iter();
        rows.any(|(_, row)| {
            row.address.ip() == *backend.ip() && row.port.number() == backend.port()
        })
    }

    /// Where the service is dialled in the cluster, over both families.
    pub(crate) fn cluster_ips(&self) -> Vec<SocketAddr> {
        self.service
            .cluster_ips
            .iter()
            .map(|ip| SocketAddr::new(*ip, PORT))
            .collect()
    }

    /// Where it is dialled from outside, on one of the nodes.
    pub(crate) fn node_ports(&self, node: u8) -> [SocketAddr; 2] {
        self.cluster
            .node(node)
            .addresses()
            .map(|ip| SocketAddr::new(ip, NODE_PORT))
    }

    /// Whether the agent of a node says that its programs are on a device.
    pub(crate) fn is_attached(&self, node: u8, device: &str) -> bool {
        let status = self.agent(node).status().unwrap();
        let devices = status["agent"]["devices"].as_array().unwrap();
        devices
            .iter()
            .any(|it| it["name"] == device && !it["attached"].is_null())
    }

    /// What the agent of a node counts under a name, among `passed` or `drops`.
    pub(crate) fn count(&self, node: u8, kind: &str, name: &str) -> u64 {
        let status = self.agent(node).status().expect("status answers");
        status["readings"][kind][name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// Nothing of ours has confused conntrack, and it was on all the time.
    pub(crate) fn assert_undisturbed(&self) {
        self.cluster.check_rules().unwrap();
        assert_eq!(
            self.cluster.invalid_drops().unwrap(),
            0,
            "packets that conntrack calls INVALID"
        );
    }
}

/// The stage's flow tables, unless others are asked for.
fn with_flows(extra_args: &[&'static str]) -> Vec<&'static str> {
    match extra_args.contains(&FLOWS[0]) {
        true => extra_args.to_vec(),
        false => [&FLOWS[..], extra_args].concat(),
    }
}

/// The addresses of all backends in a node's maps.
fn backends(bpffs: &Path) -> BTreeSet<IpAddr> {
    let dump = Kernel::open(&Pins::new(bpffs)).unwrap().dump().unwrap();
    let v4 = dump.backends_v4.iter().map(|(_, row)| row.address.ip());
    v4.chain(dump.backends_v6.iter().map(|(_, row)| row.address.ip()))
        .collect()
}

/// TCP and UDP in front of these pods.
pub(crate) fn web_service(web: &[Pod]) -> Service {
    let port = |name: &str, protocol| ServicePort {
        name: name.into(),
        protocol,
        port: PORT,
        target_port: TARGET,
        node_port: Some(NODE_PORT),
    };
    Service {
        name: "web".into(),
        cluster_ips: vec![
            "10.96.0.10".parse().unwrap(),
            "fd00:10:96::10".parse().unwrap(),
        ],
        ports: vec![port("tcp", Protocol::Tcp), port("udp", Protocol::Udp)],
        pods: web.to_vec(),
        spec_lines: Vec::new(),
    }
}

/// One question.
pub(crate) fn ask(
    from: &Pod,
    protocol: Protocol,
    to: SocketAddr,
    patience: Duration,
) -> std::io::Result<Answer> {
    match protocol {
        Protocol::Tcp => tcp_ask(from.namespace(), to, patience),
        Protocol::Udp => udp_ask(from.namespace(), to, patience),
    }
}

/// So many questions at least, so that somebody who must not answer would have.
const QUESTIONS: u32 = 20;

/// Asks until every one of `servers` has answered; nobody else may. Each must see the source that
/// `source` says of it.
pub(crate) fn expect_all(
    from: &Pod,
    protocol: Protocol,
    to: SocketAddr,
    servers: &[Pod],
    source: impl Fn(&Pod) -> IpAddr,
) {
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    // With three servers one is missed by 40 questions once in ten million runs.
    for number in 0..40 {
        if number >= QUESTIONS && answers.len() == servers.len() {
            break;
        }
        let answer = ask(from, protocol, to, PATIENCE)
            .unwrap_or_else(|error| panic!("{protocol} {} -> {to}: {error}", from.name()));
        let server = servers.iter().find(|pod| pod.name() == answer.server);
        let server = server.unwrap_or_else(|| panic!("{to}: {} must not answer", answer.server));
        assert_eq!(
            answer.seen_source.ip(),
            source(server),
            "{protocol} {to}: what {} sees",
            answer.server
        );
        *answers.entry(answer.server).or_default() += 1;
    }
    assert_eq!(answers.len(), servers.len(), "{protocol} {to}: {answers:?}");
}

/// Clients inside and outside, cluster addresses and node ports, both protocols and families.
pub(crate) fn expect_service(stage: &Stage) {
    let (web, shell, client) = (&stage.web, &stage.shell, stage.cluster.client());
    for protocol in PROTOCOLS {
        for to in stage.cluster_ips() {
            expect_all(shell, protocol, to, web, |_| family(shell.addresses(), to));
        }
        for node in 1..=3 {
            let here = stage.cluster.node(node);
            for to in stage.node_ports(node) {
                // A backend on the node that was dialled sees the client, the others see the node.
                expect_all(client, protocol, to, web, |server| {
                    let is_here = server.node() == Some(&here.name());
                    family(
                        if is_here {
                            client.addresses()
                        } else {
                            here.addresses()
                        },
                        to,
                    )
                });
            }
        }
    }
}

/// Of the same family as `like`.
pub(crate) fn family(addresses: [IpAddr; 2], like: SocketAddr) -> IpAddr {
    addresses[usize::from(like.is_ipv6())]
}

/// Tries until it is so, for ten seconds.
pub(crate) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    within(PATIENCE, what, is_so);
}

/// Tries until it is so.
pub(crate) fn within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "not so after {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
