//! Every fault, as a client meets it.

use super::client::{Answer, connect, get, open, send, write};
use super::{names, plain, service};
use crate::api::{ApiServer, Effect, Fault};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const SERVICES: &str = "/api/v1/services";

fn with_two() -> ApiServer {
    let server = plain();
    server.apply_all([service("a"), service("b")]).unwrap();
    server
}

fn watch(server: &ApiServer, version: u64) -> Answer<TcpStream> {
    open(
        server,
        &format!("{SERVICES}?watch=1&resourceVersion={version}"),
    )
}

fn once(effect: Effect) -> Fault {
    Fault::new(effect).times(1)
}

#[test]
fn a_status_is_answered_to_whom_it_concerns_as_often_as_told() {
    let server = with_two();
    let busy = Effect::Status {
        code: 429,
        retry_after: Some(7),
    };
    server.fault(Fault::new(busy).on("services").lists().times(2));
    assert_eq!(get(&server, "/api/v1/nodes").0, 200);
    assert_eq!(watch(&server, 102).code, 200);
    let mut answer = open(&server, SERVICES);
    assert_eq!(answer.code, 429);
    assert!(
        answer.head.contains("retry-after: 7\r\n"),
        "{}",
        answer.head
    );
    assert_eq!(answer.json().unwrap()["reason"], "TooManyRequests");
    assert_eq!(get(&server, SERVICES).0, 429);
    assert_eq!(get(&server, SERVICES).0, 200);
    for code in [410, 500, 503] {
        let retry_after = None;
        server.fault(Fault::new(Effect::Status { code, retry_after }).watches());
        let mut answer = watch(&server, 102);
        assert_eq!(
            (answer.code, &answer.json().unwrap()["code"]),
            (code, &code.into())
        );
        server.heal();
    }
    assert_eq!(watch(&server, 102).code, 200);
}

#[test]
fn lists_and_events_are_cut_in_an_object() {
    let server = with_two();
    server.fault(once(Effect::Cut).lists());
    assert!(open(&server, SERVICES).text().is_err());
    assert_eq!(get(&server, SERVICES).0, 200);

    server.fault(once(Effect::Cut).watches());
    let mut cut = watch(&server, 101);
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut cut, &mut text).unwrap_err();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.starts_with("{\"type\":\"ADDED\"") && !text.contains('\n'),
        "{text}"
    );
    assert_eq!(watch(&server, 101).event(), "ADDED b@102");
}

#[test]
fn a_stalled_request_is_not_answered_after_healing_either() {
    let server = with_two();
    server.fault(Fault::new(Effect::Stall).on("services"));
    let stream = connect(&server);
    let short = Some(Duration::from_millis(100));
    stream.set_read_timeout(short).unwrap();
    let start = format!("GET {SERVICES}");
    let error = send(&stream, &start, "", "").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    server.heal();
    assert_eq!(get(&server, SERVICES).0, 200);
    let error = stream.peek(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_silent_watch_stays_open_and_sends_nothing_more() {
    let server = with_two();
    let mut silent = watch(&server, 101);
    assert_eq!(silent.event(), "ADDED b@102");
    server.fault(Fault::new(Effect::Silence));
    server.apply(service("c")).unwrap();
    let short = Some(Duration::from_millis(100));
    silent.stream().set_read_timeout(short).unwrap();
    assert_eq!(silent.line().unwrap_err().kind(), ErrorKind::WouldBlock);
    server.heal();
    assert_eq!(silent.line().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(watch(&server, 102).event(), "ADDED c@103");
}

#[test]
fn watches_close_at_once_without_an_event() {
    let server = with_two();
    server.fault(Fault::new(Effect::Close));
    for _ in 0..3 {
        assert_eq!(watch(&server, 101).event(), "END");
    }
    server.heal();
    assert_eq!(watch(&server, 101).event(), "ADDED b@102");
}

#[test]
fn garbage_and_wrong_shapes_are_in_lists_and_events() {
    let server = with_two();
    server.fault(once(Effect::Garbage).lists());
    assert!(open(&server, SERVICES).json().is_err());
    server.fault(once(Effect::WrongShape).lists());
    let (_, list) = get(&server, SERVICES);
    assert_eq!(list["items"][0]["spec"]["ports"], "not a list");
    assert!(list["items"][1]["spec"]["ports"].is_array());

    server.fault(once(Effect::Garbage).watches());
    let line = watch(&server, 101).line().unwrap().unwrap();
    assert!(serde_json::from_str::<Value>(&line).is_err());
    server.fault(once(Effect::WrongShape).watches());
    let line = watch(&server, 101).line().unwrap().unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["object"]["spec"]["ports"], "not a list");
}

#[test]
fn a_trickle_arrives_whole_in_the_end() {
    let server = with_two();
    let pause = Duration::from_micros(100);
    server.fault(Fault::new(Effect::Trickle(pause)));
    let (_, list) = get(&server, SERVICES);
    assert_eq!(names(&list), ["a", "b"]);
    let start = Instant::now();
    assert_eq!(watch(&server, 101).event(), "ADDED b@102");
    // One pause for each of more than a hundred bytes.
    assert!(start.elapsed() > 100 * pause);
}

#[test]
fn events_come_twice_out_of_order_and_again() {
    let server = with_two();
    server.fault(once(Effect::Duplicate));
    let mut twice = watch(&server, 101);
    assert_eq!(
        [twice.event(), twice.event()],
        ["ADDED b@102", "ADDED b@102"]
    );

    server.fault(once(Effect::Reorder));
    let mut changed = service("b");
    changed["spec"]["type"] = "NodePort".into();
    server.apply(changed).unwrap();
    let mut events = || twice.event();
    assert_eq!([events(), events()], ["MODIFIED b@103", "MODIFIED b@102"]);

    server.fault(once(Effect::Replay));
    let mut again = watch(&server, 102);
    let events = [again.event(), again.event(), again.event()];
    assert_eq!(events, ["ADDED a@101", "ADDED b@102", "MODIFIED b@103"]);
}

#[test]
fn an_outage_refuses_and_resets_and_the_port_comes_back() {
    let server = with_two();
    let mut open = watch(&server, 102);
    server.outage();
    let error = open.line().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let refused = || {
        let error = TcpStream::connect(server.address()).err();
        error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    assert!(crate::process::wait_for(Duration::from_secs(10), refused));
    server.apply(service("c")).unwrap();
    server.compact();
    server.heal();
    let connects = || TcpStream::connect(server.address()).is_ok();
    assert!(crate::process::wait_for(Duration::from_secs(10), connects));
    assert_eq!(watch(&server, 102).event(), "ERROR 410 \"Expired\"");
    assert_eq!(names(&get(&server, SERVICES).1), ["a", "b", "c"]);
}

#[test]
fn writes_can_fail_too() {
    let server = plain();
    let (code, retry_after) = (500, None);
    server.fault(once(Effect::Status { code, retry_after }).on("events"));
    let path = "POST /api/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "a"}});
    assert_eq!(write(&server, path, "application/json", &event).0, 500);
    assert_eq!(write(&server, path, "application/json", &event).0, 201);
}

#[test]
fn a_stopped_server_closes_its_connections() {
    let server = with_two();
    let mut open = watch(&server, 102);
    drop(server);
    assert!(open.line().is_err());
}
