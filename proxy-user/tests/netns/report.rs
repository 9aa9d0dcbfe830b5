//! What an operator is told.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::installed::methods;
use crate::stage::{PATIENCE, Stage, ask, binary, eventually, expect_service};
use std::process::Command;
use xtask::cluster::{Cluster, Protocol};

#[test]
fn status_tells_what_is_there_with_and_without_an_agent() {
    let mut stage = Stage::new(&[]);
    stage
        .cluster
        .manifests()
        .unwrap()
        .replace("broken", "kind: Service\nspec: [")
        .unwrap();
    let ports = "apiVersion: v1\nkind: Service\nmetadata: {name: odd, namespace: default}\n\
                 spec: {clusterIP: 10.96.0.99, ports: [{port: 70000}, {name: good, port: 80}]}\n";
    stage
        .cluster
        .manifests()
        .unwrap()
        .replace("odd", ports)
        .unwrap();
    eventually("the problems are told", || {
        let status = stage.agent(1).status().unwrap();
        let skipped = status["agent"]["sync"]["skipped"].to_string();
        let problems = status["agent"]["sync"]["problems"].to_string();
        skipped.contains("default/odd")
            && skipped.contains("spec.ports[0].port")
            && problems.contains("broken.yaml")
    });
    expect_service(&stage);
    let status = stage.agent(1).status().unwrap();
    let devices = status["agent"]["devices"].as_array().unwrap();
    let of = |name: &str| {
        devices
            .iter()
            .find(|device| device["name"] == name)
            .unwrap()
    };
    assert_eq!(of("eth0")["attached"], methods()[0]);
    assert_eq!(
        of("lo")["attached"],
        methods()[0],
        "for processes of the node"
    );
    let own = stage.cluster.node(1).addresses().map(|ip| ip.to_string());
    let sources = of("eth0")["sources"].as_array().unwrap();
    assert!(sources.iter().eq(own.iter()), "{sources:?}");
    assert_eq!(of("lo")["sources"].as_array().unwrap().len(), 0);
    let socket = stage.cluster.node(1).paths().run_dir.join("ferrule.sock");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(socket).unwrap());
    assert_eq!(mode & 0o777, 0o600);

    let node = stage.cluster.node(1);
    let (place, paths) = (node.namespace().clone(), node.paths().clone());
    let status = || {
        let mut command = Command::new(binary());
        command.arg("status").arg("--bpffs").arg(&paths.bpffs);
        command.arg("--run-dir").arg(&paths.run_dir);
        let output = place.run(|| command.output().unwrap()).unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = status();
    let told = [
        "Reserved ports: 1024-32767",
        &own[0],
        &own[1],
        "default/odd",
    ];
    assert!(told.iter().all(|it| text.contains(*it)), "{text}");
    let tables = text.lines().filter(|line| line.starts_with("  "));
    let widest = tables.map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{text}");
    stage.take_agent(1).kill().unwrap();
    let text = status();
    assert!(
        text.contains("not running") && text.contains("FLOWS_V4"),
        "{text}"
    );
}

#[test]
fn decisions_are_logged_if_that_is_wanted() {
    let stage = Stage::new(&["--log-decisions"]);
    let to = stage.cluster_ips();
    for to in &to {
        ask(&stage.shell, Protocol::Tcp, *to, PATIENCE).unwrap();
    }
    eventually("the log tells of both questions", || {
        let log = stage.agent(1).log();
        log.contains("-> 10.96.0.10:80") && log.contains("-> fd00:10:96::10:80")
    });
}

#[test]
fn check_tells_what_the_kernel_has_and_what_is_used_instead() {
    let run = |arguments: &[&str]| {
        let output = Command::new(binary()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json: serde_json::Value = serde_json::from_str(&run(&["check", "-o", "json"])).unwrap();
    let features = json["features"].as_array().unwrap();
    let links = features
        .iter()
        .find(|it| it["name"] == "tcx links")
        .unwrap();
    let has_links = methods().contains(&"tcx");
    assert_eq!(links["present"], has_links);
    let used = if has_links {
        "it"
    } else {
        "filters of a clsact qdisc"
    };
    assert_eq!(links["used"], used);
    let table = run(&["check"]);
    let line = table.lines().find(|line| line.contains("tcx links"));
    assert!(line.unwrap().ends_with(used), "{table}");
    assert!(
        table.lines().all(|line| line.chars().count() <= 100),
        "{table}"
    );
}

/// What nft makes of a ruleset in a namespace, and what `ferrule check` says there.
fn check_with(rules: &str) -> (serde_json::Value, String) {
    let mut cluster = Cluster::create(1).unwrap();
    let place = cluster.add_pod(1, "firewall").unwrap().namespace().clone();
    let folder = cluster.folder().join("rules");
    std::fs::write(&folder, rules).unwrap();
    place
        .command("nft", &["-f", &folder.to_string_lossy()])
        .unwrap();
    let run = |arguments: &[&str]| {
        let program = binary().to_string_lossy().into_owned();
        place.command(&program, arguments).unwrap()
    };
    let json = serde_json::from_str(&run(&["check", "-o", "json"])).unwrap();
    (json, run(&["check"]))
}

#[test]
fn check_names_firewalls_that_forward_nothing_by_themselves() {
    let (json, text) = check_with(
        "table inet strict {
            chain forward {
                type filter hook forward priority filter; policy drop;
            }
        }
        table inet firewalld {
            chain filter_FORWARD {
                type filter hook forward priority 10; policy accept;
                ct state established,related accept
                reject with icmpx admin-prohibited
            }
        }
        table ip harmless {
            chain forward {
                type filter hook forward priority 20; policy accept;
                ip daddr 192.0.2.1 drop
            }
            chain input {
                type filter hook input priority 20; policy drop;
            }
        }",
    );
    let obstacles = json["forwarding"]["obstacles"].as_array().unwrap();
    let brief: Vec<String> = obstacles
        .iter()
        .map(|it| {
            format!(
                "{} {} {} {}",
                it["family"], it["table"], it["chain"], it["by"]
            )
        })
        .map(|it| it.replace('"', ""))
        .collect();
    let expected = [
        "inet strict forward policy",
        "inet firewalld filter_FORWARD last-rule",
    ];
    assert_eq!(brief, expected);
    assert!(
        text.contains("table inet strict, chain forward: its policy"),
        "{text}"
    );
    assert!(text.contains("ip daddr PODS accept"), "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    let (json, text) = check_with("");
    assert_eq!(json["forwarding"]["obstacles"].to_string(), "[]");
    assert!(!text.contains("Forwarded packets"), "{text}");
}
