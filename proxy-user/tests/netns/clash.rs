//! One port of a client towards several services that have the same backend: one tuple behind the
//! translation, if nothing is done about it.

use crate::everywhere::direct;
use crate::ports::own;
use crate::stage::{PATIENCE, PORT, PROTOCOLS, SHORT, Stage, ask, eventually};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use xtask::cluster::{Pod, Service};
use xtask::traffic::{Conversation, Datagrams, tcp_open_from, udp_open_from};

const SERVICES: u16 = 3;
const CLIENT_PORT: u16 = 40_000;

/// The service of the stage and two more, all with one backend.
fn stage(backend: usize) -> (Stage, Pod) {
    let mut stage = Stage::new(&[]);
    let backend = stage.web[backend].clone();
    stage.set_backends(std::slice::from_ref(&backend));
    for number in 1..SERVICES {
        let mut service = Service {
            name: format!("web-{number}"),
            cluster_ips: addresses(number).to_vec(),
            ..stage.service.clone()
        };
        service
            .ports
            .iter_mut()
            .for_each(|port| port.node_port = None);
        let manifests = stage.cluster.manifests();
        manifests
            .and_then(|folder| folder.write(&service))
            .expect("the manifests can be written");
        for address in addresses(number) {
            let to = SocketAddr::new(address, PORT);
            for protocol in PROTOCOLS {
                eventually("the service answers", || {
                    ask(&stage.shell, protocol, to, SHORT).is_ok()
                });
            }
        }
    }
    (stage, backend)
}

fn addresses(number: u16) -> [std::net::IpAddr; 2] {
    [
        format!("10.96.0.1{number}"),
        format!("fd00:10:96::1{number}"),
    ]
    .map(|text| text.parse().expect("an address"))
}

/// Of each family, where the services are dialled.
fn targets() -> [Vec<SocketAddr>; 2] {
    [0, 1].map(|family| {
        let all = (0..SERVICES).map(|number| addresses(number)[family]);
        all.map(|address| SocketAddr::new(address, PORT)).collect()
    })
}

fn stream(from: &Pod, to: SocketAddr) -> std::io::Result<Conversation> {
    tcp_open_from(from.namespace(), own(from, CLIENT_PORT, to), to, PATIENCE)
}

fn datagrams(from: &Pod, to: SocketAddr) -> Datagrams {
    let own = own(from, CLIENT_PORT, to);
    udp_open_from(from.namespace(), own, to, SHORT).expect("it opens")
}

#[test]
fn streams_from_one_port_to_three_services_with_one_backend_stay_apart() {
    for backend in [0, 1] {
        let (stage, backend) = stage(backend);
        for family in targets() {
            let mut open: Vec<Conversation> = family
                .iter()
                .map(|to| stream(&stage.shell, *to).unwrap_or_else(|error| panic!("{to}: {error}")))
                .collect();
            let sources: BTreeSet<_> = open.iter().map(|it| it.answer().seen_source).collect();
            assert_eq!(sources.len(), family.len(), "{sources:?}");
            for round in 0..3 {
                for (number, stream) in open.iter_mut().enumerate() {
                    assert_eq!(stream.answer().server, backend.name());
                    let bytes = format!("round {round} of {number}");
                    stream
                        .echo(bytes.as_bytes())
                        .expect("its own bytes come back");
                }
            }
        }
        stage.assert_undisturbed();
    }
}

#[test]
fn datagrams_from_one_port_to_three_services_with_one_backend_stay_apart() {
    for backend in [0, 1] {
        let (stage, backend) = stage(backend);
        for family in targets() {
            let open: Vec<Datagrams> = family
                .iter()
                .map(|to| datagrams(&stage.shell, *to))
                .collect();
            for round in 0..3 {
                let mut sources = BTreeSet::new();
                for (number, (socket, to)) in open.iter().zip(&family).enumerate() {
                    let answer = socket.ask(format!("round {round} of {number}").as_bytes());
                    let answer = answer.unwrap_or_else(|error| panic!("{to}: {error}"));
                    assert_eq!(answer.server, backend.name());
                    sources.insert(answer.seen_source);
                }
                assert_eq!(sources.len(), family.len(), "{sources:?}");
            }
        }
        stage.assert_undisturbed();
    }
}

#[test]
fn a_direct_stream_from_a_port_that_a_service_has_is_not_answered_and_does_no_harm() {
    let (stage, backend) = stage(1);
    for to in stage.cluster_ips() {
        let mut service = stream(&stage.shell, to).expect("the service answers");
        let target = direct(&backend, to);
        let own = own(&stage.shell, CLIENT_PORT, to);
        let direct = tcp_open_from(stage.shell.namespace(), own, target, SHORT);
        assert!(
            direct.is_err(),
            "docs/datapath.md says that it is not served"
        );
        service.echo(b"unharmed").expect("the service goes on");
        drop(service);
        eventually("the port leads to the pod once the service is done", || {
            tcp_open_from(stage.shell.namespace(), own, target, SHORT).is_ok()
        });
    }
    stage.assert_undisturbed();
}

#[test]
fn a_direct_datagram_from_a_port_that_a_service_has_is_answered_in_the_services_name() {
    let (stage, backend) = stage(1);
    for to in stage.cluster_ips() {
        let service = datagrams(&stage.shell, to);
        service.ask(b"mine").expect("the service answers");
        let direct = datagrams(&stage.shell, direct(&backend, to));
        assert!(
            direct.ask(b"not mine").is_err(),
            "docs/datapath.md says that the answer goes elsewhere"
        );
        let (_, stray) = service.receive(std::time::Instant::now()).expect("here");
        assert_eq!(stray, b"not mine");
        service.ask(b"mine again").expect("the service answers");
    }
    stage.assert_undisturbed();
}

#[test]
fn a_stream_through_a_service_takes_the_place_of_a_direct_one_from_the_same_port() {
    let (stage, backend) = stage(1);
    for to in stage.cluster_ips() {
        let own = own(&stage.shell, CLIENT_PORT, to);
        let (place, target) = (stage.shell.namespace(), direct(&backend, to));
        let mut direct = tcp_open_from(place, own, target, SHORT).expect("the pod answers");
        let mut service = stream(&stage.shell, to).expect("the service answers");
        service.echo(b"mine").expect("the service goes on");
        assert!(
            direct.echo(b"lost").is_err(),
            "docs/datapath.md says that it stops"
        );
        service.echo(b"still mine").expect("the service goes on");
    }
}
