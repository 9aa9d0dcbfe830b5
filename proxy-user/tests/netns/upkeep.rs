//! What an agent keeps right after its start: programs on devices that change, or that others have
//! taken them from.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::installed::{is_program_on, methods, programs_on};
use crate::stage::{RELIST, Stage, eventually, within};
use xtask::cluster::Namespace;

fn ip(place: &Namespace, arguments: &str) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    place.command("ip", &arguments).unwrap();
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

#[test]
fn an_adopted_device_gets_the_programs_of_a_port_and_its_own_again() {
    let mut stage = Stage::new(&[]);
    let place = stage.cluster.node(1).namespace().clone();
    ip(&place, "link add fresh type veth peer name peer");
    eventually("both hooks are taken", || programs_on(&place, "fresh") == 2);
    stage.take_agent(1).kill().unwrap();
    stage.start_agent(1);
    ip(&place, "link add bridge type bridge");
    ip(&place, "link set fresh master bridge");
    let has_program = |name: &str| is_program_on(&place, "fresh", name);
    eventually("a port has a program of its own", || {
        has_program("ferrule_ingr_br") && programs_on(&place, "fresh") == 2
    });
    assert_eq!(programs_on(&place, "bridge"), 0, "its ports have them");
    ip(&place, "link set fresh nomaster");
    eventually("it is attached again", || {
        has_program("ferrule_ingress") && stage.is_attached(1, "fresh")
    });
    let before = open_files(stage.agent(1).pid());
    for number in 0..10 {
        let (old, new) = (format!("fresh{number}"), format!("fresh{}", number + 1));
        let old = if number == 0 { "fresh" } else { &old };
        ip(&place, &format!("link set {old} name {new}"));
        eventually("the new name is known", || stage.is_attached(1, &new));
    }
    eventually("no file stays open", || {
        open_files(stage.agent(1).pid()) == before
    });
}

/// Takes everything off `eth0` of the first node without telling the agent.
pub(crate) fn strip(stage: &Stage, method: &str) {
    let node = stage.cluster.node(1);
    if method == "clsact" {
        let arguments = ["qdisc", "del", "dev", "eth0", "clsact"];
        node.namespace().command("tc", &arguments).unwrap();
        return;
    }
    let arguments = ["-o", "link", "show", "eth0"];
    let line = node.namespace().command("ip", &arguments).unwrap();
    let (index, _) = line.split_once(':').unwrap();
    for hook in ["ingress", "egress"] {
        let pin = format!("ferrule/links/{}-{hook}", index.trim());
        std::fs::remove_file(node.paths().bpffs.join(pin)).unwrap();
    }
    eventually("the links are gone", || {
        programs_on(node.namespace(), "eth0") == 0
    });
}

pub(crate) fn is_on(place: &Namespace, method: &str) -> bool {
    if method == "tcx" {
        return programs_on(place, "eth0") == 2;
    }
    ["ingress", "egress"].iter().all(|hook| {
        let filters = ["filter", "show", "dev", "eth0", hook];
        let filters = place.command("tc", &filters);
        filters.is_ok_and(|filters| filters.contains("handle"))
    })
}

#[test]
fn what_others_take_off_a_device_is_put_back() {
    for method in methods() {
        let stage = Stage::new(&["--attach", method]);
        let place = stage.cluster.node(1).namespace();
        strip(&stage, method);
        assert!(!is_on(place, method));
        ip(place, "link set dev eth0 txqueuelen 500");
        eventually("an event is enough", || is_on(place, method));
        strip(&stage, method);
        within(RELIST, "so is time", || is_on(place, method));
        assert!(stage.is_attached(1, "eth0"));
    }
}
