use super::*;
use crate::config::{Loaded, Run};
use clap::Parser;
use std::net::SocketAddr;
use std::time::Duration;

/// As kubeadm writes it: every field is there, most of them with nothing in it.
const KUBEADM: &str = r#"
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"#;

/// A file with every field that counts.
const FULL: &str = r#"
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
featureGates: {NFTablesProxyMode: true}
clientConnection: {kubeconfig: /etc/kubeconfig, qps: 5.5, burst: 10}
hostnameOverride: Node-7
bindAddress: "::"
metricsBindAddress: 0.0.0.0:10249
bindAddressHardFail: true
mode: nftables
iptables: {syncPeriod: 10s, masqueradeAll: true, localhostNodePorts: true}
nftables: {syncPeriod: 1m, minSyncPeriod: 1s, masqueradeBit: 14}
detectLocalMode: ClusterCIDR
clusterCIDR: 10.244.0.0/16,fd00:10:244::/48
nodePortAddresses: [192.0.2.0/24, primary]
oomScoreAdj: -998
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 2h0m0s, udpTimeout: 1.5s, tcpBeLiberal: true}
logging: {verbosity: 4, format: json, flushFrequency: 5s}
"#;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    run: Run,
}

fn flags(words: &[&str]) -> Run {
    let own = ["ferrule", "--config=c.yaml"];
    Line::parse_from(own.iter().chain(words)).run
}

fn load(words: &[&str], text: &str) -> Loaded {
    flags(words).reload(text.as_bytes()).unwrap()
}

/// A file that says what it is, and this.
fn with(text: &str) -> String {
    format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{text}")
}

fn problems(text: &str) -> Vec<String> {
    let parsed = File::parse(Path::new("c.yaml"), text.as_bytes(), false);
    parsed.expect_err(text).problems
}

fn warnings(text: &str) -> Vec<String> {
    let parsed = File::parse(Path::new("c.yaml"), text.as_bytes(), false);
    parsed.unwrap().warnings
}

fn at(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn the_file_of_kubeadm_says_little() {
    let loaded = load(&["--hostname-override=node-1"], KUBEADM);
    let run = &loaded.run;
    assert_eq!(loaded.warnings(), [""; 0]);
    assert!(loaded.hint().unwrap().contains("in mode iptables"));
    assert_eq!(run.node_name().unwrap(), "node-1");
    assert_eq!(run.healthz_bind_address(), at("0.0.0.0:10256"));
    assert_eq!(run.metrics_bind_address(), at("127.0.0.1:10249"));
    assert_eq!(run.sync_period(), Duration::from_secs(30));
    let followed = run.followed().unwrap();
    assert_eq!(followed.cluster_cidrs, ["10.244.0.0/16".parse().unwrap()]);
    assert_eq!(followed.node_ports.to_string(), "all");
    let kubeconfig = run.source.kubeconfig.as_deref();
    assert_eq!(
        kubeconfig,
        Some(Path::new("/var/lib/kube-proxy/kubeconfig.conf"))
    );
    let defaults = flags(&[]).timeouts.timeouts();
    assert_eq!(run.timeouts.timeouts(), defaults);
    let set: Vec<&str> = loaded
        .file
        .unwrap()
        .report()
        .iter()
        .map(|it| it.field)
        .collect();
    let wanted = [
        "apiVersion",
        "kind",
        "clientConnection.kubeconfig",
        "bindAddress",
        "clusterCIDR",
    ];
    assert_eq!(set, wanted);
}

#[test]
fn fields_count_instead_of_flags() {
    let loaded = load(
        &[
            "--cluster-cidr=10.0.0.0/8",
            "--healthz-bind-address=",
            "--metrics-port=0",
            "--nodeport-addresses=all",
            "--conntrack-tcp-timeout-close-wait=5s",
            "--tcp-timeout-closing=20s",
        ],
        FULL,
    );
    let run = &loaded.run;
    assert_eq!(run.node_name().unwrap(), "node-7");
    assert_eq!(run.healthz_bind_address(), at("[::]:10256"));
    assert_eq!(run.metrics_bind_address(), at("0.0.0.0:10249"));
    assert!(run.bind_address_hard_fail());
    assert_eq!(run.sync_period(), Duration::from_secs(60));
    assert_eq!(run.log_filter(), "info,proxy_user=debug");
    assert!(run.has_localhost_nodeports());
    let followed = run.followed().unwrap();
    assert_eq!(followed.node_ports.to_string(), "192.0.2.0/24,primary");
    assert_eq!(followed.cluster_cidrs.len(), 2);
    let own = flags(&[
        "--tcp-timeout-closing=20s",
        "--conntrack-tcp-timeout-established=2h",
        "--conntrack-udp-timeout=1500ms",
    ]);
    assert_eq!(run.timeouts.timeouts(), own.timeouts.timeouts());
    assert_eq!(loaded.hint(), None);
    let warnings = loaded.warnings();
    assert_eq!(
        warnings,
        [
            "c.yaml: without a meaning here: featureGates, clientConnection.qps, \
             clientConnection.burst, logging.format, logging.flushFrequency, \
             iptables.masqueradeAll, nftables.masqueradeBit, nftables.minSyncPeriod, oomScoreAdj, \
             conntrack.tcpBeLiberal",
            "flags that do not count, because c.yaml does: --healthz-bind-address, --metrics-port, \
             --cluster-cidr, --nodeport-addresses, --conntrack-tcp-timeout-close-wait",
        ]
    );
}

#[test]
fn some_flags_count_before_the_file() {
    let words = ["--hostname-override=node-9", "-v=6", "--max-flows=2048"];
    let run = load(&words, FULL).run;
    assert_eq!(run.node_name().unwrap(), "node-9");
    assert_eq!(run.log_filter(), "info,proxy_user=trace");
    assert_eq!(run.max_flows, 2048);
    let run = load(&["--log=warn"], FULL).run;
    assert_eq!(run.log_filter(), "warn");
}

#[test]
fn json_is_read_too() {
    let text = r#"{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "ipvs", "ipvs": {"syncPeriod": "7s", "scheduler": "rr"}}"#;
    let loaded = load(&[], text);
    assert_eq!(loaded.run.sync_period(), Duration::from_secs(7));
    assert!(loaded.hint().unwrap().contains("in mode ipvs"));
    let unread = "c.yaml: without a meaning here: ipvs.scheduler";
    assert_eq!(loaded.warnings(), [unread]);
}

#[test]
fn unknown_fields_and_those_that_are_there_twice_are_no_errors() {
    let unknown = with("udpIdleTimeout: 250ms\niptables:\n  colour: red\nmode: ipvs\n");
    let found = warnings(&unknown);
    let wanted = [
        "udpIdleTimeout: there is no such field",
        "iptables.colour: there is no such field",
    ];
    assert_eq!(found, wanted);
    let twice = with("mode: ipvs\nmode: nftables\n");
    let found = warnings(&twice);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("mode") && found[0].contains("the last one counts"),
        "{found:?}"
    );
    assert_eq!(
        load(&[], &twice)
            .run
            .followed()
            .unwrap()
            .node_ports
            .to_string(),
        "primary"
    );
}

#[test]
fn addresses_without_a_port_get_the_default_one() {
    let text = with("healthzBindAddress: 0.0.0.0\nmetricsBindAddress: '::'\n");
    let run = load(&[], &text).run;
    let at = |text: &str| Some(text.parse().unwrap());
    assert_eq!(run.healthz_bind_address(), at("0.0.0.0:10256"));
    assert_eq!(run.metrics_bind_address(), at("[::]:10249"));
}

#[test]
fn wrong_values_are_refused_with_their_path() {
    let cases = [
        (
            "bindAddress: node-1",
            "bindAddress: 'node-1' is not an IP address",
        ),
        (
            "healthzBindAddress: 0.0.0.0:x",
            "healthzBindAddress: '0.0.0.0:x' is neither",
        ),
        (
            "metricsBindAddress: localhost:10249",
            "metricsBindAddress: 'localhost:10249' is",
        ),
        ("bindAddressHardFail: maybe", "bindAddressHardFail: "),
        (
            "mode: userspace",
            "mode: 'userspace' is neither iptables, ipvs nor nftables",
        ),
        (
            "iptables: {syncPeriod: 30}",
            "iptables.syncPeriod: '30' is not a time",
        ),
        (
            "iptables: {syncPeriod: -1s}",
            "iptables.syncPeriod: '-1s' is negative",
        ),
        (
            "iptables: {minSyncPeriod: 31s}",
            "iptables.minSyncPeriod: longer than syncPeriod",
        ),
        (
            "ipvs: {syncPeriod: 1s, minSyncPeriod: 2s}",
            "ipvs.minSyncPeriod: longer",
        ),
        (
            "iptables: {masqueradeAll: true}",
            "iptables.masqueradeAll: flows that stay",
        ),
        (
            "mode: nftables\nnftables: {masqueradeAll: true}",
            "nftables.masqueradeAll: flows",
        ),
        (
            "nftables: {masqueradeBit: 32}",
            "nftables.masqueradeBit: 32 is not within 0 to 31",
        ),
        (
            "oomScoreAdj: -1001",
            "oomScoreAdj: -1001 is not within -1000 to 1000",
        ),
        ("oomScoreAdj: high", "oomScoreAdj: "),
        (
            "conntrack: {tcpEstablishedTimeout: 1 day}",
            "conntrack.tcpEstablishedTimeout: '1 day'",
        ),
        (
            "detectLocalMode: NodeCIDR",
            "detectLocalMode: this version takes ClusterCIDR alone",
        ),
        (
            "detectLocalMode: Guess",
            "detectLocalMode: 'Guess' is neither",
        ),
        (
            "clusterCIDR: 10.0.0.0",
            "clusterCIDR: '10.0.0.0' is not an address range",
        ),
        (
            "clusterCIDR: '10.0.0.0/8,11.0.0.0/8'",
            "clusterCIDR: at most one range of each",
        ),
        (
            "nodePortAddresses: [all, mine]",
            "nodePortAddresses[1]: 'mine' is neither",
        ),
        (
            "nodePortAddresses: [localhost]",
            "nodePortAddresses: localhost takes --localhost",
        ),
        ("nodePortAddresses: all", "nodePortAddresses: "),
        ("featureGates: {A: 5}", "featureGates.A: "),
        (
            "logging: {format: xml}",
            "logging.format: 'xml' is neither text nor json",
        ),
        ("logging: {verbosity: -1}", "logging.verbosity: "),
    ];
    for (text, wanted) in cases {
        let text = with(text);
        let found = problems(&text);
        assert!(
            found.len() == 1 && found[0].starts_with(wanted),
            "{text}: {found:?}"
        );
    }
    let all = problems(&with("mode: x\nbindAddress: y\nclusterCIDR: z\n"));
    assert_eq!(all.len(), 3, "all are named: {all:?}");
}

#[test]
fn what_is_no_configuration_is_refused() {
    let found = problems("kind: KubeProxyConfiguration");
    assert_eq!(found, [format!("apiVersion: missing; it must be {API}")]);
    let found = problems(&format!("apiVersion: {API}2\nkind: KubeletConfiguration"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].starts_with("kind: is 'KubeletConfiguration' and must be"));
    for broken in ["", "mode: [", "- a\n- b", "just words", "\t: x", "a: b: c"] {
        assert!(!problems(broken).is_empty(), "{broken}");
    }
    let parsed = File::parse(Path::new("c.yaml"), b"mode: \xff", false);
    assert_eq!(parsed.unwrap_err().to_string(), "c.yaml: not UTF-8");
    let gone = File::read(Path::new("/nowhere/c.yaml"), false).unwrap_err();
    assert!(
        gone.to_string()
            .starts_with("/nowhere/c.yaml: can't be read: No such file")
    );
}

const API: &str = "kubeproxy.config.k8s.io/v1alpha1";

#[test]
fn a_change_that_takes_a_restart_is_told_from_one_that_does_not() {
    let file = |text: &str| File::parse(Path::new("c.yaml"), text.as_bytes(), false).unwrap();
    let (kubeadm, full) = (file(KUBEADM), file(FULL));
    assert_eq!(
        kubeadm.restart_for(&file(&with("bindAddress: 0.0.0.0\nmode: ipvs\n"))),
        ["clientConnection.kubeconfig"]
    );
    let changed = full.restart_for(&file(&FULL.replace("2h0m0s", "120m").replace("1.5s", "2s")));
    assert_eq!(changed, ["conntrack.udpTimeout"]);
    let at_once = FULL
        .replace("primary", "all")
        .replace("verbosity: 4", "verbosity: 0");
    assert_eq!(
        full.restart_for(&file(&at_once.replace("-998", "-999"))),
        [""; 0]
    );
}

#[test]
fn a_file_is_weighed_against_the_flags_that_count_beside_it() {
    let localhost = with("nodePortAddresses: [localhost]\n");
    let refused = flags(&[]).reload(localhost.as_bytes()).unwrap_err();
    assert!(
        refused.to_string().contains("--localhost-nodeports"),
        "{refused}"
    );
    assert!(
        flags(&["--localhost-nodeports"])
            .reload(localhost.as_bytes())
            .is_ok()
    );
    let ours = with("nodePortAddresses: [localhost]\niptables: {localhostNodePorts: true}\n");
    assert!(flags(&[]).reload(ours.as_bytes()).is_ok());
    // The flag of the same meaning counts for nothing.
    let ignored = flags(&["--iptables-localhost-nodeports"]).reload(localhost.as_bytes());
    assert!(ignored.is_err());
    let lane = flags(&["--fast-lane=eth0", "--cluster-cidr=10.0.0.0/8"]);
    let error = lane.reload(with("").as_bytes()).unwrap_err().to_string();
    assert!(
        error.starts_with("c.yaml: ") && error.contains("--cluster-cidr"),
        "{error}"
    );
    let loopback = load(&[], &with("nodePortAddresses: [127.0.0.0/8]\n"));
    let wanted = "NodePorts on 127.0.0.0/8 take --localhost-nodeports";
    assert_eq!(loopback.warnings(), [wanted]);
}
