//! Other people's programs and qdiscs on the same devices.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::foreign::Foreign;
use crate::installed::methods;
use crate::stage::{
    self, PATIENCE, RELIST, SHORT, Stage, ask, binary, eventually, expect_all, expect_service,
    within,
};
use proxy_user::datapath::hook::Hook;
use std::net::SocketAddr;
use xtask::cluster::{Namespace, Pod, Protocol};
use xtask::traffic::udp_ask;

const QUESTIONS: u64 = 100;

/// Other people's programs on the uplink of the first node.
fn add_foreign(stage: &Stage) -> Vec<(&'static str, Foreign)> {
    let node = stage.cluster.node(1);
    let folder = |name: &str| node.paths().bpffs.join(name);
    let mut filter = Foreign::load(&folder("filter"));
    filter.attach_filters(node.namespace(), "eth0", 7);
    let mut all = vec![("filter", filter)];
    if methods().contains(&"tcx") {
        let mut link = Foreign::load(&folder("link"));
        link.attach_links(node.namespace(), "eth0");
        all.push(("link", link));
    }
    all
}

/// Each question and each answer passes the uplink once at least.
fn expect_seen(stage: &Stage, foreign: &[(&str, Foreign)]) {
    let before = stage.count(1, "passed", "established");
    let seen_before: Vec<u64> = foreign.iter().map(|(_, it)| it.seen()).collect();
    for _ in 0..QUESTIONS {
        let to = stage.node_ports(1)[0];
        udp_ask(stage.cluster.client().namespace(), to, PATIENCE).unwrap();
    }
    let ours = stage.count(1, "passed", "established") - before;
    assert!(ours >= QUESTIONS, "{ours} packets were translated");
    for ((name, it), before) in foreign.iter().zip(seen_before) {
        let seen = it.seen() - before;
        assert!(seen >= 2 * QUESTIONS, "the other {name} saw {seen} packets");
    }
}

#[test]
fn other_programs_on_the_device_see_every_packet() {
    for method in methods() {
        let mut stage = Stage::new(&["--attach", method]);
        let foreign = add_foreign(&stage);
        expect_seen(&stage, &foreign);
        // The other order: they are there when Ferrule comes.
        clean_up(&mut stage);
        stage.start_agent(1);
        expect_seen(&stage, &foreign);
        stage.assert_undisturbed();
    }
}

/// Removes all of Ferrule from the first node.
fn clean_up(stage: &mut Stage) {
    let node = stage.cluster.node(1);
    let paths = node.paths();
    let [bpffs, run_dir] = [&paths.bpffs, &paths.run_dir].map(|path| path.to_string_lossy());
    let arguments = ["cleanup", "--bpffs", &bpffs, "--run-dir", &run_dir];
    let program = binary();
    node.namespace()
        .command(&program.to_string_lossy(), &arguments)
        .unwrap();
    drop(stage.take_agent(1));
}

fn tc(place: &Namespace, arguments: &str) -> anyhow::Result<String> {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    place.command("tc", &arguments)
}

/// What the bandwidth plugin adds to a pod's device: a qdisc for what the pod sends, and a filter that
/// every packet passes.
fn limit(stage: &Stage, device: &str) -> anyhow::Result<Foreign> {
    let node = stage.cluster.node(1);
    let qdisc = format!("qdisc add dev {device} handle ffff: ingress");
    tc(node.namespace(), &qdisc)?;
    let mut filter = Foreign::load(&node.paths().bpffs.join("limit"));
    filter.attach_filter(node.namespace(), device, Hook::Ingress, 1);
    Ok(filter)
}

/// Why the agent of the first node leaves a device alone.
fn why_not(stage: &Stage, device: &str) -> String {
    let status = stage.agent(1).status().unwrap();
    let devices = status["agent"]["devices"].as_array().unwrap();
    let found = devices.iter().find(|it| it["name"] == device);
    found.map_or(String::new(), |it| it["why_not"].to_string())
}

#[test]
fn a_new_device_with_a_bandwidth_limit_keeps_it() {
    let mut stage = Stage::new(&["--attach", "clsact"]);
    let pod = stage.cluster.add_pod(1, "limited").unwrap();
    // As a CNI plugin does, right after the device has been made.
    let limit = limit(&stage, "pod4").expect("there is room for the qdisc");
    eventually("the agent says why it leaves the device alone", || {
        why_not(&stage, "pod4").contains("kind ingress")
    });
    expect_limited(&stage, &pod, &limit);
    expect_service(&stage);

    let place = stage.cluster.node(1).namespace();
    tc(place, "qdisc del dev pod4 ingress").unwrap();
    let to = stage.cluster_ips()[0];
    within(RELIST, "the limit is gone: the device is taken", || {
        ask(&pod, Protocol::Tcp, to, SHORT).is_ok()
    });
    expect_all(&pod, Protocol::Tcp, to, &stage.web, |_| pod.v4().into());
}

/// A pod reaches others directly, through its limit.
fn expect_limited(stage: &Stage, pod: &Pod, limit: &Foreign) {
    let before = limit.seen();
    let direct = SocketAddr::from((stage.web[1].v4(), stage::TARGET));
    ask(pod, Protocol::Tcp, direct, PATIENCE).expect("others are reached");
    assert!(limit.seen() > before, "its packets are limited");
}

#[test]
fn a_bandwidth_limit_that_comes_later_is_refused_and_one_by_force_is_reported() {
    let stage = Stage::new(&["--attach", "clsact"]);
    assert!(limit(&stage, "pod2").is_err(), "the place is taken");
    expect_service(&stage);
    let place = stage.cluster.node(1).namespace();
    tc(place, "qdisc del dev pod2 clsact").unwrap();
    let limit = limit(&stage, "pod2").unwrap();
    within(RELIST, "the loss is reported", || {
        why_not(&stage, "pod2").contains("kind ingress")
    });
    expect_limited(&stage, &stage.shell, &limit);
}
