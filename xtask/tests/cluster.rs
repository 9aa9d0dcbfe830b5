//! The cluster by itself, without a proxy: it carries packets, filters as it says, and goes away.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use xtask::api::Options;
use xtask::cluster::{
    CLIENT_V4, CLIENT_V6, Cluster, Masquerade, NodeLink, Pod, PodLink, Protocol, Shape, Uplink,
};
use xtask::process::{Identity, wait_for};
use xtask::traffic::{Server, tcp_ask, tcp_open, tcp_transfer, udp_ask};

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(200);

/// Asks over TCP and UDP and over both families; every answer must name the server and one of the
/// sources.
fn expect_answers(from: &Pod, to: &Pod, sources: [IpAddr; 2]) {
    for (address, source) in to.addresses().into_iter().zip(sources) {
        let to_port = SocketAddr::new(address, PORT);
        let tcp = tcp_ask(from.namespace(), to_port, PATIENCE).expect("TCP answers");
        let udp = udp_ask(from.namespace(), to_port, PATIENCE).expect("UDP answers");
        for answer in [tcp, udp] {
            assert_eq!(answer.server, to.name());
            assert_eq!(answer.seen_source.ip(), source);
        }
    }
}

#[test]
fn pods_of_different_nodes_reach_each_other_with_their_own_addresses() {
    let mut cluster = Cluster::create(2).unwrap();
    let (one, two) = (
        cluster.add_pod(1, "one").unwrap(),
        cluster.add_pod(2, "two").unwrap(),
    );
    let neighbour = cluster.add_pod(1, "neighbour").unwrap();
    let _servers = [&one, &two].map(|pod| Server::start(pod, PORT).unwrap());
    expect_answers(&one, &two, one.addresses());
    expect_answers(&two, &one, two.addresses());
    expect_answers(&neighbour, &one, neighbour.addresses());
    expect_answers(&one, &one, one.addresses());
    cluster.check_rules().unwrap();
    assert_eq!(cluster.invalid_drops().unwrap(), 0);
}

#[test]
fn pods_reach_each_other_in_networks_of_other_shapes() {
    let plain = Shape::default();
    let shapes = [
        Shape {
            pods: PodLink::Bridge,
            ..plain
        },
        Shape {
            pods: PodLink::FilteredBridge,
            nodes: NodeLink::Vxlan,
            masquerade: Masquerade::Both,
            ..plain
        },
        Shape {
            uplink: Uplink::Two,
            ..plain
        },
    ];
    for shape in shapes {
        let mut cluster = Cluster::shaped(2, shape).unwrap();
        let [one, neighbour, two] = [(1, "one"), (1, "neighbour"), (2, "two")]
            .map(|(node, name)| cluster.add_pod(node, name).unwrap());
        let hosts = [1, 2].map(|node| cluster.node(node).host_pod("host"));
        let _servers = [&one, &two, &hosts[1]].map(|pod| Server::start(pod, PORT).unwrap());
        expect_answers(&neighbour, &one, neighbour.addresses());
        expect_answers(&one, &two, one.addresses());
        expect_answers(&two, &one, two.addresses());
        expect_answers(&one, &hosts[1], hosts[0].addresses());
        cluster.check_rules().unwrap();
        assert_eq!(cluster.invalid_drops().unwrap(), 0, "{shape:?}");
    }
}

#[test]
fn the_external_client_reaches_nodes_and_pods_and_keeps_its_address() {
    let mut cluster = Cluster::create(1).unwrap();
    let pod = cluster.add_pod(1, "web").unwrap();
    let host = cluster.node(1).host_pod("host");
    let _servers = [&pod, &host].map(|pod| Server::start(pod, PORT).unwrap());
    let client = [IpAddr::from(CLIENT_V4), IpAddr::from(CLIENT_V6)];
    expect_answers(cluster.client(), &pod, client);
    expect_answers(cluster.client(), &host, client);
}

#[test]
fn pods_that_leave_the_cluster_are_masqueraded_as_their_node() {
    let mut cluster = Cluster::create(1).unwrap();
    let pod = cluster.add_pod(1, "web").unwrap();
    let _server = Server::start(cluster.client(), PORT).unwrap();
    expect_answers(&pod, cluster.client(), cluster.node(1).addresses());
}

#[test]
fn packets_that_conntrack_calls_invalid_are_dropped_and_counted() {
    let mut cluster = Cluster::create(2).unwrap();
    let (one, two) = (
        cluster.add_pod(1, "one").unwrap(),
        cluster.add_pod(2, "two").unwrap(),
    );
    let _server = Server::only(&two, Protocol::Tcp, PORT).unwrap();
    let to = SocketAddr::new(two.v4().into(), PORT);
    let mut open = tcp_open(one.namespace(), to, SHORT).unwrap();
    open.echo(b"still known").unwrap();
    // A packet without acknowledgement is no packet of a known connection.
    one.namespace()
        .run(|| {
            let raw = socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::RAW,
                Some(socket2::Protocol::TCP),
            )?;
            let mut segment = [0; 20];
            segment[..2].copy_from_slice(&7u16.to_be_bytes());
            segment[2..4].copy_from_slice(&PORT.to_be_bytes());
            segment[12] = 5 << 4;
            raw.send_to(&segment, &SocketAddr::new(two.v4().into(), 0).into())
        })
        .unwrap()
        .unwrap();
    assert!(wait_for(PATIENCE, || cluster.invalid_drops().unwrap() > 0));
    open.echo(b"and still").unwrap();
}

#[test]
fn large_transfers_come_back_unchanged() {
    const BYTES: usize = 10_000_000;
    let mut cluster = Cluster::create(2).unwrap();
    let (one, two) = (
        cluster.add_pod(1, "one").unwrap(),
        cluster.add_pod(2, "two").unwrap(),
    );
    let _server = Server::start(&two, PORT).unwrap();
    for address in two.addresses() {
        let to = SocketAddr::new(address, PORT);
        let transfer = tcp_transfer(one.namespace(), to, BYTES, PATIENCE).unwrap();
        assert_eq!(transfer.answer.server, "two");
        assert_eq!(transfer.bytes, BYTES);
    }
}

#[test]
fn a_stopped_server_refuses_and_its_connections_end() {
    let mut cluster = Cluster::create(1).unwrap();
    let pod = cluster.add_pod(1, "web").unwrap();
    let server = Server::start(&pod, PORT).unwrap();
    let to = SocketAddr::new(pod.v6().into(), PORT);
    let node = cluster.node(1).namespace();
    let mut open = tcp_open(node, to, PATIENCE).unwrap();
    server.stop();
    open.echo(b"anybody there?").unwrap_err();
    for error in [
        tcp_ask(node, to, PATIENCE).unwrap_err(),
        udp_ask(node, to, PATIENCE).unwrap_err(),
    ] {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn service_addresses_lead_nowhere_without_a_proxy() {
    let mut cluster = Cluster::create(1).unwrap();
    let pod = cluster.add_pod(1, "web").unwrap();
    let nobody = "10.96.0.10:80".parse().unwrap();
    tcp_ask(pod.namespace(), nobody, SHORT).unwrap_err();
}

#[test]
fn a_dropped_cluster_leaves_nothing_behind() {
    let mut cluster = Cluster::create(2).unwrap();
    cluster.add_pod(1, "web").unwrap();
    let id = cluster.id().to_owned();
    let mut sleep = Command::new("sleep");
    sleep.arg("600").stdin(Stdio::null());
    let mut child = cluster.spawn(cluster.node(1).namespace(), sleep).unwrap();
    assert!(!traces(&id).is_empty(), "the test would see leftovers");
    drop(cluster);
    assert_eq!(traces(&id), Vec::<String>::new());
    assert_eq!(Identity::of(child.id()), None);
    child.wait().unwrap();
}

/// Whatever on this machine carries the id of a cluster.
fn traces(id: &str) -> Vec<String> {
    let names = |folder: &Path| -> Vec<String> {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| {
                entry
                    .expect("folder can be read")
                    .path()
                    .display()
                    .to_string()
            })
            .collect()
    };
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    let cgroups = mounts
        .lines()
        .filter(|line| line.contains(" cgroup2 "))
        .filter_map(|line| line.split(' ').nth(1))
        .flat_map(|point| names(Path::new(point)));
    let mut found: Vec<String> = mounts.lines().map(str::to_owned).collect();
    found.extend(cgroups);
    found.extend(names(Path::new("/run/netns")));
    found.extend(names(Path::new("/run/ferrule-xtask")));
    found.retain(|trace| trace.contains(id));
    found
}

/// The body of the process that the next test kills: lays out a cluster with a process in it, says
/// so, and waits.
#[test]
#[ignore = "started by the test of killed owners"]
fn owner_to_be_killed() {
    let report = std::env::var("FERRULE_TEST_REPORT").unwrap();
    let cluster = Cluster::create(1).unwrap();
    let mut sleep = Command::new("sleep");
    sleep.arg("600").stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = cluster.spawn(cluster.node(1).namespace(), sleep).unwrap();
    std::fs::write(&report, format!("{} {}", cluster.id(), child.id())).unwrap();
    child.wait().unwrap();
}

/// A process that does not outlive the test, whatever becomes of it.
struct Owner(Child);

impl Drop for Owner {
    fn drop(&mut self) {
        // It has ended already if all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts [`owner_to_be_killed`] and returns it with the id of its cluster and its process.
fn start_owner(report: &str) -> (Owner, String, u32) {
    let report = std::env::temp_dir().join(format!("ferrule-{report}-{}", std::process::id()));
    let child = Command::new(std::env::current_exe().expect("a test is a program"))
        .args(["--exact", "owner_to_be_killed", "--ignored"])
        .env("FERRULE_TEST_REPORT", &report)
        .stdout(Stdio::null())
        .spawn()
        .map(Owner)
        .expect("the test starts itself");
    let mut text = String::new();
    assert!(wait_for(Duration::from_secs(20), || {
        text = std::fs::read_to_string(&report).unwrap_or_default();
        text.contains(' ')
    }));
    std::fs::remove_file(&report).expect("the report is there");
    let (id, pid) = text.split_once(' ').expect("id and process");
    (child, id.to_owned(), pid.parse().expect("a process id"))
}

#[test]
fn leftovers_of_a_killed_owner_are_removed_by_the_next_cluster() {
    let (mut owner, id, pid) = start_owner("killed");
    owner.0.kill().unwrap();
    owner.0.wait().unwrap();
    assert!(!traces(&id).is_empty());
    assert!(Identity::of(pid).is_some());
    let _next = Cluster::create(1).unwrap();
    assert_eq!(traces(&id), Vec::<String>::new());
    assert_eq!(Identity::of(pid), None);
}

#[test]
fn an_interrupted_owner_removes_its_cluster_and_leaves_others_alone() {
    let other = Cluster::create(1).unwrap();
    let (mut owner, id, pid) = start_owner("interrupted");
    let process = Pid::from_raw(owner.0.id().try_into().unwrap());
    kill(process, Signal::SIGINT).unwrap();
    assert_eq!(owner.0.wait().unwrap().code(), Some(130));
    assert_eq!(traces(&id), Vec::<String>::new());
    assert_eq!(Identity::of(pid), None);
    other.check_rules().unwrap();
}

#[test]
fn nodes_and_pods_reach_the_api_server_at_both_its_addresses() {
    let mut cluster = Cluster::create(1).unwrap();
    let pod = cluster.add_pod(1, "web").unwrap();
    let server = cluster.start_api(Options::plain()).unwrap();
    let places = [cluster.node(1).namespace(), pod.namespace()];
    let addresses = [IpAddr::from(CLIENT_V4), IpAddr::from(CLIENT_V6)];
    for (place, address) in places
        .into_iter()
        .flat_map(|it| addresses.map(|to| (it, to)))
    {
        let to = (address, server.address().port());
        let mut stream = place.run(|| TcpStream::connect(to)).unwrap().unwrap();
        let request = b"GET /api/v1/pods HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"podIP\":\"10.244.1.2\""), "{answer}");
    }
    assert_eq!(server.objects("Node").unwrap().len(), 1);
}
