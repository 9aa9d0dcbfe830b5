//! Endpoints come and go, and clients notice only that.

use crate::stage::{SHORT, Stage, ask, eventually, expect_all};
use std::net::IpAddr;
use xtask::cluster::{Pod, Protocol};

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
    assert!(stage.count(1, "passed", "refused") > 0);
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
