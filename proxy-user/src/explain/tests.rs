use super::*;
use crate::frontend::DetectLocal;
use crate::source::manifests;
use crate::sync::Followed;
use std::net::IpAddr;

/// `web` has a port without a name and a backend on this node and on another one, `one` a single one here, `bound`
/// only one elsewhere under policies Local; `wish` wants what `web` has.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: node-1}
spec: {podCIDRs: [10.244.1.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints:
- {addresses: [10.244.2.5], nodeName: node-2}
- {addresses: [10.244.1.5], nodeName: node-1}
---
apiVersion: v1
kind: Service
metadata: {name: one, namespace: default}
spec: {type: NodePort, clusterIP: 10.96.0.2, ports: [{name: http, port: 80, nodePort: 30081}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: one-1, namespace: default, labels: {kubernetes.io/service-name: one}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.1.5], nodeName: node-1}]
---
apiVersion: v1
kind: Service
metadata: {name: bound, namespace: default}
spec:
  type: NodePort
  clusterIP: 10.96.0.3
  internalTrafficPolicy: Local
  externalTrafficPolicy: Local
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80, nodePort: 30082}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: bound-1, namespace: default, labels: {kubernetes.io/service-name: bound}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.2.5], nodeName: node-2}]
---
apiVersion: v1
kind: Service
metadata: {name: wish, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: mine, port: 80}]}
"#;

const POD: &str = "10.244.1.9";
const OUTSIDE: &str = "203.0.113.7";
const NODE: &str = "192.0.2.1";

fn followed() -> Followed {
    Followed {
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        ..Followed::default()
    }
}

fn node(followed: Followed) -> Offline {
    let facts = Facts {
        node_name: "node-1".to_owned(),
        followed,
        localhost_node_ports: true,
        ..Facts::default()
    };
    Offline::new(&facts, manifests::objects(OBJECTS).unwrap()).unwrap()
}

fn ask(node: &mut Offline, from: &str, to: &str) -> Answer {
    node.explain(&Query::new(from, to, None, None).unwrap())
}

fn masks(node: &mut Offline, from: &str, device: Option<&str>) -> bool {
    let query = Query::new(from, "10.96.0.1:80", None, device).unwrap();
    node.explain(&query).masquerade
}

#[test]
fn a_port_without_a_name_is_called_as_its_service() {
    let mut node = node(followed());
    let answer = ask(&mut node, POD, "10.96.0.1:80");
    assert_eq!(answer.service.as_deref(), Some("default/web"));
    assert_eq!(answer.backends, ["10.244.1.5:8080", "10.244.2.5:8080"]);
    assert!(node.skipped().iter().any(|it| it.contains("default/wish")));
    let answer = ask(&mut node, POD, "10.96.0.2:80");
    assert_eq!(answer.service.as_deref(), Some("default/one:http"));
}

#[test]
fn what_is_dialled_in_vain_is_told_apart() {
    let mut node = node(followed());
    let mut fate = |from: &str, to: &str| {
        let answer = ask(&mut node, from, to);
        (answer.verdict, answer.reason, answer.client_address_kept)
    };
    assert_eq!(
        fate(POD, "10.96.0.1:81"),
        (Fate::Reject, "no-backend", false)
    );
    assert_eq!(fate(POD, "10.96.0.9:80"), (Fate::Drop, "no-service", false));
    assert_eq!(
        fate(POD, "10.96.0.3:80"),
        (Fate::Drop, "no-local-backend", false)
    );
    assert_eq!(
        fate(OUTSIDE, "192.0.2.1:30082"),
        (Fate::Drop, "no-local-backend", false)
    );
    assert_eq!(
        fate(OUTSIDE, "192.0.2.1:22"),
        (Fate::Pass, "not-service", true)
    );
    assert_eq!(
        fate(POD, "192.0.2.1:30082").0,
        Fate::Forward,
        "as by the load balancer"
    );
    let query = Query::new(POD, "10.96.0.3:53", Some("udp"), None).unwrap();
    let answer = node.explain(&query);
    assert_eq!(
        (answer.verdict, answer.reason),
        (Fate::Reject, "no-backend")
    );
    assert_eq!(answer.service.as_deref(), Some("default/bound:dns"));
    assert!(answer.affinity && answer.backends.is_empty() && !answer.masquerade);
}

#[test]
fn pods_are_known_as_the_mode_says() {
    let by = |mode: &str, bridge: &str, prefix: &str| {
        node(Followed {
            detect_local: DetectLocal::of(mode, bridge, prefix).unwrap(),
            ..followed()
        })
    };
    let mut cluster = by("ClusterCIDR", "", "");
    assert!(!masks(&mut cluster, POD, None) && !masks(&mut cluster, "10.244.2.9", None));
    assert!(masks(&mut cluster, OUTSIDE, None) && masks(&mut cluster, NODE, None));
    let mut own = by("NodeCIDR", "", "");
    assert!(!masks(&mut own, POD, None) && masks(&mut own, "10.244.2.9", None));
    for (mode, pods) in [
        ("BridgeInterface", "cbr0"),
        ("InterfaceNamePrefix", "veth12"),
    ] {
        let mut by = by(mode, "cbr0", "veth");
        assert!(!masks(&mut by, OUTSIDE, Some(pods)), "{mode}");
        assert!(
            masks(&mut by, POD, Some("eth0")) && masks(&mut by, POD, None),
            "{mode}"
        );
        assert!(masks(&mut by, NODE, None), "{mode}");
    }
}

#[test]
fn where_pods_are_not_known_nobody_is_masked_at_a_cluster_address_but_by_masquerade_all() {
    let mut unknown = node(Followed::default());
    let mut all = node(Followed {
        masquerade_all: true,
        ..Followed::default()
    });
    for from in [POD, OUTSIDE, NODE] {
        assert!(
            !masks(&mut unknown, from, None) && masks(&mut all, from, None),
            "{from}"
        );
        assert!(
            ask(&mut unknown, from, "192.0.2.1:30080").masquerade,
            "{from}"
        );
    }
}

#[test]
fn an_address_of_the_node_in_the_range_of_pods_is_one_of_a_pod_to_kube_proxy() {
    let own: IpAddr = "10.244.1.1".parse().unwrap();
    let facts = Facts {
        node_name: "node-1".to_owned(),
        node_addresses: vec![NODE.parse().unwrap(), own],
        followed: followed(),
        ..Facts::default()
    };
    let mut node = Offline::new(&facts, manifests::objects(OBJECTS).unwrap()).unwrap();
    assert!(!masks(&mut node, "10.244.1.1", None) && masks(&mut node, NODE, None));
    let answer = ask(&mut node, "10.244.1.1", "192.0.2.1:30082");
    assert_eq!((answer.verdict, answer.masquerade), (Fate::Forward, false));
}

#[test]
fn a_client_that_can_only_reach_itself_is_masked() {
    let mut node = node(followed());
    let only = ask(&mut node, "10.244.1.5", "10.96.0.2:80");
    assert!(only.masquerade && !only.client_address_kept);
    let perhaps = ask(&mut node, "10.244.1.5", "10.96.0.1:80");
    assert!(!perhaps.masquerade && !perhaps.client_address_kept);
}

#[test]
fn backends_on_this_node_see_their_client_unless_that_is_not_wanted() {
    let mut spared = node(followed());
    let mut like_kube_proxy = node(Followed {
        masquerade_local_backends: true,
        ..followed()
    });
    let mut kept = |from: &str, to: &str| {
        let answers = [&mut spared, &mut like_kube_proxy].map(|node| ask(node, from, to));
        assert!(
            answers.iter().all(|answer| answer.masquerade),
            "{from} {to}"
        );
        answers.map(|answer| answer.client_address_kept)
    };
    assert_eq!(kept(OUTSIDE, "192.0.2.1:30081"), [true, false]);
    assert_eq!(kept(OUTSIDE, "192.0.2.1:30080"), [false, false]);
    assert_eq!(
        kept(NODE, "192.0.2.1:30080"),
        [true, true],
        "it is the client"
    );
    assert_eq!(kept("127.0.0.1", "127.0.0.1:30080"), [false, false]);
}

#[test]
fn loopback_is_for_sockets_of_the_node() {
    let mut node = node(followed());
    let mut fate = |from: &str, protocol: &str| {
        let query = Query::new(from, "127.0.0.1:30080", Some(protocol), None).unwrap();
        node.explain(&query).verdict
    };
    assert_eq!(fate("127.0.0.1", "tcp"), Fate::Forward);
    assert_eq!(fate("192.0.2.1", "tcp"), Fate::Forward);
    assert_eq!(fate(OUTSIDE, "tcp"), Fate::Pass);
    assert_eq!(fate("127.0.0.1", "sctp"), Fate::Pass);
}
