//! Devices and addresses of a node change while its agent runs.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::rows::devices;
use crate::stage::{
    NODE_PORT, PATIENCE, PORT, PROTOCOLS, Stage, ask, eventually, expect_all, expect_service,
    family, within,
};
use proxy_common::{Address as _, Mac};
use proxy_user::datapath::features::{Feature, Features};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use xtask::cluster::{Namespace, Pod};
use xtask::traffic::{Conversation, Server, tcp_open};

/// Whatever changes on a node is known so soon; a look at it takes its time, too.
const SOON: Duration = Duration::from_secs(2);

fn ip(place: &Namespace, arguments: &str) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    place.command("ip", &arguments).unwrap();
}

/// Masked connections through the first node to a backend on the second.
fn open_masked(stage: &mut Stage) -> Vec<Conversation> {
    stage.set_backends(&[stage.web[1].clone()]);
    let client = stage.cluster.client().namespace();
    let to = stage.node_ports(1).into_iter();
    to.map(|to| tcp_open(client, to, PATIENCE).unwrap())
        .collect()
}

fn expect_open(conversations: &mut [Conversation]) {
    for conversation in conversations {
        assert!(conversation.echo(b"still there").is_ok(), "it goes on");
    }
}

/// The addresses by which the agent of the first node masks what leaves by its uplink.
fn sources(stage: &Stage) -> Vec<IpAddr> {
    let status = stage.agent(1).status().unwrap();
    let devices = status["agent"]["devices"].as_array().unwrap();
    let uplink = devices.iter().find(|it| it["name"] == "eth0").unwrap();
    let sources = uplink["sources"].as_array().unwrap().iter();
    sources
        .map(|it| it.as_str().unwrap().parse().unwrap())
        .collect()
}

fn index_of(place: &Namespace, device: &str) -> u32 {
    let arguments = ["-o", "link", "show", device];
    let line = place.command("ip", &arguments).unwrap();
    line.split_once(':').unwrap().0.trim().parse().unwrap()
}

/// Addresses of the first node that it does not have yet, on its subnet.
fn others(stage: &Stage) -> [IpAddr; 2] {
    let plan = stage.cluster.node(1).plan();
    [plan.subnet_v4(9).into(), plan.subnet_v6(9).into()]
}

/// Gives the uplink of the first node its other addresses.
fn add_others(stage: &Stage) {
    let place = stage.cluster.node(1).namespace();
    let [v4, v6] = others(stage);
    ip(place, &format!("address add {v4}/32 dev eth0"));
    ip(place, &format!("address add {v6}/64 dev eth0 nodad"));
}

#[test]
fn the_programs_know_ports_by_their_bridge_and_forget_devices_that_are_gone() {
    let mut stage = Stage::new(&[]);
    let (place, bpffs) = (
        stage.cluster.node(1).namespace().clone(),
        stage.cluster.node(1).paths().bpffs.clone(),
    );
    ip(&place, "link add bridge type bridge");
    ip(&place, "link add port type veth peer name peer");
    let [bridge, port] = ["bridge", "port"].map(|name| index_of(&place, name));
    let row = |index: u32| devices(&bpffs).get(&index).copied();
    within(SOON, "both are known", || {
        [bridge, port].iter().all(|it| row(*it).is_some())
    });
    assert_eq!(row(port).unwrap().routed_as, port);
    ip(&place, "link set port master bridge");
    ip(&place, "link set bridge address 02:00:00:00:00:99");
    ip(&place, "address add 198.51.100.1/24 dev bridge");
    within(SOON, "the port follows its bridge", || {
        row(port).is_some_and(|row| {
            row.routed_as == bridge
                && row.bridge == Mac::new([2, 0, 0, 0, 0, 0x99])
                && row.v4.ip().to_string() == "198.51.100.1"
        })
    });
    ip(&place, "link set port nomaster");
    within(SOON, "the port is itself again", || {
        row(port).is_some_and(|row| row.routed_as == port && row.bridge == Mac::default())
    });
    ip(&place, "link del bridge");
    within(SOON, "the bridge is gone", || row(bridge).is_none());
    stage.take_agent(1).kill().unwrap();
    ip(&place, "link del port");
    assert!(row(port).is_some());
    stage.start_agent(1);
    assert_eq!(row(port), None, "it went while no agent was there");
    assert!(row(index_of(&place, "eth0")).is_some());
}

#[test]
fn renamed_devices_keep_their_programs_and_connections() {
    let mut stage = Stage::new(&[]);
    let mut open = open_masked(&mut stage);
    let place = stage.cluster.node(1).namespace().clone();
    for (before, after) in [("eth0", "uplink"), ("pod2", "shell")] {
        ip(&place, &format!("link set dev {before} name {after}"));
        within(SOON, "the new name is known", || {
            stage.is_attached(1, after) && !stage.is_attached(1, before)
        });
        expect_open(&mut open);
    }
    let web = stage.web.clone();
    stage.set_backends(&web);
    expect_service(&stage);
    stage.assert_undisturbed();
}

#[test]
fn the_uplink_gets_other_addresses_and_connections_keep_theirs() {
    let mut stage = Stage::new(&[]);
    let mut open = open_masked(&mut stage);
    let (own, others) = (stage.cluster.node(1).addresses(), others(&stage));
    assert_eq!(sources(&stage), own);
    add_others(&stage);
    let place = stage.cluster.node(1).namespace().clone();
    std::thread::sleep(SOON / 2);
    assert_eq!(sources(&stage), own, "one more changes nothing");

    if Features::probe_used().unwrap().has(Feature::SourceLookup) {
        let plan = stage.cluster.node(1).plan();
        let gateway = plan.subnet_v4(1);
        let route = format!(
            "route replace default via {gateway} dev eth0 src {}",
            others[0]
        );
        ip(&place, &route);
        let far = [stage.web[1].clone()];
        for protocol in PROTOCOLS {
            let to = stage.node_ports(1)[0];
            expect_all(stage.cluster.client(), protocol, to, &far, |_| others[0]);
        }
        expect_open(&mut open);
    }
    for own in own {
        let address = format!("{own}/{}", if own.is_ipv4() { 24 } else { 64 });
        ip(&place, &format!("address del {address} dev eth0"));
    }
    within(SOON, "the others take their place", || {
        sources(&stage) == others
    });
    for other in others {
        let address = format!("{other}/{}", if other.is_ipv4() { 32 } else { 64 });
        ip(&place, &format!("address del {address} dev eth0"));
    }
    within(SOON, "there is none left", || sources(&stage).is_empty());
}

#[test]
fn the_node_gets_other_addresses_and_connections_go_on() {
    let mut stage = Stage::new(&[]);
    let mut open = open_masked(&mut stage);
    add_others(&stage);
    let [v4, v6] = others(&stage);
    let node = format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: node1}}, status: {{addresses: [
           {{type: InternalIP, address: {v4}}}, {{type: InternalIP, address: '{v6}'}}]}}}}"
    );
    let manifests = stage.cluster.manifests().unwrap();
    manifests.replace("node1", &node).unwrap();
    let ports = [v4, v6].map(|ip| SocketAddr::new(ip, NODE_PORT));
    let client = stage.cluster.client();
    within(SOON, "NodePorts are served there", || {
        let answers = |to: &SocketAddr| ask(client, PROTOCOLS[0], *to, SOON / 10).is_ok();
        ports.iter().all(answers)
    });
    expect_open(&mut open);
    let before = stage.node_ports(1)[0];
    assert!(ask(client, PROTOCOLS[0], before, SOON / 4).is_err());
    stage.assert_undisturbed();
}

#[test]
fn a_cluster_address_that_a_node_has_is_answered_by_the_node() {
    let mut stage = Stage::new(&[]);
    let node = stage.cluster.node(1).namespace().clone();
    let [v4, v6] = ["10.96.0.10", "fd00:10:96::10"];
    let skipped = |stage: &Stage| {
        let status = stage.agent(1).status().unwrap();
        status["agent"]["sync"]["skipped"].to_string()
    };
    ip(&node, "link add nodelocaldns type bridge");
    ip(&node, &format!("address add {v4}/32 dev nodelocaldns"));
    ip(
        &node,
        &format!("address add {v6}/128 dev nodelocaldns nodad"),
    );
    within(SOON, "both are left alone", || {
        let skipped = skipped(&stage);
        [v4, v6].iter().all(|ip| {
            skipped.contains(&format!(
                "{ip} is an address of this node's device nodelocaldns"
            ))
        })
    });
    ip(&node, "link set nodelocaldns up");
    let (v4, v6) = (v4.parse().unwrap(), v6.parse().unwrap());
    let cache = Pod::outside("cache", node.clone(), v4, v6);
    let serving = Server::start(&cache, PORT).unwrap();
    let far = stage.cluster.add_pod(2, "far").unwrap();
    let (shell, web) = (stage.shell.clone(), stage.web.clone());
    let expect = |from: &Pod, servers: &[Pod]| {
        for protocol in PROTOCOLS {
            for to in stage.cluster_ips() {
                expect_all(from, protocol, to, servers, |_| {
                    family(from.addresses(), to)
                });
            }
        }
    };
    eventually("the new pod is served", || {
        ask(&far, PROTOCOLS[0], stage.cluster_ips()[0], SOON).is_ok()
    });
    expect(&shell, std::slice::from_ref(&cache));
    expect(&far, &web);
    // As the agent finds it at its start.
    stage.take_agent(1).kill().unwrap();
    stage.start_agent(1);
    assert!(skipped(&stage).contains("nodelocaldns"));
    let expect = |from: &Pod, servers: &[Pod]| {
        for to in stage.cluster_ips() {
            expect_all(from, PROTOCOLS[0], to, servers, |_| {
                family(from.addresses(), to)
            });
        }
    };
    expect(&shell, std::slice::from_ref(&cache));

    drop(serving);
    ip(&node, "link del nodelocaldns");
    within(SOON, "they are the service's again", || {
        skipped(&stage) == "[]"
    });
    expect(&shell, &web);
    stage.assert_undisturbed();
}
