//! Clients that go on sending datagrams from one port while backends change.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

use crate::ports::own;
use crate::questions::{answered, edit_endpoints, itself, publish, set, settles, terminate};
use crate::sockets::inside;
use crate::stage::{SHORT, Stage, TARGET, eventually};
use std::net::SocketAddr;
use xtask::cluster::{Pod, ServicePort};
use xtask::traffic::{Datagrams, Server, udp_open_from};

const CLIENT_PORT: u16 = 12_345;

/// A flow and what is needed to know it by.
struct Flow {
    name: String,
    socket: Datagrams,
}

impl Flow {
    fn open(from: &Pod, to: SocketAddr, number: u16) -> Self {
        let own = own(from, CLIENT_PORT + number, to);
        let socket = udp_open_from(from.namespace(), own, to, SHORT);
        Self {
            name: format!("{} -> {to}", from.name()),
            socket: socket.unwrap(),
        }
    }

    /// Who answers to the next datagram, if anybody.
    fn who(&self) -> Option<String> {
        Some(self.socket.ask(b"who?").ok()?.server)
    }

    /// The same socket is answered by somebody sooner or later, and by nobody else from then on.
    fn expect(&self, what: &str, server: &Pod) {
        let is_next = || match self.who() {
            Some(name) if name == server.name() => Ok(()),
            other => Err(format!("{} is answered by {other:?}", self.name)),
        };
        settles(what, is_next);
    }
}

/// From a pod and a process of the first node to cluster addresses, and from outside to its node ports.
fn flows(stage: &Stage) -> Vec<Flow> {
    let process = stage.cluster.node(1).host_pod("process");
    let inner = [&stage.shell, &process].into_iter();
    let inner = inner.flat_map(|from| stage.cluster_ips().into_iter().map(move |to| (from, to)));
    let outer = stage.node_ports(1).map(|to| (stage.cluster.client(), to));
    let all = inner.chain(outer).zip(0..);
    all.map(|((from, to), number)| Flow::open(from, to, number))
        .collect()
}

fn expect(flows: &[Flow], what: &str, server: &Pod) {
    flows.iter().for_each(|flow| flow.expect(what, server));
}

#[test]
fn a_flow_leaves_a_backend_that_is_gone() {
    let mut stage = Stage::new(&[]);
    let web = stage.web.clone();
    stage.set_backends(&web[..1]);
    let flows = flows(&stage);
    expect(&flows, "the first", &web[0]);
    // On another node, on the same, and another pod of that.
    let near = stage.add_server(1, "near");
    for server in [&web[1], &near, &web[0], &web[2]] {
        stage.set_backends(std::slice::from_ref(server));
        expect(&flows, "the next", server);
    }
    stage.assert_undisturbed();
}

#[test]
fn a_flow_that_began_before_there_was_an_endpoint_is_answered_when_there_is() {
    let mut stage = Stage::new(&[]);
    let web = stage.web.clone();
    stage.set_backends(&[]);
    let flows = flows(&stage);
    flows
        .iter()
        .for_each(|flow| assert_eq!(flow.who(), None, "{}", flow.name));
    stage.set_backends(&web[1..2]);
    expect(&flows, "the first", &web[1]);
    // Before there was the Service.
    stage
        .cluster
        .manifests()
        .unwrap()
        .remove(&stage.service)
        .unwrap();
    for flow in &flows {
        eventually("nobody answers", || flow.who().is_none());
    }
    stage.set_backends(&web[..1]);
    expect(&flows, "made anew", &web[0]);
}

#[test]
fn a_flow_stays_on_its_node_when_endpoints_there_are_replaced() {
    let mut stage = Stage::new(&[]);
    let (web, next) = (stage.web.clone(), stage.add_server(1, "next"));
    let lines = [
        "internalTrafficPolicy: Local",
        "externalTrafficPolicy: Local",
    ];
    set(&mut stage, &lines, &[web[0].clone(), web[1].clone()]);
    let flows = flows(&stage);
    // Processes of the node may go anywhere by node ports, but by cluster addresses they may not.
    expect(&flows, "the local one", &web[0]);
    // The old one is still there, but on its way out.
    stage.service.pods = vec![web[0].clone(), next.clone(), web[1].clone()];
    publish(&stage, &stage.service, |object| {
        edit_endpoints(object, |name, endpoint| {
            if name == "web-1" {
                terminate(endpoint);
            }
        });
    });
    // As long as it serves a flow need not move, but a new one goes elsewhere.
    let (shell, to) = (&stage.shell, stage.cluster_ips());
    let is_next = || answered(shell, &to, std::slice::from_ref(&next), itself(shell));
    settles("new flows", is_next);
    expect(&flows, "on its way out", &web[0]);
    stage.set_backends(&[next.clone(), web[1].clone()]);
    expect(&flows, "the new local one", &next);
    stage.assert_undisturbed();
}

#[test]
fn a_flow_stays_with_an_endpoint_that_terminates_as_long_as_there_is_no_other() {
    let mut stage = Stage::new(&[]);
    let web = stage.web.clone();
    stage.set_backends(&web[1..2]);
    let flows = flows(&stage);
    expect(&flows, "ready", &web[1]);
    // Another port of the Service, which is written last, tells when the agent has followed.
    let later = |port: &ServicePort| ServicePort {
        name: format!("{}-later", port.name),
        port: 82,
        node_port: None,
        ..port.clone()
    };
    let ports: Vec<ServicePort> = stage.service.ports.iter().map(later).collect();
    stage.service.ports.extend(ports);
    publish(&stage, &stage.service, |object| {
        edit_endpoints(object, |_, endpoint| terminate(endpoint));
    });
    let to = stage.cluster_ips().into_iter();
    let to: Vec<SocketAddr> = to.map(|to| SocketAddr::new(to.ip(), 82)).collect();
    let shell = &stage.shell;
    settles("all terminate", || {
        answered(shell, &to, &web[1..2], itself(shell))
    });
    for _ in 0..20 {
        flows.iter().for_each(|flow| {
            assert_eq!(flow.who().as_deref(), Some(web[1].name()), "{}", flow.name);
        });
    }
    stage.set_backends(&web[..1]);
    expect(&flows, "the next", &web[0]);
    stage.assert_undisturbed();
}

#[test]
fn a_flow_follows_when_its_endpoint_serves_at_another_port() {
    let mut stage = Stage::new(&[]);
    let web = stage.web.clone();
    stage.set_backends(&web[1..2]);
    let flows = flows(&stage);
    expect(&flows, "the first port", &web[1]);
    // The same pod by another name.
    let pod = &web[1];
    let renamed = Pod::outside("web-2-new", pod.namespace().clone(), pod.v4(), pod.v6());
    let _server = Server::start(&renamed, TARGET + 1).unwrap();
    stage
        .service
        .ports
        .iter_mut()
        .for_each(|port| port.target_port = TARGET + 1);
    stage
        .cluster
        .manifests()
        .unwrap()
        .write(&stage.service)
        .unwrap();
    expect(&flows, "the other port", &renamed);
    stage.assert_undisturbed();
}

#[test]
fn sockets_of_datagrams_that_name_the_service_each_time_follow_too() {
    let mut stage = Stage::new(&[]);
    let (web, shell) = (stage.web.clone(), inside(&stage, 1, &stage.shell));
    stage.set_backends(&[]);
    for (to, number) in stage.cluster_ips().into_iter().zip(0..) {
        let own = own(&shell, CLIENT_PORT + number, to);
        let socket = shell.namespace().run(|| std::net::UdpSocket::bind(own));
        let socket = socket.unwrap().unwrap();
        socket.set_read_timeout(Some(SHORT)).unwrap();
        let who = || {
            socket.send_to(b"who?", to).ok()?;
            let mut text = [0; 256];
            let (length, from) = socket.recv_from(&mut text).ok()?;
            assert_eq!(from, to);
            Some(crate::sockets::server(&text[..length]))
        };
        stage.set_backends(&[]);
        assert_eq!(who(), None);
        for server in [&web[0], &web[1], &web[2]] {
            stage.set_backends(std::slice::from_ref(server));
            eventually("the next", || who().as_deref() == Some(server.name()));
        }
    }
    stage.assert_undisturbed();
}
