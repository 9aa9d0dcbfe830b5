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
    };
    node.namespace().run(reset).unwrap();
    let mut agent = node.start_agent(&script, &[]).unwrap();
    agent.wait_synced(PATIENCE).unwrap();
    let wanted = [
        "net.ipv4.ip_local_reserved_ports is not set to 1024-32767",
        "net.ipv4.conf.lo.accept_local is not set to 1",
    ];
    let status = agent.status().unwrap();
    assert!(status["agent"]["reserved_ports"].is_null());
    let warnings = status["agent"]["warnings"].to_string();
    for wanted in wanted {
        assert!(warnings.contains(wanted), "{warnings}");
        assert!(agent.log().contains(wanted), "{}", agent.log());
    }
    stage.agents[0] = Some(agent);
    expect_service(&stage);
}
