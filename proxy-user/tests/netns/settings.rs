//! Settings of the kernel that the agent makes.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::stage::{PATIENCE, Stage, binary, expect_service};
use std::fs::Permissions;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use xtask::cluster::Namespace;

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const ACCEPT_LOCAL: &str = "/proc/sys/net/ipv4/conf/lo/accept_local";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const ESTABLISHED: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
const CLOSE_WAIT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
const BE_LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
const UDP: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
const UDP_STREAM: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";

/// All of it by one call: the kernel returns nothing to a second one.
fn read(place: &Namespace, path: &str) -> String {
    let read = || {
        let mut text = vec![0; 1 << 16];
        let length = std::fs::File::open(path).unwrap().read(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    place.run(read).unwrap()
}

#[test]
fn ports_are_reserved_beside_those_of_others() {
    let mut stage = Stage::new(&[]);
    let place = stage.cluster.node(1).namespace().clone();
    assert_eq!(read(&place, RESERVED), "1024-32767");
    assert_eq!(read(&place, ACCEPT_LOCAL), "1");
    let status = stage.agent(1).status().unwrap();
    assert_eq!(status["agent"]["reserved_ports"], "1024-32767");
    assert_eq!(status["agent"]["warnings"].to_string(), "[]");

    stage.take_agent(1).kill().unwrap();
    let others: Vec<String> = (20000..20040).map(|port| (port * 2).to_string()).collect();
    let others = others.join(",");
    let write = || std::fs::write(RESERVED, &others).unwrap();
    place.run(write).unwrap();
    let node = stage.cluster.node(1);
    let ports = ["--snat-ports", "50000-61000"];
    let mut agent = node.start_agent(&binary(), &ports).unwrap();
    agent.wait_synced(PATIENCE).unwrap();
    let wanted = format!("30000-32767,{others},50000-61000");
    assert_eq!(read(&place, RESERVED), wanted);
    let status = agent.status().unwrap();
    let warnings = status["agent"]["warnings"].to_string();
    assert!(warnings.contains("--snat-ports"), "{warnings}");
    assert!(
        warnings.contains("ephemeral ports 32768-60999"),
        "{warnings}"
    );
}

fn write(place: &Namespace, path: &str, value: &str) {
    let write = || std::fs::write(path, value).unwrap();
    place.run(write).unwrap();
}

#[test]
fn netfilter_is_set_as_by_kube_proxy_but_for_what_is_the_machines() {
    let machines = std::fs::read_to_string(MAX).unwrap();
    let mut stage = Stage::new(&[]);
    let place = stage.cluster.node(1).namespace().clone();
    assert_eq!(read(&place, ESTABLISHED), "86400");
    assert_eq!(read(&place, CLOSE_WAIT), "3600");
    let status = stage.agent(1).status().unwrap();
    assert_eq!(status["agent"]["warnings"].to_string(), "[]");

    let others = [ESTABLISHED, CLOSE_WAIT, BE_LIBERAL, UDP, UDP_STREAM];
    for (path, value) in others.iter().zip(["777", "778", "0", "779", "780"]) {
        write(&place, path, value);
    }
    let flags = [
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=20m",
        "--conntrack-tcp-be-liberal",
        "--conntrack-udp-timeout=1500ms",
    ];
    stage.restart_agent(1, &flags);
    let now = others.map(|path| read(&place, path));
    assert_eq!(now, ["777", "1200", "1", "2", "780"]);
    let status = stage.agent(1).status().unwrap();
    assert_eq!(status["agent"]["warnings"].to_string(), "[]");
    assert_eq!(std::fs::read_to_string(MAX).unwrap(), machines);
}

/// The agent as it runs in a container: nothing below /proc/sys can be written.
fn without_settings(stage: &Stage) -> PathBuf {
    let script = stage.cluster.folder().join("ferrule-contained");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -c '\
         mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"' \
         sh {} \"$@\"\n",
        binary().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
    script
}

#[test]
fn an_agent_that_can_not_set_anything_says_what_should_be_set() {
    let mut stage = Stage::new(&[]);
    stage.take_agent(1).kill().unwrap();
    let script = without_settings(&stage);
    let node = stage.cluster.node(1);
    let reset = || {
        std::fs::write(RESERVED, "\n").unwrap();
        std::fs::write(ACCEPT_LOCAL, "0").unwrap();
        std::fs::write(CLOSE_WAIT, "60").unwrap();
    };
    node.namespace().run(reset).unwrap();
    let mut agent = node.start_agent(&script, &[]).unwrap();
    agent.wait_synced(PATIENCE).unwrap();
    let wanted = [
        "net.ipv4.ip_local_reserved_ports is not set to 1024-32767",
        "net.ipv4.conf.lo.accept_local is not set to 1",
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait is not set to 3600",
    ];
    let status = agent.status().unwrap();
    assert!(status["agent"]["reserved_ports"].is_null());
    let warnings = status["agent"]["warnings"].to_string();
    let others = ["nf_conntrack_max", "timeout_established"];
    for is_fine in others {
        assert!(!warnings.contains(is_fine), "{warnings}");
    }
    for wanted in wanted {
        assert!(warnings.contains(wanted), "{warnings}");
        assert!(agent.log().contains(wanted), "{}", agent.log());
    }
    stage.agents[0] = Some(agent);
    expect_service(&stage);
}
