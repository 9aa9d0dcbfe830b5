//! kube-proxy's configuration file, and on which addresses NodePorts are served.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::health::metrics;
use crate::stage::{NODE_PORT, PROTOCOLS, SHORT, Stage, ask, binary, eventually};
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use xtask::cluster::{CLUSTER_CIDR, Namespace};

fn ip(place: &Namespace, arguments: &str) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    place.command("ip", &arguments).unwrap();
}

/// Addresses of the first node that its object does not have.
fn others(stage: &Stage) -> [IpAddr; 2] {
    let plan = stage.cluster.node(1).plan();
    [plan.subnet_v4(9).into(), plan.subnet_v6(9).into()]
}

/// Gives them to its uplink, or takes them from it.
fn change_others(stage: &Stage, action: &str) {
    let place = stage.cluster.node(1).namespace();
    let [v4, v6] = others(stage);
    ip(place, &format!("address {action} {v4}/32 dev eth0"));
    ip(place, &format!("address {action} {v6}/64 dev eth0 nodad"));
}

/// Which of the addresses answer at the NodePort, to a client outside.
fn answering(stage: &Stage, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let client = stage.cluster.client();
    let answers = |ip: &IpAddr| {
        let to = SocketAddr::new(*ip, NODE_PORT);
        let mut protocols = PROTOCOLS.into_iter();
        protocols.all(|protocol| ask(client, protocol, to, SHORT).is_ok())
    };
    addresses.iter().copied().filter(answers).collect()
}

/// Where the agent of the first node says that NodePorts are served.
fn served(stage: &Stage) -> Vec<IpAddr> {
    let status = stage.agent(1).status().unwrap();
    let addresses = status["agent"]["sync"]["node"]["node_port_addresses"].clone();
    serde_json::from_value(addresses).unwrap()
}

fn warnings(stage: &Stage) -> String {
    let status = stage.agent(1).status().unwrap();
    status["agent"]["warnings"].to_string()
}

#[test]
fn nodeports_are_served_on_all_addresses_if_asked_for() {
    let mut stage = Stage::new(&[]);
    change_others(&stage, "add");
    let (own, others) = (stage.cluster.node(1).addresses(), others(&stage));
    let all = [own, others].concat();
    assert_eq!(answering(&stage, &all), own, "primary ones by default");
    stage.restart_agent(1, &["--nodeport-addresses", "all"]);
    eventually("all answer", || answering(&stage, &all) == all);
    let served_now = served(&stage);
    assert!(
        !served_now.iter().any(IpAddr::is_loopback),
        "{served_now:?}"
    );
    change_others(&stage, "del");
    eventually("what is gone is not served", || {
        !others.iter().any(|other| served(&stage).contains(other))
    });
    change_others(&stage, "add");
    eventually("what comes is", || answering(&stage, &all) == all);
    stage.assert_undisturbed();
}

/// The folder of a ConfigMap with one file, as the kubelet lays it out.
struct ConfigMap {
    folder: PathBuf,
    version: u32,
}

impl ConfigMap {
    fn new(stage: &Stage, content: &str) -> Self {
        let folder = stage.cluster.folder().join("config-map");
        fs::create_dir(&folder).unwrap();
        symlink("..data/config.conf", folder.join("config.conf")).unwrap();
        let mut new = Self { folder, version: 0 };
        new.write(content);
        new
    }

    fn write(&mut self, content: &str) {
        let before = format!("..{}", self.version);
        self.version += 1;
        let now = format!("..{}", self.version);
        fs::create_dir(self.folder.join(&now)).unwrap();
        fs::write(self.folder.join(&now).join("config.conf"), content).unwrap();
        symlink(&now, self.folder.join("..data_tmp")).unwrap();
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
        let _ = fs::remove_dir_all(self.folder.join(before));
    }

    fn file(&self) -> PathBuf {
        self.folder.join("config.conf")
    }
}

/// A file with these lines in it.
fn config(lines: &str) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
         clusterCIDR: {CLUSTER_CIDR}\n{lines}\n"
    )
}

#[test]
fn the_file_of_kube_proxy_counts_and_is_followed() {
    let mut stage = Stage::new(&[]);
    change_others(&stage, "add");
    let (own, others) = (stage.cluster.node(1).addresses(), others(&stage));
    let all = [own, others].concat();
    let mut map = ConfigMap::new(&stage, &config("mode: ''\noomScoreAdj: -998"));
    drop(stage.take_agent(1));
    let file = map.file().display().to_string();
    let node = stage.cluster.node(1);
    let args = ["--config", &file, "--max-flows", "65536"];
    let mut agent = node.start_agent(&binary(), &args).unwrap();
    agent.wait_synced(crate::stage::START).unwrap();
    let log = agent.log();
    for said in [
        "without a meaning here: oomScoreAdj",
        "do not count, because",
        "NodePorts are served on all addresses of the node, as kube-proxy does in mode iptables",
    ] {
        assert_eq!(log.matches(said).count(), 1, "{said}: {log}");
    }
    stage.agents[0] = Some(agent);
    assert_eq!(warnings(&stage), "[]");
    eventually("all answer", || answering(&stage, &all) == all);

    map.write(&config("nodePortAddresses: [primary]"));
    eventually("primary ones alone answer", || served(&stage) == own);
    assert_eq!(answering(&stage, &all), own);

    map.write(&config("nodePortAddresses: [everywhere]"));
    eventually("the mistake is named", || {
        warnings(&stage).contains("nodePortAddresses[0]: 'everywhere' is neither")
    });
    assert_eq!(served(&stage), own, "what was there before stays");
    let problem = "ferrule_problems{what=\"configuration\"}";
    assert_eq!(metrics(&stage)[problem], 1.0);

    let v4 = format!("[{}/32, '::/0']", others[0]);
    map.write(&config(&format!(
        "nodePortAddresses: {v4}\nbindAddressHardFail: true"
    )));
    eventually("a range counts", || answering(&stage, &all) == all[1..]);
    let now = warnings(&stage);
    assert!(
        now.contains("bindAddressHardFail: changed, which takes a restart"),
        "{now}"
    );
    assert!(!now.contains("everywhere"), "{now}");
    assert_eq!(metrics(&stage)[problem], 0.0, "what waits is none");

    let known_by = |wanted: &[&str]| {
        let status = stage.agent(1).status().unwrap();
        status["agent"]["sync"]["node"]["pods_known_by"] == serde_json::json!(wanted)
    };
    let ranges: Vec<&str> = CLUSTER_CIDR.split(',').collect();
    assert!(known_by(&ranges));
    map.write(&config(
        "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}",
    ));
    eventually("pods are known by their bridge", || known_by(&["cni0"]));

    map.write(&config("mode: nftables"));
    eventually("pods are known by ranges again", || known_by(&ranges));
    eventually("nothing is left to warn of", || warnings(&stage) == "[]");
    eventually("primary ones alone answer", || {
        answering(&stage, &all) == own
    });
    stage.assert_undisturbed();
}

#[test]
fn an_agent_with_a_wrong_file_does_not_start_and_says_why() {
    let folder = std::env::temp_dir().join(format!("ferrule-config-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config.yaml");
    let text = config("mode: ipvs\niptables: {syncPeriod: 30}\nnewField: 1");
    fs::write(&file, text.replace("clusterCIDR: ", "clusterCIDR: x")).unwrap();
    let run = |flag: &str, more: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["run", "--manifests"]).arg(&folder);
        command.arg("--run-dir").arg(folder.join("run"));
        command.arg(flag).arg(&file).args(more).output().unwrap()
    };
    let started = run("--config", &[]);
    assert!(!started.status.success());
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(
        said.contains("config.yaml: iptables.syncPeriod: '30' is not a time"),
        "{said}"
    );
    let checked = run("--check-config", &["-o", "json"]);
    assert!(!checked.status.success());
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert!(
        report["problems"]
            .to_string()
            .contains("iptables.syncPeriod")
    );

    fs::write(
        &file,
        config(
            "mode: ipvs\nipvs: {scheduler: rr}\nnewField: 1\ndetectLocalMode: InterfaceNamePrefix\n\
             detectLocal: {interfaceNamePrefix: veth}\nconntrack: {maxPerCore: 0, udpTimeout: 10s}",
        ),
    )
    .unwrap();
    let checked = run("--check-config", &[]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{said}");
    for line in [
        "newField: there is no such field",
        "NodePorts on: all",
        "Pods known by: InterfaceNamePrefix, veth*",
        "All flows to ClusterIPs masked: no",
        "ExternalIPs served: yes",
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait = 3600",
        "net.netfilter.nf_conntrack_udp_timeout = 10",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let of_fields = ["ipvs.scheduler", "conntrack.maxPerCore"];
    assert!(of_fields.iter().all(|it| said.contains(it)), "{said}");
    assert!(!said.contains("nf_conntrack_max ="), "{said}");
    assert!(!folder.join("run").exists(), "nothing else is touched");
    fs::remove_dir_all(&folder).unwrap();
}
