//! kube-proxy's own cases about health: what probes and load balancers are told, step by step.
#![expect(clippy::unwrap_used, reason = "a test: to panic is to fail")]

use axum::Router;
use axum::body::to_bytes;
use axum::http::Request;
use proxy_user::cluster::{Cluster, ServiceName};
use proxy_user::frontend::HealthCheck;
use proxy_user::health::{Criteria, Doctor, HealthCheckServers, health_routes};
use proxy_user::metrics::ProbeMetrics;
use proxy_user::source::{Notices, manifests};
use proxy_user::sync::{HealthChecks, NodeState, Vitals};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt as _;

const PACKETS: &str = include_str!("conformance/packets.json");
/// What has to happen happens long before.
const LIMIT: Duration = Duration::from_secs(60);

/// The cases of a kind, each with its name.
fn cases(kind: &str) -> Vec<(String, Value)> {
    let all: Vec<Value> = serde_json::from_str(PACKETS).unwrap();
    let cases = all.into_iter().filter(|case| case["kind"] == kind);
    cases
        .map(|case| (case["id"].as_str().unwrap().to_owned(), case))
        .collect()
}

fn steps(case: &Value) -> impl Iterator<Item = (usize, &Value)> {
    case["steps"].as_array().unwrap().iter().enumerate()
}

fn objects(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap()
}

#[test]
fn endpoints_are_counted_that_are_here_and_ready() {
    let cases = cases("local_ready_endpoints");
    assert_eq!(cases.len(), 2);
    for (id, case) in cases {
        let mut cluster = Cluster::new(case["node"]["nodeName"].as_str().unwrap());
        let mut names = Vec::new();
        for manifest in ["services", "endpointslices"].map(|kind| case[kind].as_array().unwrap()) {
            for object in manifest
                .iter()
                .flat_map(|it| manifests::objects(&it.to_string()).unwrap())
            {
                let dirty = cluster.apply(&object);
                names.extend(dirty.services);
            }
        }
        names.dedup();
        let counts = names
            .iter()
            .map(|name| (name, cluster.local_ready(name)[0]));
        let counts = counts.filter(|(_, count)| *count > 0);
        let counts: BTreeMap<String, usize> = counts
            .map(|(name, count)| (name.to_string(), count))
            .collect();
        assert_eq!(json!(counts), case["expect"]["localReadyEndpoints"], "{id}");
    }
}

/// The loop's vitals, as if time had passed.
#[derive(Default)]
struct Patient {
    vitals: Vitals,
    /// When everything was last written, to be compared.
    written: Option<SystemTime>,
}

impl Patient {
    fn suffer(&mut self, step: &Value) {
        let families = step["families"].as_array().into_iter().flatten();
        let families = families.map(|name| usize::from(name == "IPv6"));
        match step["action"].as_str().unwrap() {
            "request" => {}
            "updated" => {
                self.written = Some(SystemTime::now());
                for family in families {
                    self.vitals.waiting_since[family] = None;
                    self.vitals.written[family] = self.written;
                }
            }
            "queuedUpdate" => {
                for family in families {
                    self.vitals.waiting_since[family].get_or_insert_with(Instant::now);
                }
            }
            "advance" => self.age(Duration::from_secs(step["seconds"].as_u64().unwrap())),
            "node" => self.vitals.node = node(step),
            other => panic!("unknown step {other}"),
        }
    }

    fn age(&mut self, time: Duration) {
        for since in self.vitals.waiting_since.iter_mut().flatten() {
            *since = since.checked_sub(time).unwrap();
        }
        for written in self
            .vitals
            .written
            .iter_mut()
            .chain([&mut self.written])
            .flatten()
        {
            *written -= time;
        }
    }
}

/// As the mirror sees the object.
fn node(step: &Value) -> NodeState {
    let taints = step["taints"].as_array().into_iter().flatten();
    let taints: Vec<_> = taints
        .map(|key| json!({"key": key, "effect": "NoSchedule"}))
        .collect();
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "test-node"},
                          "spec": {"taints": taints}});
    if step["deletionTimestamp"] == true {
        node["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    let mut cluster = Cluster::new("test-node");
    cluster.apply(&manifests::objects(&node.to_string()).unwrap()[0]);
    match cluster.node().unwrap().is_leaving {
        true => NodeState::Leaving,
        false => NodeState::Present,
    }
}

async fn probe(routes: &Router, path: &str) -> (u16, Value) {
    let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
    let response = routes.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 65536).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn probes_are_told_what_kube_proxy_tells_them() {
    let cases = cases("healthz");
    assert_eq!(cases.len(), 2);
    for (id, case) in cases {
        let criteria = Criteria {
            patience: Duration::from_secs(case["config"]["healthTimeoutSeconds"].as_u64().unwrap()),
            needs_node: true,
        };
        let path = case["config"]["path"].as_str().unwrap();
        let mut patient = Patient::default();
        patient.vitals.node = NodeState::Present;
        let (vitals_in, vitals) = watch::channel(Vitals::default());
        let routes = health_routes(Doctor::new(vitals, criteria), ProbeMetrics::default());
        for (number, step) in steps(&case) {
            patient.suffer(step);
            vitals_in.send_replace(patient.vitals.clone());
            let told = probe(&routes, path).await;
            if let Some(expect) = step["expect"].as_object() {
                check_probe(
                    &format!("{id}, step {number}"),
                    expect,
                    &told,
                    patient.written,
                );
            }
        }
    }
}

fn check_probe(
    step: &str,
    expect: &Map<String, Value>,
    (status, body): &(u16, Value),
    written: Option<SystemTime>,
) {
    assert_eq!(expect["status"], *status, "{step}: {body}");
    assert_eq!(expect["healthy"], body["healthy"], "{step}: {body}");
    let families = objects(&body["status"]).iter();
    let families: Map<_, _> = families
        .map(|(name, it)| (name.clone(), it["healthy"].clone()))
        .collect();
    assert_eq!(
        expect["statusByFamily"],
        Value::Object(families),
        "{step}: {body}"
    );
    match &expect["nodeEligible"] {
        Value::String(absent) if absent == "absent" => {
            assert!(body.get("nodeEligible").is_none(), "{step}");
        }
        eligible => assert_eq!(body["nodeEligible"], *eligible, "{step}: {body}"),
    }
    let updated = match expect["lastUpdated"].as_str().unwrap() {
        "now" => body["currentTime"].clone(),
        _ => humantime::format_rfc3339_nanos(written.unwrap())
            .to_string()
            .into(),
    };
    assert_eq!(body["lastUpdated"], updated, "{step}: {body}");
}

/// What the loop tells, from what kube-proxy's proxiers say in two calls: which Services there are, and then how
/// many endpoints these have. Between the two none are known of a Service that is new or has another port.
#[derive(Default)]
struct Told(BTreeMap<ServiceName, HealthCheck>);

impl Told {
    fn services(&mut self, services: &Map<String, Value>) {
        let before = std::mem::take(&mut self.0);
        for (name, port) in services {
            let name = service(name);
            let port = port.as_u64().unwrap().try_into().unwrap();
            let known = before.get(&name).filter(|check| check.port == port);
            let check = known.cloned().unwrap_or_else(|| HealthCheck {
                port,
                uid: "".into(),
                local_endpoints: [Some(0), None],
            });
            self.0.insert(name, check);
        }
    }

    fn endpoints(&mut self, endpoints: &Map<String, Value>) {
        for (name, check) in &mut self.0 {
            let count = endpoints.get(&name.to_string());
            let count = count.map_or(0, |count| count.as_u64().unwrap());
            check.local_endpoints = [Some(count.try_into().unwrap()), None];
        }
    }
}

fn service(name: &str) -> ServiceName {
    let (namespace, name) = name.split_once('/').unwrap();
    ServiceName::new(namespace, name)
}

/// What is left of a connection after a request.
async fn ask(port: u16, method: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn until_open(port: u16, is_open: bool) {
    let deadline = Instant::now() + LIMIT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .is_ok()
        != is_open
    {
        assert!(
            Instant::now() < deadline,
            "port {port}: open is not {is_open}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn load_balancers_are_told_what_kube_proxy_tells_them() {
    let cases = cases("healthcheck_service");
    assert_eq!(cases.len(), 1);
    for (id, case) in cases {
        let (checks_in, checks) = watch::channel(HealthChecks {
            addresses: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            ..HealthChecks::default()
        });
        let (vitals_in, vitals) = watch::channel(Vitals::default());
        let criteria = Criteria {
            patience: LIMIT,
            needs_node: false,
        };
        let doctor = Doctor::new(vitals, criteria);
        let servers = HealthCheckServers::new(checks, doctor, "test-node", Notices::default());
        let complaints = servers.complaints();
        let running = tokio::spawn(servers.run());
        let mut told = Told::default();
        let mut ports = Vec::new();
        for (number, step) in steps(&case) {
            match step["action"].as_str().unwrap() {
                "syncServices" => told.services(objects(&step["services"])),
                "syncEndpoints" => told.endpoints(objects(&step["endpoints"])),
                "proxyHealthy" => {
                    let long_ago = Instant::now().checked_sub(2 * LIMIT);
                    let since = long_ago.filter(|_| step["value"] == false);
                    vitals_in.send_modify(|vitals| vitals.waiting_since[0] = since);
                }
                other => panic!("unknown step {other}"),
            }
            checks_in.send_modify(|checks| checks.services.clone_from(&told.0));
            let open: Vec<u16> = told.0.values().map(|check| check.port).collect();
            ports.extend(&open);
            for port in &ports {
                until_open(*port, open.contains(port)).await;
            }
            check_answers(&format!("{id}, step {number}"), &step["expect"], &told).await;
        }
        assert!(complaints.borrow().is_empty());
        // Nothing stays open when nobody tells of Services any more.
        drop(checks_in);
        running.await.unwrap();
        for port in ports {
            until_open(port, false).await;
        }
    }
}

async fn check_answers(step: &str, expect: &Value, told: &Told) {
    let ports = || {
        told.0
            .values()
            .map(|check| SocketAddr::from((Ipv4Addr::UNSPECIFIED, check.port)))
    };
    if let Some(open) = expect["openPorts"].as_array() {
        assert_eq!(
            json!(ports().map(|it| it.to_string()).collect::<Vec<_>>()),
            json!(open),
            "{step}"
        );
    }
    if let Some(count) = expect["openPortCount"].as_u64() {
        assert_eq!(count, ports().count() as u64, "{step}");
    }
    if let Some(services) = expect["services"].as_array() {
        let names: Vec<String> = told.0.keys().map(ToString::to_string).collect();
        assert_eq!(json!(names), json!(services), "{step}");
    }
    for (name, count) in expect["localEndpoints"].as_object().into_iter().flatten() {
        let answer = ask(told.0[&service(name)].port, "GET", "/healthz")
            .await
            .unwrap();
        assert!(
            answer.contains(&format!("\t\"localEndpoints\": {count},\n")),
            "{step}: {answer}"
        );
    }
    for (name, wanted) in expect["responses"].as_object().into_iter().flatten() {
        // The path and the method don't matter.
        for (method, path) in [
            ("GET", "/healthz"),
            ("GET", "/"),
            ("POST", "/any/path?at=all"),
            ("PUT", "/x"),
        ] {
            let answer = ask(told.0[&service(name)].port, method, path)
                .await
                .unwrap();
            check_answer(&format!("{step}, {method} {path}"), name, wanted, &answer);
        }
    }
}

fn check_answer(step: &str, name: &str, wanted: &Value, answer: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = format!("HTTP/1.1 {} ", wanted["status"]);
    assert!(head.starts_with(&status), "{step}: {head}");
    for (header, value) in objects(&wanted["headers"]) {
        let line = format!("{header}: {}", value.as_str().unwrap());
        assert!(head.lines().any(|it| it == line), "{step}: {line}: {head}");
    }
    let ServiceName { namespace, name } = service(name);
    let (local, healthy) = (&wanted["localEndpoints"], &wanted["serviceProxyHealthy"]);
    let text = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
         \t\"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    assert_eq!(body, text, "{step}");
}
