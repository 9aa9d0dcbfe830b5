//! Ring 4: real connections through real programs, in a cluster made of network namespaces.

#[path = "netns/foreign.rs"]
mod foreign;
#[path = "netns/installed.rs"]
mod installed;
#[path = "netns/ports.rs"]
mod ports;
#[path = "netns/stage.rs"]
mod stage;
#[path = "netns/upkeep.rs"]
mod upkeep;

use foreign::Foreign;
use installed::{links, programs_attached, qdiscs};
use ports::tcp_ask_from;
use proxy_user::datapath::leftovers::find;
use proxy_user::datapath::pins::Pins;
use stage::{PATIENCE, SHORT, Stage, ask, binary, eventually, expect_all, family};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use xtask::cluster::{Node, Pod, Protocol};
use xtask::traffic::{tcp_open, tcp_transfer, udp_ask};

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Clients inside and outside, cluster addresses and node ports, both protocols and families.
fn expect_service(stage: &Stage) {
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

#[test]
fn a_service_is_reached_from_pods_and_from_outside() {
    let stage = Stage::new(&[]);
    expect_service(&stage);
    for to in stage.cluster_ips().into_iter().chain(stage.node_ports(2)) {
        let from = if to.port() == stage::PORT {
            &stage.shell
        } else {
            stage.cluster.client()
        };
        let transfer = tcp_transfer(from.namespace(), to, 10 << 20, PATIENCE);
        assert_eq!(transfer.expect("10 MB come back whole").bytes, 10 << 20);
    }
    stage.assert_undisturbed();
}

#[test]
fn direct_connections_follow_those_through_a_service_from_the_same_port() {
    let stage = Stage::new(&[]);
    for port in 20_000..20_006 {
        for to in stage.cluster_ips() {
            tcp_ask_from(&stage.shell, port, to, PATIENCE).expect("the service answers");
            for pod in &stage.web {
                let direct = SocketAddr::new(family(pod.addresses(), to), stage::TARGET);
                // The pod takes a moment to be done with the connection that came through the service.
                eventually("the pod answers directly", || {
                    let answer = tcp_ask_from(&stage.shell, port, direct, SHORT);
                    answer.is_ok_and(|answer| answer == pod.name())
                });
            }
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn checksums_hold_where_no_device_completes_them() {
    let stage = Stage::new(&[]);
    let nodes = stage.cluster.nodes().iter().map(Node::namespace);
    let pods = stage
        .web
        .iter()
        .chain([&stage.shell, stage.cluster.client()]);
    for place in nodes.chain(pods.map(Pod::namespace)) {
        place
            .command("ethtool", &["-K", "eth0", "tx", "off"])
            .unwrap();
    }
    expect_service(&stage);
    for to in stage.cluster_ips().into_iter().chain(stage.node_ports(2)) {
        let inside = to.port() == stage::PORT;
        let from = if inside {
            &stage.shell
        } else {
            stage.cluster.client()
        };
        let transfer = tcp_transfer(from.namespace(), to, 1 << 20, PATIENCE);
        assert_eq!(transfer.expect("1 MB comes back whole").bytes, 1 << 20);
    }
}

#[test]
fn a_service_is_reached_with_filters_instead_of_links() {
    let mut stage = Stage::new(&["--attach", "clsact"]);
    expect_service(&stage);
    // The next agent finds the filters and replaces them.
    stage.take_agent(1).kill().unwrap();
    stage.start_agent(1);
    let filters = stage
        .cluster
        .node(1)
        .namespace()
        .command("tc", &["filter", "show", "dev", "eth0", "ingress"]);
    let filters = filters.unwrap();
    assert_eq!(filters.matches("handle").count(), 1, "{filters}");
    expect_service(&stage);
    stage.assert_undisturbed();
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let mut stage = Stage::new(&[]);
    let itself = stage.web[0].clone();
    stage.set_backends(std::slice::from_ref(&itself));
    let node = stage.cluster.node(1).addresses();
    for protocol in PROTOCOLS {
        for to in stage.cluster_ips() {
            expect_all(&itself, protocol, to, std::slice::from_ref(&itself), |_| {
                family(node, to)
            });
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn pods_in_the_hosts_network_answer_too() {
    let mut stage = Stage::new(&[]);
    let hosts: Vec<Pod> = [1, 2]
        .map(|node| stage.cluster.node(node).host_pod(&format!("host-{node}")))
        .to_vec();
    hosts.iter().for_each(|host| stage.serve(host));
    stage.set_backends(&hosts);
    let (client, node) = (stage.cluster.client(), stage.cluster.node(1));
    for protocol in PROTOCOLS {
        for to in stage.node_ports(1) {
            expect_all(client, protocol, to, &hosts, |server| {
                let is_here = server.node() == Some(&node.name());
                family(
                    if is_here {
                        client.addresses()
                    } else {
                        node.addresses()
                    },
                    to,
                )
            });
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn traffic_goes_on_when_the_agent_is_killed_and_the_next_one_adopts_it() {
    let mut stage = Stage::new(&[]);
    let before = links(&stage, 1);
    assert!(!before.is_empty(), "links are pinned");
    let [v4, v6] = [0, 1].map(|index| stage.cluster_ips()[index]);
    let mut open: Vec<_> = [v4, v6]
        .map(|to| tcp_open(stage.shell.namespace(), to, PATIENCE).expect("a connection opens"))
        .into();
    stage.take_agent(1).kill().unwrap();
    open.iter_mut()
        .for_each(|connection| assert!(connection.echo(b"killed").is_ok(), "it goes on"));
    expect_all(&stage.shell, Protocol::Tcp, v4, &stage.web, |_| {
        stage.shell.v4().into()
    });

    stage.start_agent(1);
    open.iter_mut()
        .for_each(|connection| assert!(connection.echo(b"adopted").is_ok(), "it goes on"));
    assert_eq!(links(&stage, 1), before, "the same links as before");
    expect_service(&stage);
    let left = stage.web[1..].to_vec();
    stage.set_backends(&left);
    stage.assert_undisturbed();
}

#[test]
fn endpoints_come_and_go() {
    let mut stage = Stage::new(&[]);
    let to = stage.cluster_ips()[0];
    let source = |client: &Pod| IpAddr::from(client.v4());
    let (shell, web) = (stage.shell.clone(), stage.web.clone());
    let expect = |servers: &[Pod]| {
        expect_all(&shell, Protocol::Tcp, to, servers, |_| source(&shell));
    };
    stage.set_backends(&web[2..]);
    expect(&web[2..]);

    let new = stage.add_server(1, "web-new");
    let two = [web[2].clone(), new.clone()];
    stage.set_backends(&two);
    expect(&two);
    eventually("the new pod's device is attached", || {
        ask(&new, Protocol::Tcp, to, SHORT).is_ok_and(|answer| answer.server == "web-3")
    });

    stage.set_backends(&[]);
    assert!(ask(&shell, Protocol::Tcp, to, SHORT).is_err());
    assert!(stage.count(1, "drops", "no-backend") > 0);
    stage.set_backends(&web);
    expect(&web);

    let manifests = stage.cluster.manifests().unwrap();
    manifests.remove(&stage.service).unwrap();
    eventually("the service is gone", || {
        stage.agent(1).status().unwrap()["agent"]["sync"]["frontends"]["v4"] == 0
    });
    assert!(ask(&shell, Protocol::Tcp, to, SHORT).is_err());
}

#[test]
fn a_datagram_socket_moves_on_when_its_backend_goes() {
    let mut stage = Stage::new(&[]);
    for to in stage.cluster_ips() {
        stage.set_backends(&[stage.web[1].clone()]);
        let socket = stage.shell.namespace().run(|| {
            let any: IpAddr = if to.is_ipv4() {
                [0, 0, 0, 0].into()
            } else {
                [0u16; 8].into()
            };
            std::net::UdpSocket::bind((any, 0)).unwrap()
        });
        let socket = socket.unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(SHORT)).unwrap();
        let who = || {
            socket.send(b"who?").ok()?;
            let mut answer = [0; 256];
            let length = socket.recv(&mut answer).ok()?;
            let text = String::from_utf8_lossy(&answer[..length]);
            text.split(' ').next().map(str::to_owned)
        };
        assert_eq!(who().as_deref(), Some("web-2"));
        stage.set_backends(&[stage.web[2].clone()]);
        assert_eq!(who().as_deref(), Some("web-3"), "the same socket");
    }
}

#[test]
fn other_programs_on_the_device_see_every_packet() {
    const QUESTIONS: u64 = 100;
    for method in ["tcx", "clsact"] {
        let stage = Stage::new(&["--attach", method]);
        let node = stage.cluster.node(1);
        let folder = |name: &str| node.paths().bpffs.join(name);
        let mut link = Foreign::load(&folder("link"));
        link.attach_links(node.namespace(), "eth0");
        let mut filter = Foreign::load(&folder("filter"));
        filter.attach_filters(node.namespace(), "eth0", 7);
        let before = stage.count(1, "passed", "established");
        for _ in 0..QUESTIONS {
            let to = stage.node_ports(1)[0];
            udp_ask(stage.cluster.client().namespace(), to, PATIENCE).unwrap();
        }
        let ours = stage.count(1, "passed", "established") - before;
        assert!(
            ours >= QUESTIONS,
            "{method}: {ours} packets were translated"
        );
        // Each question and each answer passes the uplink once at least.
        let (link, filter) = (link.seen(), filter.seen());
        assert!(
            link >= 2 * QUESTIONS,
            "{method}: the other link saw {link} packets"
        );
        assert!(
            filter >= 2 * QUESTIONS,
            "{method}: the other filter saw {filter} packets"
        );
        stage.assert_undisturbed();
    }
}

#[test]
fn cleanup_leaves_nothing_behind() {
    for method in ["tcx", "clsact"] {
        let mut stage = Stage::new(&["--attach", method]);
        let node = stage.cluster.node(1);
        let (place, paths) = (node.namespace().clone(), node.paths().clone());
        assert!(qdiscs(&place).contains("clsact") == (method == "clsact"));
        let places = [
            "--bpffs".to_owned(),
            paths.bpffs.display().to_string(),
            "--run-dir".to_owned(),
            paths.run_dir.display().to_string(),
        ];
        let cleanup = |extra: &[&str]| {
            let arguments = ["cleanup"].iter().chain(extra).copied();
            let arguments: Vec<&str> = arguments.chain(places.iter().map(String::as_str)).collect();
            place.command(&binary().to_string_lossy(), &arguments).unwrap()
        };
        let dry = cleanup(&["--dry-run"]);
        assert!(dry.contains("would remove"), "{dry}");
        assert!(
            ask(
                &stage.shell,
                Protocol::Tcp,
                stage.cluster_ips()[0],
                PATIENCE
            )
            .is_ok()
        );
        // With the agent of this node running it is stopped first.
        assert!(cleanup(&[]).contains("stopped the agent"));
        drop(stage.take_agent(1));
        assert_eq!(cleanup(&[]), "nothing to remove\n");
        assert!(!paths.bpffs.join("ferrule").exists(), "nothing is pinned");
        assert!(!paths.run_dir.exists(), "the run folder is gone");
        std::fs::create_dir(&paths.run_dir).unwrap();
        std::fs::write(paths.run_dir.join("foreign"), "").unwrap();
        assert!(!cleanup(&[]).contains("foreign"), "files of others stay");
        assert!(
            paths.run_dir.join("foreign").exists(),
            "files of others stay"
        );
        assert!(!qdiscs(&place).contains("clsact"));
        assert!(!programs_attached(&place), "no program is left on a device");
        assert!(ask(&stage.shell, Protocol::Tcp, stage.cluster_ips()[0], SHORT).is_err());
    }
}

#[test]
fn cleanup_leaves_a_qdisc_that_others_use() {
    let mut stage = Stage::new(&["--attach", "clsact"]);
    let node = stage.cluster.node(1);
    let (place, paths) = (node.namespace().clone(), node.paths().clone());
    let mut foreign = Foreign::load(&paths.bpffs.join("foreign"));
    foreign.attach_filters(&place, "eth0", 7);
    stage.take_agent(1).stop().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let pins = Pins::new(&paths.bpffs);
    let found = place
        .run(|| runtime.block_on(find(&pins, &paths.run_dir)).unwrap())
        .unwrap();
    assert!(
        !found
            .iter()
            .any(|leftover| leftover.to_string().contains("qdisc of eth0")),
        "{found:?}"
    );
    place
        .run(|| {
            found
                .iter()
                .for_each(|leftover| runtime.block_on(leftover.remove()).unwrap());
        })
        .unwrap();
    let filters = place
        .command("tc", &["filter", "show", "dev", "eth0", "ingress"])
        .unwrap();
    assert!(
        filters.contains("pref 7") && !filters.contains("pref 1 "),
        "{filters}"
    );
}

#[test]
fn status_tells_what_is_there_with_and_without_an_agent() {
    let mut stage = Stage::new(&[]);
    stage
        .cluster
        .manifests()
        .unwrap()
        .replace("broken", "kind: Service\nspec: [")
        .unwrap();
    let ports = "apiVersion: v1\nkind: Service\nmetadata: {name: odd, namespace: default}\n\
                 spec: {clusterIP: 10.96.0.99, ports: [{port: 70000}, {name: good, port: 80}]}\n";
    stage
        .cluster
        .manifests()
        .unwrap()
        .replace("odd", ports)
        .unwrap();
    eventually("the problems are told", || {
        let status = stage.agent(1).status().unwrap();
        let skipped = status["agent"]["sync"]["skipped"].to_string();
        let problems = status["agent"]["sync"]["problems"].to_string();
        skipped.contains("default/odd")
            && skipped.contains("spec.ports[0].port")
            && problems.contains("broken.yaml")
    });
    expect_service(&stage);
    let status = stage.agent(1).status().unwrap();
    let devices = status["agent"]["devices"].as_array().unwrap();
    let of = |name: &str| {
        devices
            .iter()
            .find(|device| device["name"] == name)
            .unwrap()
    };
    assert_eq!(of("eth0")["attached"], "tcx");
    assert_eq!(of("lo")["why_not"], "loopback");
    let socket = stage.cluster.node(1).paths().run_dir.join("ferrule.sock");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(socket).unwrap());
    assert_eq!(mode & 0o777, 0o600);

    let node = stage.cluster.node(1);
    let (place, paths) = (node.namespace().clone(), node.paths().clone());
    stage.take_agent(1).kill().unwrap();
    let mut command = Command::new(binary());
    command
        .arg("status")
        .arg("--bpffs")
        .arg(&paths.bpffs)
        .arg("--run-dir")
        .arg(&paths.run_dir);
    let output = place.run(|| command.output().unwrap()).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("not running") && text.contains("FLOWS_V4"),
        "{text}"
    );
}

#[test]
fn two_agents_on_one_node_are_one_too_many() {
    let stage = Stage::new(&[]);
    let node = stage.cluster.node(1);
    // Kept if it has not ended yet.
    let _second = node.start_agent(&binary(), &[]);
    eventually("the second one gives up", || {
        let log = std::fs::read_to_string(&node.paths().log).unwrap();
        log.contains("another agent holds")
    });
    expect_service(&stage);
}

#[test]
fn maps_of_another_size_are_replaced_without_losing_the_service() {
    let mut stage = Stage::new(&[]);
    stage.take_agent(1).kill().unwrap();
    // The default is another size than the stage's.
    let mut agent = stage
        .cluster
        .node(1)
        .start_agent(&binary(), &[])
        .unwrap();
    agent.wait_synced(PATIENCE).unwrap();
    assert!(
        agent.log().contains("FLOWS_V4 of an earlier version"),
        "{}",
        agent.log()
    );
    stage.agents[0] = Some(agent);
    expect_service(&stage);
}

#[test]
fn the_other_way_of_attaching_takes_the_place_of_the_first() {
    let mut stage = Stage::new(&[]);
    for method in ["clsact", "tcx"] {
        stage.take_agent(1).kill().unwrap();
        let node = stage.cluster.node(1);
        let mut agent = node
            .start_agent(&binary(), &["--attach", method])
            .unwrap();
        agent.wait_synced(PATIENCE).unwrap();
        let filters = ["filter", "show", "dev", "eth0", "ingress"];
        let filters = node.namespace().command("tc", &filters).unwrap();
        assert_eq!(filters.contains("handle"), method == "clsact", "{filters}");
        assert_eq!(programs_attached(node.namespace()), method == "tcx");
        stage.agents[0] = Some(agent);
        expect_service(&stage);
    }
}

#[test]
fn decisions_are_logged_if_that_is_wanted() {
    let stage = Stage::new(&["--log-decisions"]);
    let to = stage.cluster_ips();
    for to in &to {
        ask(&stage.shell, Protocol::Tcp, *to, PATIENCE).unwrap();
    }
    eventually("the log tells of both questions", || {
        let log = stage.agent(1).log();
        log.contains("-> 10.96.0.10:80") && log.contains("-> fd00:10:96::10:80")
    });
}
