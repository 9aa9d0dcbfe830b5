use super::*;
use crate::health::Criteria;
use crate::sync::Vitals;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(60);
/// So that tests at once don't want the same ports.
const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 31, 1), Ipv4Addr::new(127, 0, 31, 2)];

struct Play {
    checks: watch::Sender<HealthChecks>,
    complaints: watch::Receiver<Vec<String>>,
    notices: mpsc::Receiver<Notice>,
    _vitals: watch::Sender<Vitals>,
}

fn start(addresses: &[IpAddr], services: &[(&str, u16)]) -> Play {
    let (checks, told) = watch::channel(HealthChecks {
        addresses: addresses.to_vec(),
        services: services
            .iter()
            .map(|(name, port)| check(name, *port))
            .collect(),
    });
    let (vitals_in, vitals) = watch::channel(Vitals::default());
    let criteria = Criteria {
        patience: LIMIT,
        needs_node: false,
    };
    let (notices_in, notices) = Notices::channel();
    let doctor = Doctor::new(vitals, criteria);
    let servers = HealthCheckServers::new(told, doctor, "node-a", notices_in);
    let complaints = servers.complaints();
    tokio::spawn(servers.run());
    Play {
        checks,
        complaints,
        notices,
        _vitals: vitals_in,
    }
}

fn check(name: &str, port: u16) -> (ServiceName, HealthCheck) {
    let check = HealthCheck {
        port,
        uid: format!("uid of {name}").into(),
        local_endpoints: [Some(1), Some(1)],
    };
    (ServiceName::new("default", name), check)
}

fn free(address: impl Into<IpAddr>) -> SocketAddr {
    let listener = TcpListener::bind((address.into(), 0)).unwrap();
    listener.local_addr().unwrap()
}

async fn ask(at: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Whose answer it is that comes there, in the end.
async fn until(at: SocketAddr, name: Option<&str>) {
    let wanted = name.map(|name| format!("\"name\": \"{name}\""));
    let deadline = Instant::now() + LIMIT;
    loop {
        let is_so = match (ask(at).await, &wanted) {
            (Ok(answer), Some(wanted)) => answer.contains(wanted),
            (Err(_), None) => return,
            _ => false,
        };
        if is_so {
            return;
        }
        assert!(Instant::now() < deadline, "{at}: {name:?} does not answer");
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn of_two_services_with_one_port_the_first_keeps_it_as_long_as_it_is_there() {
    let at = free(V4[0]);
    let mut play = start(&[V4[0].into()], &[("old", at.port())]);
    until(at, Some("old")).await;
    let (name, new) = check("new", at.port());
    play.checks
        .send_modify(|told| drop(told.services.insert(name, new)));
    let notice = play.notices.recv().await.unwrap();
    assert_eq!(notice.object.to_string(), "Service default/new");
    assert_eq!(notice.uid, "uid of new");
    assert_eq!(notice.reason, "FailedToStartServiceHealthcheck");
    assert_eq!(
        notice.note,
        format!(
            "node node-a: the health check of Service default/new on {at} can't be served: \
             Service default/old has this port; tried again every 5 s"
        )
    );
    let told = play
        .complaints
        .wait_for(|told| !told.is_empty())
        .await
        .unwrap()
        .clone();
    assert!(notice.note.ends_with(&told[0]), "{told:?}");
    until(at, Some("old")).await;
    let old = ServiceName::new("default", "old");
    play.checks
        .send_modify(|told| drop(told.services.remove(&old)));
    until(at, Some("new")).await;
    play.complaints.wait_for(Vec::is_empty).await.unwrap();
    assert!(play.notices.try_recv().is_err(), "it was said once");
}

#[tokio::test]
async fn a_port_that_others_have_is_complained_of_once_and_tried_again() {
    let other = TcpListener::bind((V4[0], 0)).unwrap();
    let at = other.local_addr().unwrap();
    let good = free(V4[0]);
    let mut play = start(
        &[V4[0].into()],
        &[("bad", at.port()), ("good", good.port())],
    );
    play.complaints
        .wait_for(|told| told.len() == 1)
        .await
        .unwrap();
    until(good, Some("good")).await;
    // It looks again, and says nothing new.
    let later = free(V4[0]);
    let (name, other_check) = check("later", later.port());
    play.checks
        .send_modify(|told| drop(told.services.insert(name, other_check)));
    until(later, Some("later")).await;
    drop(other);
    let tried = tokio::time::timeout(LIMIT, play.complaints.wait_for(Vec::is_empty)).await;
    tried.expect("it is tried again").unwrap();
    until(at, Some("bad")).await;
    let notice = play.notices.recv().await.unwrap();
    assert!(notice.note.contains("Address already in use"), "{notice:?}");
    assert!(play.notices.try_recv().is_err(), "it was said once");
}

#[tokio::test]
async fn a_complaint_goes_with_its_service() {
    let other = TcpListener::bind((V4[0], 0)).unwrap();
    let at = other.local_addr().unwrap();
    let mut play = start(&[V4[0].into()], &[("bad", at.port())]);
    play.complaints
        .wait_for(|told| !told.is_empty())
        .await
        .unwrap();
    play.checks.send_modify(|told| told.services.clear());
    let gone = tokio::time::timeout(RETRY / 2, play.complaints.wait_for(Vec::is_empty)).await;
    gone.expect("at once").unwrap();
}

#[tokio::test]
async fn addresses_are_followed() {
    let [first, second] = V4.map(IpAddr::from);
    let port = free(first).port();
    let at = |address| SocketAddr::new(address, port);
    let play = start(&[first], &[("web", port)]);
    until(at(first), Some("web")).await;
    until(at(second), None).await;
    play.checks
        .send_modify(|told| told.addresses = vec![second]);
    until(at(first), None).await;
    until(at(second), Some("web")).await;
    play.checks.send_modify(|told| {
        told.addresses = vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    });
    for address in [first, second, Ipv6Addr::LOCALHOST.into()] {
        until(at(address), Some("web")).await;
    }
    let name = ServiceName::new("default", "web");
    play.checks.send_modify(|told| {
        let check = told.services.get_mut(&name).unwrap();
        check.local_endpoints = [None, Some(1)];
    });
    until(at(first), None).await;
    until(at(Ipv6Addr::LOCALHOST.into()), Some("web")).await;
}

#[tokio::test]
async fn a_crowd_at_one_server_keeps_no_other_from_answering() {
    let [at, other] = [free(V4[0]), free(V4[0])];
    let _play = start(
        &[V4[0].into()],
        &[("crowded", at.port()), ("web", other.port())],
    );
    until(at, Some("crowded")).await;
    let mut crowd = Vec::new();
    for _ in 0..4 * CONNECTIONS {
        crowd.push(TcpStream::connect(at).await.unwrap());
    }
    until(other, Some("web")).await;
    until(at, Some("crowded")).await;
}
