//! Addresses of load balancers and other external ones, and who may dial them.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

use crate::affinity::chosen;
use crate::everywhere::{addresses, ip};
use crate::questions::{answered, itself, publish, settles, silent};
use crate::sockets::inside;
use crate::stage::{PATIENCE, PORT, Stage, ask};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use xtask::cluster::{Pod, Protocol};
use xtask::traffic::Server;

/// Nobody has these addresses; the router sends them to the first node.
const VIPS: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];
/// These are of a host outside, which serves by itself.
const OUTSIDE: [&str; 2] = ["198.51.100.10", "2001:db8:2::10"];

fn at(addresses: [&str; 2]) -> [SocketAddr; 2] {
    addresses.map(|ip| SocketAddr::new(ip.parse().unwrap(), PORT))
}

/// Leads the addresses to where they are served.
fn lead(stage: &Stage) -> (Pod, Server) {
    let (router, client) = (stage.cluster.router(), stage.cluster.client());
    let [v4, v6] = stage.cluster.node(1).addresses();
    ip(router, "-4", &format!("route add {} via {v4}", VIPS[0]));
    ip(router, "-6", &format!("route add {} via {v6}", VIPS[1]));
    let place = client.namespace();
    ip(
        place,
        "-4",
        &format!("address add {}/32 dev lo", OUTSIDE[0]),
    );
    ip(
        place,
        "-6",
        &format!("address add {}/128 dev lo nodad", OUTSIDE[1]),
    );
    ip(
        router,
        "-4",
        &format!("route add {} via {}", OUTSIDE[0], client.v4()),
    );
    ip(
        router,
        "-6",
        &format!("route add {} via {}", OUTSIDE[1], client.v6()),
    );
    let (v4, v6) = (OUTSIDE[0].parse().unwrap(), OUTSIDE[1].parse().unwrap());
    let balancer = Pod::outside("balancer", place.clone(), v4, v6);
    let server = Server::start(&balancer, PORT).unwrap();
    (balancer, server)
}

/// Writes the stage's Service with load balancer addresses, and these lines.
fn balance(stage: &mut Stage, lines: &[&str], addresses: &[&str], mode: &str) {
    let all = [&["type: LoadBalancer"], lines].concat();
    stage.service.spec_lines = all.iter().map(|line| (*line).to_owned()).collect();
    let ingress = addresses.iter().map(|ip| json!({"ip": ip, "ipMode": mode}));
    let ingress: Vec<Value> = ingress.collect();
    publish(stage, &stage.service, |object| {
        if object["kind"] == "Service" {
            object["status"] = json!({"loadBalancer": {"ingress": ingress}});
        }
    });
}

/// A pod by packets and by sockets.
fn pods(stage: &Stage) -> [Pod; 2] {
    [stage.shell.clone(), inside(stage, 1, &stage.shell)]
}

/// What a server may see of a client that external addresses lead to it: itself, or the first node.
fn either(stage: &Stage, from: &Pod) -> impl Fn(&Pod) -> Vec<IpAddr> {
    let mut seen = from.addresses().to_vec();
    seen.extend(addresses(stage.cluster.node(1).namespace()));
    move |_| seen.clone()
}

/// All pods answer at these addresses, to pods, processes and the client outside.
fn expect_served(stage: &Stage, addresses: [&str; 2]) {
    let process = stage.cluster.node(1).host_pod("process");
    let [pod, socket] = pods(stage);
    let process_socket = inside(stage, 1, &process);
    let clients = [
        pod,
        socket,
        process,
        process_socket,
        stage.cluster.client().clone(),
    ];
    for client in clients {
        settles("served", || {
            answered(&client, &at(addresses), &stage.web, either(stage, &client))
        });
    }
}

/// The host outside answers to pods, which it sees by their node.
fn expect_left_alone(stage: &Stage, balancer: &Pod) {
    for client in pods(stage) {
        let to = at(OUTSIDE);
        let servers = std::slice::from_ref(balancer);
        settles("left alone", || {
            answered(&client, &to, servers, either(stage, &client))
        });
    }
}

#[test]
fn a_load_balancers_address_is_served_unless_it_is_a_proxys() {
    let mut stage = Stage::new(&[]);
    let (balancer, _server) = lead(&stage);
    balance(&mut stage, &[], &VIPS, "VIP");
    expect_served(&stage, VIPS);
    balance(&mut stage, &[], &OUTSIDE, "Proxy");
    settles("the first ones are given up", || {
        match answered(
            &stage.shell,
            &at(VIPS),
            &stage.web,
            either(&stage, &stage.shell),
        ) {
            Ok(()) => Err("it answers".to_owned()),
            Err(_) => Ok(()),
        }
    });
    expect_left_alone(&stage, &balancer);
    balance(&mut stage, &[], &OUTSIDE, "VIP");
    expect_served_to_pods(&stage);
    stage.assert_undisturbed();
}

/// Addresses that a host outside has are served to pods nevertheless.
fn expect_served_to_pods(stage: &Stage) {
    for client in pods(stage) {
        settles("captured", || {
            answered(&client, &at(OUTSIDE), &stage.web, either(stage, &client))
        });
    }
}

#[test]
fn pods_keep_their_address_towards_a_load_balancer_that_keeps_clients() {
    let mut stage = Stage::new(&[]);
    let _outside = lead(&stage);
    stage.service.pods = stage.web[1..].to_vec();
    balance(&mut stage, &["externalTrafficPolicy: Local"], &VIPS, "VIP");
    for client in pods(&stage) {
        settles("the short way", || {
            answered(&client, &at(VIPS), &stage.web[1..], itself(&client))
        });
    }
    let client = stage.cluster.client();
    settles("no endpoint on the node", || silent(client, &at(VIPS)));
    stage.service.pods = stage.web.clone();
    balance(&mut stage, &["externalTrafficPolicy: Local"], &VIPS, "VIP");
    let client = stage.cluster.client();
    settles("an endpoint on the node", || {
        answered(client, &at(VIPS), &stage.web[..1], itself(client))
    });
    stage.assert_undisturbed();
}

#[test]
fn external_addresses_are_served_unless_that_is_switched_off() {
    let mut stage = Stage::new(&[]);
    let (balancer, _server) = lead(&stage);
    let [v4, v6] = VIPS;
    let line = format!(
        "externalIPs: [{v4}, '{v6}', {}, '{}']",
        OUTSIDE[0], OUTSIDE[1]
    );
    stage.service.spec_lines = vec![line];
    publish(&stage, &stage.service, |_| ());
    expect_served(&stage, VIPS);
    expect_served_to_pods(&stage);
    stage.restart_agent(1, &["--allow-service-external-ips=false"]);
    expect_left_alone(&stage, &balancer);
    stage.assert_undisturbed();
}

#[test]
fn a_load_balancer_is_for_clients_in_its_ranges() {
    let mut stage = Stage::new(&[]);
    let _outside = lead(&stage);
    let (shell, web) = (stage.shell.clone(), stage.web.clone());
    let ranges = |ranges: &str| format!("loadBalancerSourceRanges: [{ranges}]");
    let some = format!("{}/32, '{}/128'", shell.v4(), shell.v6());
    balance(&mut stage, &[&ranges(&some)], &VIPS, "VIP");
    let client = stage.cluster.client().clone();
    settles("the client outside is blocked", || {
        silent(&client, &at(VIPS))
    });
    let other = [web[0].clone(), inside(&stage, 1, &web[0])];
    for blocked in &other {
        settles("another pod is blocked", || silent(blocked, &at(VIPS)));
    }
    assert!(stage.count(1, "drops", "source-not-allowed") > 0);
    for allowed in pods(&stage) {
        answered(&allowed, &at(VIPS), &web, either(&stage, &allowed)).unwrap();
    }
    // Only the load balancer's addresses are restricted.
    answered(&client, &stage.node_ports(1), &web, either(&stage, &client)).unwrap();
    let to = stage.cluster_ips();
    let hairpin = |server: &Pod| match server == &web[0] {
        true => addresses(stage.cluster.node(1).namespace()),
        false => web[0].addresses().to_vec(),
    };
    answered(&web[0], &to, &web, hairpin).unwrap();

    balance(
        &mut stage,
        &[&ranges("0.0.0.0/1, 128.0.0.0/1, '::/1', '8000::/1'")],
        &VIPS,
        "VIP",
    );
    settles("all", || {
        answered(&client, &at(VIPS), &web, either(&stage, &client))
    });
    balance(
        &mut stage,
        &[&ranges("255.0.0.0/32, 'fd00:255::/128'")],
        &VIPS,
        "VIP",
    );
    for blocked in pods(&stage).iter().chain([&client]) {
        settles("none", || silent(blocked, &at(VIPS)));
    }
    // Of one family: the other is not restricted.
    balance(&mut stage, &[&ranges("255.0.0.0/32")], &VIPS, "VIP");
    settles("those of the other family", || {
        silent(&client, &at(VIPS)[..1])?;
        answered(&client, &at(VIPS)[1..], &web, either(&stage, &client))
    });
    balance(&mut stage, &[], &VIPS, "VIP");
    settles("all again", || {
        answered(&client, &at(VIPS), &web, either(&stage, &client))
    });
    stage.assert_undisturbed();
}

#[test]
fn a_load_balancer_without_node_ports_is_served_at_its_own_addresses() {
    let mut stage = Stage::new(&[]);
    let _outside = lead(&stage);
    let with: Vec<Option<u16>> = stage.service.ports.iter().map(|it| it.node_port).collect();
    stage
        .service
        .ports
        .iter_mut()
        .for_each(|port| port.node_port = None);
    balance(
        &mut stage,
        &["allocateLoadBalancerNodePorts: false"],
        &VIPS,
        "VIP",
    );
    let client = stage.cluster.client().clone();
    settles("by the load balancer", || {
        answered(&client, &at(VIPS), &stage.web, either(&stage, &client))
    });
    settles("nobody at the old port", || {
        stage.node_ports(1).iter().try_for_each(|to| {
            match ask(&client, Protocol::Tcp, *to, PATIENCE).map_err(|error| error.kind()) {
                // By the node itself, where nobody listens.
                Err(ErrorKind::ConnectionRefused) => Ok(()),
                other => Err(format!("{to}: {other:?}")),
            }
        })
    });
    for (port, number) in stage.service.ports.iter_mut().zip(with) {
        port.node_port = number;
    }
    balance(&mut stage, &[], &VIPS, "VIP");
    settles("by both", || {
        answered(
            &client,
            &stage.node_ports(1),
            &stage.web,
            either(&stage, &client),
        )?;
        answered(&client, &at(VIPS), &stage.web, either(&stage, &client))
    });
    stage.assert_undisturbed();
}

#[test]
fn clients_stay_with_a_backend_by_the_addresses_of_a_load_balancer() {
    let mut stage = Stage::new(&[]);
    let _outside = lead(&stage);
    let [shell, socket] = pods(&stage);
    let clients = [shell, socket, stage.cluster.client().clone()];
    let near = stage.add_server(1, "near");
    stage.service.pods.push(near.clone());
    let sticky = "sessionAffinity: ClientIP";
    balance(&mut stage, &[sticky], &VIPS, "VIP");
    for client in &clients {
        settles("one answers", || chosen(client, &at(VIPS)).map(drop));
    }
    // What it has had is no longer meant for it if it is on another node.
    let local = "externalTrafficPolicy: Local";
    balance(&mut stage, &[sticky, local], &VIPS, "VIP");
    let here = [stage.web[0].name(), near.name()];
    settles("one on the node answers", || {
        let chosen = chosen(&clients[2], &at(VIPS))?;
        match chosen.values().all(|name| here.contains(&name.as_str())) {
            true => Ok(()),
            false => Err(format!("{chosen:?}")),
        }
    });
    balance(&mut stage, &["sessionAffinity: None"], &VIPS, "VIP");
    let client = &clients[2];
    settles("all answer", || {
        answered(
            client,
            &at(VIPS),
            &stage.service.pods,
            either(&stage, client),
        )
    });
    stage.assert_undisturbed();
}
