//! Pods whose sockets are left alone.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::sockets::{Call, inside, targets, tcp, udp_connected, udp_unconnected};
use crate::stage::{Stage, eventually};
use std::path::PathBuf;
use xtask::cluster::Pod;

const UID: &str = "0a1b2c3d-0000-4000-8000-00000000beef";
const OTHER_UID: &str = "0a1b2c3d-0000-4000-8000-00000000cafe";

/// By an annotation.
const ANNOTATED: &str = "annotations: {ferrule.dev/socket-lb: 'off'}";
/// By a container of its own.
const WITH_SIDECAR: &str = "labels: {app: shell}";

/// Writes the object of a pod that has opted out by its metadata; returns the file.
fn opt_out(stage: &Stage, pod: &Pod, uid: &str, how: &str) -> PathBuf {
    let is_host = uid == UID;
    let sidecar = match how {
        WITH_SIDECAR => ", {name: istio-proxy}",
        _ => "",
    };
    let [v4, v6] = pod.addresses();
    let text = format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  uid: {uid}
  {how}
spec:
  nodeName: {node}
  hostNetwork: {is_host}
  containers: [{{name: app}}{sidecar}]
status:
  podIPs: [{{ip: '{v4}'}}, {{ip: '{v6}'}}]
",
        name = pod.name(),
        node = pod.node().unwrap(),
    );
    let folder = &stage.cluster.node(1).paths().manifests;
    let path = folder.join(format!("pod-{}.yaml", pod.name()));
    std::fs::write(&path, text).unwrap();
    path
}

/// Asks in all ways until `count` of calls under a name goes up each time.
fn expect_calls(stage: &Stage, caller: &Pod, names: [&str; 2]) {
    let calls: [(&str, Call); 3] = [
        (names[0], tcp),
        (names[0], udp_connected),
        (names[1], udp_unconnected),
    ];
    for to in targets(stage) {
        for (name, call) in calls {
            let before = stage.count(1, "sockets", name);
            let told = call(caller, to);
            let told = told.unwrap_or_else(|error| panic!("{} -> {to}: {error}", caller.name()));
            assert_eq!(told.peer, to, "{}", caller.name());
            let after = stage.count(1, "sockets", name);
            assert!(after > before, "{name} {} -> {to}", caller.name());
        }
    }
}

/// What becomes of a pod that opts out, and what its sockets are told by.
fn expect_opt_out(stage: &Stage, pod: &Pod, [uid, how, by]: [&str; 3]) {
    let exempt = || stage.agent(1).status().unwrap()["agent"]["sockets"]["exempt"].clone();
    // Before it is known the pod is like all others.
    expect_calls(stage, pod, ["socket-connected", "socket-sent"]);
    let manifest = opt_out(stage, pod, uid, how);
    eventually("the pod is found", || exempt()[0]["by"] == by);
    expect_calls(stage, pod, ["socket-left", "socket-left"]);
    std::fs::remove_file(manifest).unwrap();
    eventually("the pod is forgotten", || exempt() == serde_json::json!([]));
    expect_calls(stage, pod, ["socket-connected", "socket-sent"]);
    stage.assert_undisturbed();
}

#[test]
fn pods_that_have_opted_out_are_known_by_their_cgroup() {
    let stage = Stage::new(&[]);
    let node = stage.cluster.node(1);
    // The systemd driver of kubelet has other names for cgroups than the other one.
    let uid = UID.replace('-', "_");
    let slice = format!("kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice/app");
    let slice = node.add_cgroup(&slice).unwrap();
    let pod = node.host_pod("host-pod").within(&slice);
    expect_opt_out(&stage, &pod, [UID, ANNOTATED, "cgroup"]);
}

#[test]
fn pods_that_have_opted_out_are_known_by_their_network_namespace() {
    let stage = Stage::new(&[]);
    let pod = inside(&stage, 1, &stage.shell);
    expect_opt_out(&stage, &pod, [OTHER_UID, ANNOTATED, "netns"]);
}

#[test]
fn pods_with_a_sidecar_of_istio_are_left_alone() {
    let stage = Stage::new(&[]);
    let pod = inside(&stage, 1, &stage.shell);
    expect_opt_out(&stage, &pod, [OTHER_UID, WITH_SIDECAR, "netns"]);
}
