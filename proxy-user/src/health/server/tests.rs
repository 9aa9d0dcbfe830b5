use super::*;
use crate::health::Criteria;
use crate::http::{Place, serve};
use crate::sync::{NodeState, Vitals};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

const CRITERIA: Criteria = Criteria {
    patience: Duration::from_secs(60),
    needs_node: true,
};

async fn start(router: Router) -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let place = Place {
        what: "a test",
        address,
        usual_owner: None,
        is_required: true,
    };
    tokio::spawn(serve(place, router, drop));
    address
}

/// Status, headers in lower case, and body.
async fn ask(to: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = loop {
        match TcpStream::connect(to).await {
            Ok(stream) => break stream,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn probes_are_answered_as_kube_proxy_answers_them() {
    let probes = ProbeMetrics::default();
    let (vitals_in, vitals) = watch::channel(Vitals::default());
    let at = start(health_routes(Doctor::new(vitals, CRITERIA), probes.clone())).await;
    let (status, head, body) = ask(at, "GET", "/healthz").await;
    assert_eq!(status, 503, "the node is not known");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["nodeEligible"], &body["healthy"]),
        (&false.into(), &true.into())
    );
    let (status, head, body) = ask(at, "GET", "/livez").await;
    assert_eq!(status, 200);
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    assert!(!body.contains("nodeEligible"), "{body}");
    vitals_in.send_modify(|vitals| vitals.node = NodeState::Present);
    assert_eq!(ask(at, "POST", "/healthz").await.0, 200, "any method");
    let long_ago = Instant::now().checked_sub(2 * CRITERIA.patience).unwrap();
    vitals_in.send_modify(|vitals| vitals.waiting_since[1] = Some(long_ago));
    assert_eq!(ask(at, "GET", "/livez").await.0, 503);
    assert_eq!(ask(at, "GET", "/healthz").await.0, 503);
    assert_eq!(ask(at, "GET", "/").await.0, 404);
    assert_eq!(probes.counts(), [[1, 2], [1, 1]]);
}
