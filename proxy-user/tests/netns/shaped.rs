//! A cluster of some shape, with a service for each place where a backend can be.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::cells::{Cell, PLACES, Place, Source, Way, cells};
use crate::stage::{FLOWS, PATIENCE, START, TARGET, ask, binary};
use std::net::{IpAddr, SocketAddr};
use xtask::cluster::{Agent, Cluster, Node, Pod, Protocol, Service, ServicePort, Shape, Tracked};
use xtask::traffic::{Answer, Server, pattern, tcp_transfer, udp_open};

const PORT: u16 = 80;
/// Bytes that go there and come back over each TCP connection; elsewhere named by a variable.
const TRANSFER: usize = 10 << 20;
/// Sizes of datagrams: with its headers and the server's greeting the largest fits into a tunnel.
const SIZES: usize = 64;
const LARGEST: usize = 1300;

/// Two nodes with agents. What is asked goes through the first.
pub(crate) struct Shaped {
    pub(crate) shape: Shape,
    lane: Lane,
    pub(crate) shell: Pod,
    _agents: Vec<Agent>,
    backends: Vec<Pod>,
    _servers: Vec<Server>,
    pub(crate) cluster: Cluster,
}

/// Which way packets are to go through nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Through their stacks.
    Stack,
    /// Past them, wherever that can be.
    Fast,
}

impl Shaped {
    pub(crate) fn new(shape: Shape) -> Self {
        Self::by(Lane::Stack, shape)
    }

    pub(crate) fn by(lane: Lane, shape: Shape) -> Self {
        let mut cluster = Cluster::shaped(2, shape).expect("the cluster can be laid out");
        let shell = cluster.add_pod(1, "shell").unwrap();
        let backends = PLACES.map(|place| backend(&mut cluster, place)).to_vec();
        let servers = backends
            .iter()
            .map(|pod| Server::start(pod, TARGET).unwrap())
            .collect();
        let manifests = cluster.manifests().unwrap();
        for (number, pod) in backends.iter().enumerate() {
            manifests.write(&service(number, pod)).unwrap();
        }
        cluster.nodes().iter().for_each(watch);
        let agents = cluster.nodes().iter().map(|node| {
            let lane: &[&str] = match lane {
                Lane::Stack => &[],
                Lane::Fast => &["--fast-lane", "*"],
            };
            let agent = node.start_agent(&binary(), &[&FLOWS, lane].concat());
            agent.expect("the agent starts")
        });
        let mut agents: Vec<Agent> = agents.collect();
        for agent in &mut agents {
            let synced = agent.wait_synced(START);
            synced.unwrap_or_else(|error| panic!("{error:#}"));
        }
        Self {
            shape,
            lane,
            shell,
            _agents: agents,
            backends,
            _servers: servers,
            cluster,
        }
    }

    /// Asks in all cells, and tells all that is not as it should be.
    pub(crate) fn expect_matrix(&self) {
        let wrong = cells(self.shape).filter_map(|cell| {
            let outcome = self.expect_cell(cell);
            outcome.err().map(|why| format!("{cell:?}: {why}\n"))
        });
        let wrong: Vec<String> = wrong.chain(self.disturbed().err()).collect();
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.concat());
    }

    /// Lets the service of a place be dialled at another port of its cluster addresses.
    pub(crate) fn set_port(&self, place: Place, port: u16) {
        let mut service = service(number(place), self.backend(place));
        service.ports.iter_mut().for_each(|it| it.port = port);
        self.cluster.manifests().unwrap().write(&service).unwrap();
    }

    /// The backend in a place.
    pub(crate) fn backend(&self, place: Place) -> &Pod {
        &self.backends[number(place)]
    }

    /// Who asks.
    pub(crate) fn client(&self, way: Way, place: Place) -> &Pod {
        match (way, place) {
            (_, Place::Hairpin) => self.backend(place),
            (Way::ClusterIp | Way::OwnNodePort, _) => &self.shell,
            (Way::NodePort, _) => self.cluster.client(),
        }
    }

    /// What is dialled.
    pub(crate) fn frontend(&self, way: Way, place: Place, is_v6: bool) -> SocketAddr {
        let number = number(place);
        match way {
            Way::ClusterIp => SocketAddr::new(cluster_ips(number)[usize::from(is_v6)], PORT),
            Way::NodePort | Way::OwnNodePort => {
                let node = self.cluster.node(1).addresses();
                SocketAddr::new(node[usize::from(is_v6)], node_port(number))
            }
        }
    }

    fn expect_cell(&self, cell: Cell) -> Result<(), String> {
        let client = self.client(cell.way, cell.place);
        let to = self.frontend(cell.way, cell.place, cell.is_v6);
        if self.lane == Lane::Fast {
            // Neighbours are known then.
            ask(client, cell.protocol, to, PATIENCE).map_err(|error| error.to_string())?;
        }
        let earlier = [1, 2].map(|number| self.cluster.node(number).tracked().unwrap());
        let answer = transfer(client, cell.protocol, to).map_err(|error| error.to_string())?;
        let server = self.backend(cell.place);
        if answer.server != server.name() {
            return Err(format!("{} answers", answer.server));
        }
        self.expect_source(cell, &answer)?;
        self.expect_tracked(cell, &answer, &earlier)
    }

    fn expect_source(&self, cell: Cell, answer: &Answer) -> Result<(), String> {
        let node = self.cluster.node(1);
        let is_right = match cell.source(self.shape) {
            Source::Client => answer.seen_source == answer.local_addr,
            Source::Masked(exit) | Source::Plugin(exit) => exit
                .addresses(node, cell.is_v6)
                .contains(&answer.seen_source.ip()),
        };
        let seen = answer.seen_source;
        match is_right {
            true => Ok(()),
            false => Err(format!("sees {seen}, not {:?}", cell.source(self.shape))),
        }
    }

    /// Netfilter has to see client and backend on both ways, and nothing of the service.
    fn expect_tracked(
        &self,
        cell: Cell,
        answer: &Answer,
        earlier: &[Vec<Tracked>; 2],
    ) -> Result<(), String> {
        let address = self.backend(cell.place).addresses()[usize::from(cell.is_v6)];
        let backend = SocketAddr::new(address, TARGET);
        let (client, seen) = (answer.local_addr, answer.seen_source);
        let answered = match cell.source(self.shape) {
            Source::Client | Source::Masked(_) => client,
            Source::Plugin(_) => seen,
        };
        let wanted = |from, to| Tracked {
            protocol: cell.protocol,
            original: (from, backend),
            reply: (backend, to),
            is_answered: true,
        };
        let here = self.cluster.node(1);
        if self.lane == Lane::Fast && cell.may_be_fast(self.shape) {
            expect_no_entry(here, cell.protocol, client, &earlier[0])?;
        } else {
            expect_entry(here, wanted(client, answered), &earlier[0])?;
        }
        match cell.place {
            Place::Local | Place::Host | Place::Hairpin => Ok(()),
            Place::Remote | Place::RemoteHost => {
                expect_entry(self.cluster.node(2), wanted(seen, seen), &earlier[1])
            }
        }
    }

    /// Nothing was INVALID, nothing is left without an answer, no address of a service was seen.
    pub(crate) fn disturbed(&self) -> Result<(), String> {
        self.cluster
            .check_rules()
            .map_err(|error| error.to_string())?;
        for node in self.cluster.nodes() {
            let invalid = counted(node) + node.invalid_drops().unwrap();
            if invalid > 0 {
                return Err(format!("{}: {invalid} packets were INVALID", node.name()));
            }
            for tracked in node.tracked().unwrap() {
                let (_, to) = tracked.original;
                let is_frontend = to.port() == PORT || is_node_port(to.port());
                if is_frontend || (to.port() == TARGET && !tracked.is_answered) {
                    return Err(format!("{} tracks {tracked:?}", node.name()));
                }
            }
        }
        Ok(())
    }
}

/// Datagrams or a stream.
pub(crate) fn transfer(from: &Pod, protocol: Protocol, to: SocketAddr) -> std::io::Result<Answer> {
    match protocol {
        Protocol::Tcp => {
            let bytes =
                std::env::var("FERRULE_TRANSFER").map_or(TRANSFER, |it| it.parse().unwrap());
            Ok(tcp_transfer(from.namespace(), to, bytes, PATIENCE)?.answer)
        }
        Protocol::Udp => {
            let size = |number| 1 + number * (LARGEST - 1) / (SIZES - 1);
            let sizes: Vec<usize> = (0..SIZES).map(size).collect();
            let socket = udp_open(from.namespace(), to, PATIENCE)?;
            let mut answers = Vec::new();
            for size in sizes {
                answers.push(socket.ask(&pattern(size))?);
            }
            let last = answers.remove(SIZES - 1);
            let is_one = answers
                .iter()
                .all(|it| (&it.server, it.seen_source) == (&last.server, last.seen_source));
            assert!(is_one, "one flow, one backend: {answers:?}");
            Ok(last)
        }
    }
}

/// Of what a client's port has led to since `earlier`, there is what is wanted and nothing else. The
/// client's kernel may have used the same port towards another destination before.
fn expect_entry(node: &Node, wanted: Tracked, earlier: &[Tracked]) -> Result<(), String> {
    let entries = node.tracked().unwrap();
    let is_clients =
        |it: &&Tracked| it.protocol == wanted.protocol && it.original.0 == wanted.original.0;
    let is_new = |it: &&Tracked| **it == wanted || !earlier.contains(it);
    let entries = entries.iter().filter(is_clients).filter(is_new);
    let entries: Vec<&Tracked> = entries.collect();
    match entries[..] {
        [entry] if *entry == wanted => Ok(()),
        _ => Err(format!(
            "{} tracks {entries:?}, not {wanted:?}",
            node.name()
        )),
    }
}

/// Nothing of what a client's port has led to since `earlier` has been seen.
fn expect_no_entry(
    node: &Node,
    protocol: Protocol,
    client: SocketAddr,
    earlier: &[Tracked],
) -> Result<(), String> {
    let mut entries = node.tracked().unwrap().into_iter();
    let seen = entries
        .find(|it| it.protocol == protocol && it.original.0 == client && !earlier.contains(it));
    match seen {
        Some(entry) => Err(format!("{} tracks {entry:?}", node.name())),
        None => Ok(()),
    }
}

fn backend(cluster: &mut Cluster, place: Place) -> Pod {
    match place {
        Place::Local => cluster.add_pod(1, "local").unwrap(),
        Place::Remote => cluster.add_pod(2, "remote").unwrap(),
        Place::Host => cluster.node(1).host_pod("host"),
        Place::RemoteHost => cluster.node(2).host_pod("remote-host"),
        Place::Hairpin => cluster.add_pod(1, "hairpin").unwrap(),
    }
}

fn service(number: usize, pod: &Pod) -> Service {
    let port = |name: &str, protocol| ServicePort {
        name: name.into(),
        protocol,
        port: PORT,
        target_port: TARGET,
        node_port: Some(node_port(number)),
    };
    Service {
        name: pod.name().into(),
        cluster_ips: cluster_ips(number).to_vec(),
        ports: vec![port("tcp", Protocol::Tcp), port("udp", Protocol::Udp)],
        pods: vec![pod.clone()],
        spec_lines: Vec::new(),
    }
}

fn number(place: Place) -> usize {
    PLACES.iter().position(|it| *it == place).unwrap()
}

fn cluster_ips(number: usize) -> [IpAddr; 2] {
    let host = 20 + number;
    [format!("10.96.0.{host}"), format!("fd00:10:96::{host}")].map(|text| text.parse().unwrap())
}

fn node_port(number: usize) -> u16 {
    30_100 + u16::try_from(number).unwrap()
}

fn is_node_port(port: u16) -> bool {
    (30_000..32_768).contains(&port)
}

/// Counts what conntrack calls INVALID, also what the node's own rules do not see: they look at
/// forwarded packets only. A redirect quotes a packet that netfilter has translated, and is none of
/// what conntrack follows.
fn watch(node: &Node) {
    let table = "table inet watch {
        counter invalid { }
        chain before {
            type filter hook prerouting priority mangle;
            ct state invalid counter name invalid
        }
        chain own {
            type filter hook output priority mangle;
            icmp type redirect accept
            icmpv6 type nd-redirect accept
            ct state invalid counter name invalid
        }
    }";
    node.namespace().command("nft", &[table]).unwrap();
}

fn counted(node: &Node) -> u64 {
    let list = ["list", "counter", "inet", "watch", "invalid"];
    let text = node.namespace().command("nft", &list).unwrap();
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}
