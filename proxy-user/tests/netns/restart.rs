//! Agents that end, start again, or start otherwise than before.

use crate::installed::{attached, methods, programs_attached};
use crate::stage::{
    PATIENCE, RELIST, Stage, binary, eventually, expect_all, expect_service, within,
};
use crate::upkeep::{is_on, strip};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use xtask::cluster::Protocol;
use xtask::traffic::tcp_open;

#[test]
fn traffic_goes_on_when_the_agent_is_killed_and_the_next_one_adopts_it() {
    for method in methods() {
        let mut stage = Stage::new(&["--attach", method]);
        let before = attached(&stage, 1);
        let at_least = if method == "tcx" { 6 } else { 2 };
        assert!(before.len() >= at_least, "{before:?}");
        let mut open: Vec<_> = stage
            .cluster_ips()
            .into_iter()
            .map(|to| tcp_open(stage.shell.namespace(), to, PATIENCE).expect("it opens"))
            .collect();
        stage.take_agent(1).kill().unwrap();
        open.iter_mut()
            .for_each(|connection| assert!(connection.echo(b"killed").is_ok(), "it goes on"));
        let to = stage.cluster_ips()[0];
        expect_all(&stage.shell, Protocol::Tcp, to, &stage.web, |_| {
            stage.shell.v4().into()
        });

        stage.start_agent(1);
        open.iter_mut()
            .for_each(|connection| assert!(connection.echo(b"adopted").is_ok(), "it goes on"));
        assert_eq!(attached(&stage, 1), before, "in the same places as before");
        expect_service(&stage);
        let left = stage.web[1..].to_vec();
        stage.set_backends(&left);
        stage.assert_undisturbed();
    }
}

#[test]
fn two_agents_on_one_node_are_one_too_many() {
    let stage = Stage::new(&[]);
    let node = stage.cluster.node(1);
    // Kept if it has not ended yet.
    let _second = node.start_agent(&binary(), &[]);
    eventually("the second one gives up", || {
        let log = std::fs::read_to_string(&node.paths().log).unwrap();
        log.contains("another agent holds")
    });
    expect_service(&stage);
}

#[test]
fn maps_of_another_size_are_replaced_without_losing_the_service() {
    let mut stage = Stage::new(&[]);
    stage.take_agent(1).kill().unwrap();
    // The default is another size than the stage's.
    let mut agent = stage.cluster.node(1).start_agent(&binary(), &[]).unwrap();
    agent.wait_synced(PATIENCE).unwrap();
    assert!(
        agent.log().contains("FLOWS_V4 of an earlier version"),
        "{}",
        agent.log()
    );
    stage.agents[0] = Some(agent);
    expect_service(&stage);
}

#[test]
fn the_other_way_of_attaching_takes_the_place_of_the_first() {
    let mut stage = Stage::new(&[]);
    for method in ["clsact", "tcx"] {
        stage.take_agent(1).kill().unwrap();
        let node = stage.cluster.node(1);
        let mut agent = node.start_agent(&binary(), &["--attach", method]).unwrap();
        agent.wait_synced(PATIENCE).unwrap();
        let filters = ["filter", "show", "dev", "eth0", "ingress"];
        let filters = node.namespace().command("tc", &filters).unwrap();
        assert_eq!(filters.contains("handle"), method == "clsact", "{filters}");
        assert_eq!(programs_attached(node.namespace()), method == "tcx");
        stage.agents[0] = Some(agent);
        expect_service(&stage);
    }
}

/// The agent as the unit in deploy/ starts it: with three capabilities, and no limit on locked memory.
fn with_few_capabilities(stage: &Stage) -> PathBuf {
    let script = stage.cluster.folder().join("ferrule-capped");
    let set = "-all,+bpf,+perfmon,+net_admin";
    let agent = binary();
    let text = format!(
        "#!/bin/sh\nulimit -l unlimited\nexec setpriv --bounding-set={set} {} \"$@\"\n",
        agent.display()
    );
    std::fs::write(&script, text).expect("the script is written");
    std::fs::set_permissions(&script, Permissions::from_mode(0o700))
        .expect("the script can be started");
    script
}

#[test]
fn three_capabilities_are_enough_to_start_to_adopt_and_to_put_back() {
    for method in methods() {
        let mut stage = Stage::new(&[]);
        let script = with_few_capabilities(&stage);
        for _ in 0..2 {
            stage.take_agent(1).kill().unwrap();
            let node = stage.cluster.node(1);
            let mut agent = node.start_agent(&script, &["--attach", method]).unwrap();
            agent.wait_synced(PATIENCE).unwrap();
            stage.agents[0] = Some(agent);
            expect_service(&stage);
        }
        let place = stage.cluster.node(1).namespace();
        strip(&stage, method);
        within(RELIST, "what was taken off is put back", || {
            is_on(place, method)
        });
    }
}
