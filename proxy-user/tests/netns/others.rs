//! Others who serve Services on the node, or have left something behind: planted, and found.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::stage::{START, Stage, binary};
use proxy_user::datapath::others::warnings;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

/// What is said on the first node.
fn said(stage: &Stage) -> Vec<String> {
    let node = stage.cluster.node(1);
    let bpffs = node.paths().bpffs.clone();
    let said = node.namespace().run(|| warnings(&bpffs, false)).unwrap();
    // Programs are the machine's, whose they may be.
    said.into_iter()
        .filter(|it| !it.contains("(program "))
        .collect()
}

fn plant(stage: &Stage, program: &str, arguments: &[&str]) {
    let node = stage.cluster.node(1).namespace();
    node.command(program, arguments).unwrap();
}

#[test]
fn what_kube_proxy_has_left_behind_is_found_and_reported() {
    let mut stage = Stage::new(&[]);
    assert_eq!(said(&stage), [""; 0], "nobody is there");
    plant(
        &stage,
        "nft",
        &["add table ip nat; add chain ip nat KUBE-SERVICES"],
    );
    plant(
        &stage,
        "nft",
        &["add table ip6 kube-proxy; add chain ip6 kube-proxy services"],
    );
    plant(
        &stage,
        "ip",
        &["link", "add", "kube-ipvs0", "type", "bridge"],
    );
    let wanted = "kube-proxy has left behind table ip nat, table ip6 kube-proxy, device kube-ipvs0; remove it by \
                  kube-proxy --cleanup, or restart the node";
    assert_eq!(said(&stage), [wanted]);
    stage.take_agent(1).kill().unwrap();
    let mut agent = stage.cluster.node(1).start_agent(&binary(), &[]).unwrap();
    agent.wait_synced(START).unwrap();
    let status = agent.status().unwrap();
    let warned = status["agent"]["warnings"].to_string();
    assert!(warned.contains(wanted), "{warned}");
    let check = stage.cluster.node(1).namespace();
    let check = check
        .command(&binary().to_string_lossy(), &["check"])
        .unwrap();
    assert!(check.contains(&format!("Warning: {wanted}\n")), "{check}");
}

#[test]
fn the_agent_is_not_taken_for_kube_proxy_wherever_its_metrics_are() {
    let stage = Stage::new(&["--metrics-bind-address="]);
    let node = stage.cluster.node(1);
    let check = |run_dir: &str| {
        let words = ["check", "--run-dir", run_dir];
        let checked = node
            .namespace()
            .command(&binary().to_string_lossy(), &words);
        checked.unwrap()
    };
    let warning = "it seems to be running";
    let own = check(&node.paths().run_dir.to_string_lossy());
    assert!(!own.contains(warning), "{own}");
    let other = check("/nowhere");
    assert!(other.contains(warning), "{other}");
}

/// Answers one question as kube-proxy's port for metrics does.
fn answer(listener: &TcpListener, mode: &str) {
    let (mut client, _) = listener.accept().unwrap();
    let mut request = [0; 512];
    let length = client.read(&mut request).unwrap();
    assert!(request[..length].starts_with(b"GET /proxyMode HTTP"));
    let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{mode}");
    client.write_all(answer.as_bytes()).unwrap();
}

/// What is said while somebody answers with this mode.
fn said_beside(stage: &Stage, mode: &str) -> Vec<String> {
    let node = stage.cluster.node(1).namespace();
    let listener = node.run(|| TcpListener::bind("127.0.0.1:10249").unwrap());
    let listener = listener.unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| answer(&listener, mode));
        said(stage)
    })
}

#[test]
fn a_kube_proxy_that_runs_is_told_from_an_agent_of_ours() {
    // Its ports are for those who are made out here.
    let stage = Stage::new(&["--healthz-bind-address=", "--metrics-bind-address="]);
    let beside = said_beside(&stage, "nftables");
    assert_eq!(beside.len(), 1, "{beside:?}");
    assert!(beside[0].starts_with("kube-proxy is running (mode nftables); stop it"));
    let node = stage.cluster.node(1).namespace();
    let taken = node
        .run(|| TcpListener::bind("[::]:10256").unwrap())
        .unwrap();
    let beside = said(&stage);
    assert_eq!(beside.len(), 1, "{beside:?}");
    assert!(beside[0].starts_with("port 10256 is taken"), "{beside:?}");
    assert_eq!(said_beside(&stage, "ferrule"), [""; 0], "the port is ours");
    drop(taken);
    assert_eq!(said(&stage), [""; 0]);
}

#[test]
fn other_service_proxies_in_ebpf_are_found_by_devices_and_maps() {
    let stage = Stage::new(&[]);
    plant(
        &stage,
        "ip",
        &["link", "add", "cilium_host", "type", "bridge"],
    );
    let maps = stage.cluster.node(1).paths().bpffs.join("tc/globals");
    std::fs::create_dir_all(&maps).unwrap();
    // bpffs takes folders without asking for a map.
    std::fs::create_dir(Path::new(&maps).join("cali_v4_nat_fe3")).unwrap();
    let found = said(&stage);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("Cilium is on this node (device cilium_host)"));
    assert!(found[1].starts_with("Calico in eBPF is on this node (map cali_v4_nat_fe3)"));
}
