//! What the command says would become of packets, from the maps of a node.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

use crate::rows::rows;
use crate::stage::{NODE_PORT, PATIENCE, PORT, Stage, ask, binary, eventually};
use proxy_user::datapath::content::Content;
use proxy_user::datapath::pins::Pins;
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use xtask::cluster::{CLUSTER_CIDR, Protocol};

/// Devices alone translate: their programs remember clients by address.
const ARGS: [&str; 2] = ["--socket-lb", "off"];

/// Answers to queries, by a command in the first node's place.
fn answers(stage: &Stage, arguments: &[String], queries: &[Value]) -> Vec<Value> {
    let node = stage.cluster.node(1);
    let mut command = Command::new(binary());
    command.args(["explain", "--batch"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = node.namespace().run(|| command.spawn().unwrap());
    let mut child = child.unwrap();
    let mut input = child.stdin.take().unwrap();
    for query in queries {
        writeln!(input, "{query}").unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let answers = text.lines().map(|it| serde_json::from_str(it).unwrap());
    answers.collect()
}

/// Over the maps of the first node.
fn live(stage: &Stage, queries: &[Value]) -> Vec<Value> {
    let paths = stage.cluster.node(1).paths();
    let flags = [("--bpffs", &paths.bpffs), ("--run-dir", &paths.run_dir)];
    let arguments = flags.map(|(flag, path)| format!("{flag}={}", path.display()));
    answers(stage, &arguments, queries)
}

/// Over the manifests that its agent reads.
fn offline(stage: &Stage, queries: &[Value]) -> Vec<Value> {
    let node = stage.cluster.node(1);
    let manifests = stage.cluster.manifests().unwrap();
    let mut arguments = vec![
        format!("--manifests={}", manifests.folder().display()),
        format!("--node-name={}", node.name()),
        format!("--cluster-cidr={CLUSTER_CIDR}"),
    ];
    let addresses = node.addresses().into_iter();
    arguments.extend(addresses.map(|ip| format!("--node-address={ip}")));
    answers(stage, &arguments, queries)
}

fn query(from: IpAddr, to: SocketAddr, protocol: &str) -> Value {
    json!({"from": from.to_string(), "to": to.to_string(), "proto": protocol})
}

/// From a pod, from outside and from the node, to all that there is, and to what there is not.
fn queries(stage: &Stage) -> Vec<Value> {
    let node = stage.cluster.node(1).addresses();
    let clients = [
        stage.shell.addresses(),
        stage.web[0].addresses(),
        stage.cluster.client().addresses(),
        node,
    ];
    let mut queries = Vec::new();
    for (index, own) in node.into_iter().enumerate() {
        let cluster_ip = stage.service.cluster_ips[index];
        let dialled = [
            SocketAddr::new(cluster_ip, PORT),
            SocketAddr::new(cluster_ip, PORT + 1),
            SocketAddr::new(own, NODE_PORT),
            SocketAddr::new(own, NODE_PORT + 1),
        ];
        for (client, to) in clients.iter().flat_map(|it| dialled.map(|to| (it, to))) {
            let from = client[index];
            queries.extend(["tcp", "udp", "sctp"].map(|protocol| query(from, to, protocol)));
        }
    }
    queries
}

#[test]
fn explain_answers_from_maps_as_from_manifests_and_writes_nothing() {
    let mut stage = Stage::new(&ARGS);
    let queries = queries(&stage);
    let expected = offline(&stage, &queries);
    let forwarded = expected.iter().filter(|it| it["verdict"] == "forward");
    assert_eq!(
        forwarded.count(),
        2 * 4 * 2 * 2,
        "families, clients, frontends, protocols"
    );
    assert_eq!(live(&stage, &queries), expected);
    let bpffs = stage.cluster.node(1).paths().bpffs.clone();
    assert!(rows(&bpffs).is_empty());
    stage.take_agent(1).kill().unwrap();
    for (without, with) in live(&stage, &queries).iter().zip(&expected) {
        let mut with = with.clone();
        with["service"] = Value::Null;
        with["steps"] = without["steps"].clone();
        assert_eq!(*without, with);
        let needs_name = with["frontend"] != Value::Null;
        assert_eq!(
            without["steps"].to_string().contains("no agent runs"),
            needs_name
        );
    }
}

#[test]
fn explain_knows_the_backend_that_a_client_goes_on_with() {
    let mut stage = Stage::new(&ARGS);
    stage.service.spec_lines = vec!["sessionAffinity: ClientIP".to_owned()];
    stage
        .cluster
        .manifests()
        .unwrap()
        .write(&stage.service)
        .unwrap();
    let to = stage.cluster_ips()[0];
    let query = query(stage.shell.addresses()[0], to, "tcp");
    let answer = || live(&stage, std::slice::from_ref(&query)).remove(0);
    eventually("clients stick", || answer()["affinity"] == true);
    assert_eq!(answer()["backends"].as_array().unwrap().len(), 3);
    let served = ask(&stage.shell, Protocol::Tcp, to, PATIENCE).unwrap();
    let web = stage
        .web
        .iter()
        .find(|pod| pod.name() == served.server)
        .unwrap();
    let content = || Content::read(&Pins::new(&stage.cluster.node(1).paths().bpffs)).unwrap();
    let before = content().affinities;
    assert_eq!(before.len(), 1);
    let backend = SocketAddr::new(web.addresses()[0], crate::stage::TARGET);
    assert_eq!(answer()["backends"], json!([backend.to_string()]));
    assert_eq!(content().affinities, before);
}

#[test]
fn explain_knows_pods_by_the_device_that_was_given() {
    let mut stage = Stage::new(&ARGS);
    let by_device = [
        "--detect-local-mode=InterfaceNamePrefix",
        "--pod-interface-name-prefix=pod",
    ];
    stage.restart_agent(1, &[&ARGS[..], &by_device].concat());
    let from = stage.shell.addresses()[0];
    let of = |device: Option<&str>| {
        let mut query = query(from, stage.cluster_ips()[0], "tcp");
        query["iif"] = device.into();
        live(&stage, &[query]).remove(0)["masquerade"].clone()
    };
    assert_eq!(of(Some("pod2")), false);
    assert_eq!(of(Some("eth0")), true);
    assert_eq!(of(None), true);
}
