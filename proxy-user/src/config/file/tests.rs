use super::*;
use crate::config::{Loaded, Run};
use crate::frontend::DetectLocal;
use crate::sync::Followed;
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
    assert_eq!(run.timeouts(), flags(&[]).timeouts());
    let netfilter = run.conntrack.netfilter(2);
    assert_eq!(netfilter, flags(&[]).conntrack.netfilter(2));
    assert_eq!(followed.detect_local, DetectLocal::ClusterCidr);
    assert!(followed.external_ips && !followed.masquerade_all);
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
    assert_eq!(run.timeouts(), own.timeouts());
    assert!(!followed.masquerade_all, "it is another mode's");
    assert!(followed.external_ips && !followed.masquerade_local_backends);
    let netfilter = run.conntrack.netfilter(2);
    assert_eq!((netfilter.max, netfilter.udp), (None, Some(2)));
    assert_eq!(netfilter.tcp_established, Some(7200));
    assert_eq!(netfilter.tcp_close_wait, Some(3600), "the default");
    assert!(netfilter.tcp_be_liberal);
    assert_eq!(loaded.hint(), None);
    let warnings = loaded.warnings();
    assert_eq!(
        warnings,
        [
            "feature gates without a meaning here: NFTablesProxyMode",
            "c.yaml: without a meaning here: clientConnection.qps, clientConnection.burst, \
             logging.format, logging.flushFrequency, nftables.masqueradeBit, \
             nftables.minSyncPeriod, oomScoreAdj",
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
        "mode": "ipvs", "ipvs": {"syncPeriod": "7s", "scheduler": "rr"}, "clusterCIDR": "10.244.0.0/16"}"#;
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
            "detectLocalMode: BridgeInterface\ndetectLocal: {interfaceNamePrefix: veth}",
            "detectLocal.bridgeInterface: must not be empty in mode BridgeInterface",
        ),
        (
            "detectLocalMode: InterfaceNamePrefix",
            "detectLocal.interfaceNamePrefix: must not be empty in mode InterfaceNamePrefix",
        ),
        (
            "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth/}",
            "detectLocal.interfaceNamePrefix: 'veth/' is not the name of a device",
        ),
        (
            "conntrack: {maxPerCore: -1}",
            "conntrack.maxPerCore: -1 is not within 0 to 2147483647",
        ),
        (
            "conntrack: {min: -2}",
            "conntrack.min: -2 is not within 0 to 2147483647",
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
    let text = with("nodePortAddresses: [127.0.0.0/8]\nclusterCIDR: 10.0.0.0/8\n");
    let loopback = load(&[], &text);
    let wanted = "NodePorts on 127.0.0.0/8 take --localhost-nodeports";
    assert_eq!(loopback.warnings(), [wanted]);
}

fn followed(words: &[&str], text: &str) -> Followed {
    load(words, &with(text)).run.followed().unwrap()
}

#[test]
fn pods_are_detected_as_the_file_says() {
    let names = "detectLocal: {bridgeInterface: cbr0, interfaceNamePrefix: cali}\n";
    let modes = [
        ("", DetectLocal::ClusterCidr),
        ("detectLocalMode: NodeCIDR", DetectLocal::NodeCidr),
        (
            "detectLocalMode: BridgeInterface",
            DetectLocal::BridgeInterface("cbr0".to_owned()),
        ),
        (
            "detectLocalMode: InterfaceNamePrefix",
            DetectLocal::InterfaceNamePrefix("cali".to_owned()),
        ),
    ];
    for (mode, wanted) in modes {
        // The flag of the same meaning counts for nothing.
        let found = followed(
            &["--detect-local-mode=NodeCIDR"],
            &format!("{names}{mode}\n"),
        );
        assert_eq!(found.detect_local, wanted, "{mode}");
    }
}

#[test]
fn without_a_file_the_flags_of_kube_proxy_count() {
    let bridge = ["--detect-local-mode=BridgeInterface"];
    let error = flags(&bridge).followed().unwrap_err().to_string();
    let wanted = "--pod-bridge-interface: must not be empty in mode BridgeInterface";
    assert_eq!(error, wanted);
    let guess = flags(&["--detect-local-mode=Guess"]).followed();
    let error = guess.unwrap_err().to_string();
    assert!(
        error.starts_with("--detect-local-mode: 'Guess' is neither"),
        "{error}"
    );
    let all = flags(&[
        "--detect-local-mode=InterfaceNamePrefix",
        "--pod-interface-name-prefix=veth",
        "--masquerade-all",
        "--masquerade-local-backends",
        "--feature-gates=AllowServiceExternalIPs=false",
    ]);
    let found = all.followed().unwrap();
    let prefix = DetectLocal::InterfaceNamePrefix("veth".to_owned());
    assert_eq!(found.detect_local, prefix);
    assert!(found.masquerade_all && found.masquerade_local_backends);
    assert!(!found.external_ips);
}

#[test]
fn masquerade_all_is_that_of_the_mode() {
    let sections = "iptables: {masqueradeAll: true}\nnftables: {masqueradeAll: false}\n";
    for (mode, wanted) in [("ipvs", true), ("iptables", true), ("nftables", false)] {
        let found = followed(&["--masquerade-all"], &format!("{sections}mode: {mode}\n"));
        assert_eq!(found.masquerade_all, wanted, "{mode}");
    }
    let nftables = "mode: nftables\nnftables: {masqueradeAll: true}\n";
    assert!(followed(&[], nftables).masquerade_all);
}

#[test]
fn external_ips_are_served_unless_the_gate_or_the_flag_says_no() {
    let no = "featureGates: {AllowServiceExternalIPs: false}\n";
    let yes = "featureGates: {AllowServiceExternalIPs: true}\n";
    let cases: [(&[&str], &str, bool); 6] = [
        (&[], "", true),
        (&[], no, false),
        (&["--allow-service-external-ips"], no, true),
        (&["--allow-service-external-ips=false"], yes, false),
        (&["--allow-service-external-ips=false"], "", false),
        // kube-proxy's own flag counts only without a file.
        (
            &["--feature-gates=AllowServiceExternalIPs=false"],
            yes,
            true,
        ),
    ];
    for (words, text, wanted) in cases {
        let found = followed(words, text).external_ips;
        assert_eq!(found, wanted, "{words:?} {text}");
    }
    let file = load(&[], &with(no)).file.unwrap();
    let report = file.report();
    let gates = report.iter().find(|it| it.field == "featureGates").unwrap();
    assert_eq!(gates.treatment, "honoured, at once");
}

#[test]
fn nothing_and_0_are_told_apart_where_they_mean_different_things() {
    let netfilter = |text: &str| load(&[], &with(text)).run.conntrack.netfilter(2);
    let fields = "maxPerCore: X, min: X, tcpEstablishedTimeout: X, tcpCloseWaitTimeout: X";
    let nothing = format!("conntrack: {{{}}}\n", fields.replace('X', "null"));
    let zero = format!("conntrack: {{{}}}\n", fields.replace('X', "0"));
    let zero = zero.replace("Timeout: 0", "Timeout: 0s");
    assert_eq!(netfilter(&nothing), flags(&[]).conntrack.netfilter(2));
    assert_eq!(netfilter(&zero).settings().count(), 0);
    let file = |text: &str| load(&[], &with(text)).file.unwrap();
    let (nothing, zero) = (file(&nothing), file(&zero));
    let reported = |file: &File| {
        let fields = file.report().into_iter().map(|it| it.field);
        let fields = fields.filter(|field| field.starts_with("conntrack."));
        fields.collect::<Vec<_>>()
    };
    assert_eq!(reported(&nothing), [""; 0]);
    assert_eq!(reported(&zero).len(), 4);
    assert_eq!(nothing.restart_for(&zero), reported(&zero));
}

#[test]
fn a_mode_whose_range_is_missing_is_a_warning() {
    let missing = "pods are to be known by ClusterCIDR, but there is no clusterCIDR: no client \
                   counts as a pod, and no flow to a ClusterIP is masked";
    assert_eq!(load(&[], &with("")).warnings(), [missing]);
    for fine in [
        "clusterCIDR: 10.0.0.0/8\n",
        "detectLocalMode: NodeCIDR\n",
        "iptables: {masqueradeAll: true}\n",
    ] {
        assert_eq!(load(&[], &with(fine)).warnings(), [""; 0], "{fine}");
    }
}
