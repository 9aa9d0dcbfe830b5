//! Load balancers that ask every node, at a port of its own, whether it has endpoints of a Service.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::health::get;
use crate::stage::{
    FLOWS, NODE_PORT, PATIENCE, START, Stage, ask, binary, eventually, web_service, within,
};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;
use xtask::api::Options;
use xtask::cluster::{Cluster, Pod, Protocol, Source};

const PORT: u16 = 32000;
/// A port is tried again every five seconds.
const NEXT_TRY: Duration = Duration::from_secs(20);

/// What a node says to a load balancer outside, in IPv4 and IPv6: the status, or 0 if nobody is there.
fn told(stage: &Stage, node: u8, port: u16) -> [u16; 2] {
    stage.cluster.node(node).addresses().map(|address| {
        let to = SocketAddr::new(address, port);
        let answer = get(stage.cluster.client().namespace(), to, "/any/path");
        answer.map_or(0, |(status, _)| status)
    })
}

/// Until each of the three nodes says so, in both families.
fn until(stage: &Stage, port: u16, statuses: [u16; 3]) {
    for (node, status) in (1..).zip(statuses) {
        eventually(&format!("node {node} says {status} at {port}"), || {
            told(stage, node, port) == [status; 2]
        });
    }
}

/// Gives the Service other lines, and the pods behind it.
fn set_service(stage: &mut Stage, lines: &[&str], pods: &[Pod]) {
    stage.service.spec_lines = lines.iter().map(|line| (*line).to_owned()).collect();
    stage.set_backends(pods);
}

const LOCAL: [&str; 3] = [
    "type: LoadBalancer",
    "externalTrafficPolicy: Local",
    "healthCheckNodePort: 32000",
];

/// Makes the endpoints those of pods on their way out that still answer.
fn terminate(stage: &Stage) {
    let mut objects = stage.service.objects().unwrap();
    objects.retain(|object| object["kind"] == "EndpointSlice");
    for slice in &mut objects {
        for endpoint in slice["endpoints"].as_array_mut().unwrap() {
            endpoint["conditions"] =
                serde_json::json!({"ready": false, "serving": true, "terminating": true});
        }
        let name = format!(
            "endpointslice-{}",
            slice["metadata"]["name"].as_str().unwrap()
        );
        // JSON is YAML, too.
        stage
            .cluster
            .manifests()
            .unwrap()
            .replace(&name, &slice.to_string())
            .unwrap();
    }
}

#[test]
fn load_balancers_hear_where_endpoints_are_as_long_as_they_have_to() {
    let mut stage = Stage::new(&[]);
    let web = stage.web.clone();
    until(&stage, PORT, [0; 3]);

    set_service(&mut stage, &LOCAL, &web[..1]);
    until(&stage, PORT, [200, 503, 503]);
    let to = SocketAddr::new(stage.cluster.node(1).addresses()[0], PORT);
    let (_, body) = get(stage.cluster.client().namespace(), to, "/").unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({"service": {"namespace": "default", "name": "web"},
                           "localEndpoints": 1, "serviceProxyHealthy": true})
    );
    stage.set_backends(&web[1..]);
    until(&stage, PORT, [503, 200, 200]);

    // The last ones leave: new connections are to go elsewhere, and those that come are served.
    stage.set_backends(&web[..1]);
    until(&stage, PORT, [200, 503, 503]);
    terminate(&stage);
    until(&stage, PORT, [503; 3]);
    let node_port = SocketAddr::new(stage.cluster.node(1).addresses()[0], NODE_PORT);
    let answer = ask(stage.cluster.client(), Protocol::Tcp, node_port, PATIENCE);
    assert_eq!(answer.unwrap().server, "web-1");

    // Another policy, the first one again, another port, another type.
    set_service(
        &mut stage,
        &["type: LoadBalancer", "externalTrafficPolicy: Cluster"],
        &web[..1],
    );
    until(&stage, PORT, [0; 3]);
    set_service(&mut stage, &LOCAL, &web[..1]);
    until(&stage, PORT, [200, 503, 503]);
    let other = [LOCAL[0], LOCAL[1], "healthCheckNodePort: 32001"];
    set_service(&mut stage, &other, &web[..1]);
    until(&stage, PORT + 1, [200, 503, 503]);
    until(&stage, PORT, [0; 3]);
    set_service(&mut stage, &["externalTrafficPolicy: Local"], &web[..1]);
    until(&stage, PORT + 1, [0; 3]);

    set_service(&mut stage, &LOCAL, &web[..1]);
    until(&stage, PORT, [200, 503, 503]);
    stage.take_agent(1).stop().unwrap();
    until(&stage, PORT, [0, 503, 503]);
    stage.start_agent(1);
    until(&stage, PORT, [200, 503, 503]);
    stage.assert_undisturbed();
}

#[test]
fn node_port_addresses_are_where_load_balancers_ask() {
    let mut stage = Stage::new(&["--nodeport-addresses", "127.0.0.0/8,::/0"]);
    let web = stage.web.clone();
    set_service(&mut stage, &LOCAL, &web);
    eventually("IPv6 alone", || told(&stage, 1, PORT) == [0, 200]);
    stage.restart_agent(1, &["--nodeport-addresses", "all"]);
    eventually("all of both", || told(&stage, 1, PORT) == [200; 2]);
    let here = stage.cluster.node(1).namespace();
    for to in [
        (Ipv4Addr::LOCALHOST, PORT).into(),
        "[::1]:32000".parse().unwrap(),
    ] {
        assert_eq!(get(here, to, "/").unwrap().0, 200, "{to}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_to_operator_and_cluster_and_tried_again() {
    let mut cluster = Cluster::create(1).unwrap();
    let web = cluster.add_pod(1, "web").unwrap();
    let server = cluster.start_api(Options::default()).unwrap();
    let mut service = web_service(std::slice::from_ref(&web));
    service.spec_lines = LOCAL.map(str::to_owned).into();
    server.apply_all(service.objects().unwrap()).unwrap();
    let kubeconfig = cluster.folder().join("kubeconfig");
    server.write_kubeconfig(&kubeconfig).unwrap();
    let node = cluster.node(1);
    let [v4, v6] = node
        .addresses()
        .map(|address| SocketAddr::new(address, PORT));
    let place = node.namespace();
    let other = place.run(|| TcpListener::bind(v4)).unwrap().unwrap();
    let agent = node.start_agent_from(Source::Kubeconfig(&kubeconfig), &binary(), &FLOWS);
    let mut agent = agent.unwrap();
    agent.wait_synced(START).unwrap();

    let status = |to| get(cluster.client().namespace(), to, "/").map(|(status, _)| status);
    eventually("the other family is served", || {
        status(v6).is_ok_and(|it| it == 200)
    });
    let complaint = format!("the health check of Service default/web on {v4} can't be served");
    let is_told = || {
        let status = agent.status().unwrap();
        status["agent"]["warnings"].to_string().contains(&complaint)
    };
    eventually("the operator is told", is_told);
    let event = || {
        let events = server.events().into_iter();
        let mut events = events.filter(|it| it["reason"] == "FailedToStartServiceHealthcheck");
        events.next()
    };
    within(START, "the cluster is told", || event().is_some());
    let event = event().unwrap();
    assert_eq!(event["regarding"]["name"], "web");
    assert_eq!(event["regarding"]["namespace"], "default");
    assert!(event["regarding"]["uid"].is_string(), "{event}");
    assert!(
        event["note"].as_str().unwrap().contains(&complaint),
        "{event}"
    );
    drop(other);
    within(NEXT_TRY, "it is served after all", || {
        status(v4).is_ok_and(|it| it == 200)
    });
    eventually("nothing is wrong any more", || !is_told());
    agent.stop().unwrap();
}
