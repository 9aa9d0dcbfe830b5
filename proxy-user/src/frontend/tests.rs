//! Objects in, service ports out.

use super::*;
use crate::cluster::{Cluster, ServiceName};
use crate::source::manifests;

const NODE: &str = "node-a";

fn node() -> NodeContext {
    NodeContext {
        primary_v4: Some("192.168.0.1".parse().unwrap()),
        primary_v6: Some("fd00:c0::1".parse().unwrap()),
        node_port_addresses: vec![
            "192.168.0.1".parse().unwrap(),
            "fd00:c0::1".parse().unwrap(),
        ],
        external_ips: true,
        ..NodeContext::default()
    }
}

/// The service ports of a Service with one port.
fn ports(spec: &str, status: &str, node: &NodeContext) -> Vec<ServicePort> {
    let text = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web}},
          spec: {{clusterIP: 10.96.0.1, {spec}}}, status: {{loadBalancer: {{ingress: [{status}]}}}}}}"
    );
    let mut cluster = Cluster::new(NODE);
    for object in manifests::objects(&text).unwrap() {
        cluster.apply(&object);
    }
    let view = cluster.view(&ServiceName::new("default", "web")).unwrap();
    service_ports(&view, node)
}

fn dialled(ports: &[ServicePort]) -> Vec<String> {
    let frontends = ports.iter().flat_map(|port| &port.frontends);
    frontends.map(|it| format!("{:?} {it}", it.kind)).collect()
}

const PORT: &str = "ports: [{port: 80}]";
const NODE_PORT: &str = "ports: [{port: 80, nodePort: 30080}]";
const DUAL: &str = "clusterIPs: [10.96.0.1, 'fd00:96::1'], ipFamilies: [IPv4, IPv6]";

#[test]
fn a_service_is_dialled_at_all_its_addresses_family_by_family() {
    let spec = format!(
        "{DUAL}, {NODE_PORT}, externalIPs: [192.0.2.1, 192.0.2.1, '2001:db8::1'], type: ClusterIP"
    );
    let ports = ports(&spec, "{ip: 203.0.113.1}, {ip: '2001:db8::2'}", &node());
    assert_eq!(
        dialled(&ports),
        [
            "ClusterIp 10.96.0.1:80/TCP",
            "ExternalIp 192.0.2.1:80/TCP",
            "NodePort 192.168.0.1:30080/TCP",
            "LoadBalancer 203.0.113.1:80/TCP",
            "ExternalIp [2001:db8::1]:80/TCP",
            "LoadBalancer [2001:db8::2]:80/TCP",
            "ClusterIp [fd00:96::1]:80/TCP",
            "NodePort [fd00:c0::1]:30080/TCP",
        ]
    );
}

#[test]
fn addresses_of_a_family_without_cluster_address_are_ignored() {
    let spec = format!("{PORT}, externalIPs: ['2001:db8::1']");
    let ports = ports(&spec, "{ip: '2001:db8::2'}", &node());
    assert_eq!(dialled(&ports), ["ClusterIp 10.96.0.1:80/TCP"]);
}

#[test]
fn external_addresses_have_to_be_allowed() {
    let forbidding = NodeContext {
        external_ips: false,
        ..node()
    };
    let spec = format!("{PORT}, externalIPs: [192.0.2.1], externalTrafficPolicy: Local");
    let allowed = ports(&spec, "", &node());
    assert_eq!(allowed[0].frontends.len(), 2);
    assert!(allowed[0].stays_local.external);
    let ports = ports(&spec, "", &forbidding);
    assert_eq!(dialled(&ports), ["ClusterIp 10.96.0.1:80/TCP"]);
    assert!(!ports[0].stays_local.external);
}

#[test]
fn an_address_that_is_there_twice_is_served_once() {
    let all = "externalIPs: [10.96.0.1, 192.0.2.1, 192.168.0.1]";
    let spec = format!("ports: [{{port: 30080, nodePort: 30080}}], {all}");
    let ports = ports(&spec, "{ip: 192.0.2.1}, {ip: 10.96.0.1}", &node());
    assert_eq!(
        dialled(&ports),
        [
            "ClusterIp 10.96.0.1:30080/TCP",
            "LoadBalancer 192.0.2.1:30080/TCP",
            "ExternalIp 192.168.0.1:30080/TCP",
        ]
    );
}

#[test]
fn of_the_addresses_that_the_node_has_only_cluster_addresses_are_left_alone() {
    let ips = ["10.96.0.1", "192.0.2.1", "203.0.113.1"];
    let has = ips.map(|ip| (ip.parse().unwrap(), "lo".to_owned()));
    let node = NodeContext {
        local_addresses: has.into(),
        ..node()
    };
    let spec = format!("{DUAL}, {PORT}, externalIPs: [192.0.2.1]");
    let ports = ports(&spec, "{ip: 203.0.113.1}", &node);
    assert_eq!(
        dialled(&ports[..1]),
        [
            "ExternalIp 192.0.2.1:80/TCP",
            "LoadBalancer 203.0.113.1:80/TCP"
        ]
    );
}

#[test]
fn the_policy_for_clients_outside_counts_where_they_can_get_in() {
    let policy = "externalTrafficPolicy: Local, internalTrafficPolicy: Local";
    let external = |spec: &str, status: &str| {
        let ports = ports(&format!("{policy}, {spec}"), status, &node());
        assert!(ports.iter().all(|port| port.stays_local.internal));
        let external = ports.iter().map(|port| port.stays_local.external);
        external.collect::<Vec<_>>()
    };
    assert_eq!(
        external(&format!("type: NodePort, {NODE_PORT}"), ""),
        [true]
    );
    assert_eq!(external(&format!("type: NodePort, {PORT}"), ""), [false]);
    // Neither does a NodePort count that only the object's history explains.
    assert_eq!(external(NODE_PORT, ""), [false]);
    let balanced = format!("type: LoadBalancer, {DUAL}, {PORT}");
    assert_eq!(external(&balanced, "{ip: '2001:db8::1'}"), [false, true]);
    assert_eq!(
        external(&balanced, "{ip: 192.0.2.1, ipMode: Proxy}"),
        [false, false]
    );
    let claimed = format!("{DUAL}, {PORT}, externalIPs: [192.0.2.1]");
    assert_eq!(external(&claimed, ""), [true, false]);
}

#[test]
fn who_may_dial_a_load_balancer_is_said_family_by_family() {
    let of = |ranges: &str, status: &str, node: &NodeContext| {
        let spec = format!("{DUAL}, {PORT}, loadBalancerSourceRanges: [{ranges}]");
        let ports = ports(&spec, status, node);
        let texts = |port: &ServicePort| {
            let ranges = port.source_ranges.as_ref()?;
            let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            Some(texts.join(" "))
        };
        ports.iter().map(texts).collect::<Vec<_>>()
    };
    let ranges = |ranges: &str, status: &str| of(ranges, status, &node());
    let some = |text: &str| Some(text.to_owned());
    let both = "{ip: 203.0.113.1}, {ip: '2001:db8::1'}";
    assert_eq!(ranges("", both), [None, None]);
    assert_eq!(ranges("192.0.2.0/24", ""), [None, None]);
    assert_eq!(
        ranges("192.0.2.0/24, 192.0.2.0/24", both),
        [some("192.0.2.0/24"), None]
    );
    assert_eq!(
        ranges("192.0.2.0/24, 0.0.0.0/0, 'fd00::/64'", both),
        [None, some("fd00::/64")]
    );
    assert_eq!(ranges("nonsense, ''", both), [None, None]);
    // The node itself is among them, and so may be what it sends to an address that it has.
    assert_eq!(
        ranges("192.168.0.0/24, 'fd00:c0::1/128'", both),
        [
            some("192.168.0.0/24 203.0.113.1/32"),
            some("2001:db8::1/128 fd00:c0::1/128")
        ]
    );
    let addressless = NodeContext::default();
    assert_eq!(
        of("192.168.0.0/24", both, &addressless),
        [some("192.168.0.0/24"), None]
    );
}

#[test]
fn clients_are_remembered_for_as_long_as_the_service_says() {
    let affinity = |spec: &str| ports(&format!("{PORT}, {spec}"), "", &node())[0].affinity;
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let config = |seconds: i64| {
        format!(
            "sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
        )
    };
    assert_eq!(affinity("sessionAffinity: None"), None);
    assert_eq!(affinity("sessionAffinity: ClientIP"), seconds(10_800));
    assert_eq!(affinity(&config(1)), seconds(1));
    assert_eq!(affinity(&config(86_400)), seconds(86_400));
    for wrong in [0, -1, 86_401] {
        assert_eq!(affinity(&config(wrong)), seconds(10_800), "{wrong}");
    }
    assert_eq!(affinity("sessionAffinity: Client"), None);
}

#[test]
fn ports_of_one_number_and_several_protocols_are_several_ports() {
    let spec = "ports: [{name: a, port: 80}, {name: b, port: 80, protocol: UDP},
                        {name: c, port: 80, protocol: SCTP}]";
    assert_eq!(
        dialled(&ports(spec, "", &node())),
        [
            "ClusterIp 10.96.0.1:80/TCP",
            "ClusterIp 10.96.0.1:80/UDP",
            "ClusterIp 10.96.0.1:80/SCTP"
        ]
    );
}
