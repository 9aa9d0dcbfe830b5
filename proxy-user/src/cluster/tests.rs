use super::*;
use crate::source::manifests;

fn object(text: &str) -> Object {
    manifests::objects(text).unwrap().remove(0)
}

fn service(address: &str) -> Object {
    object(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web}},
          spec: {{clusterIP: {address}, ports: [{{port: 80}}]}}}}"
    ))
}

fn slice(labels: &str, address: &str) -> Object {
    object(&format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
          metadata: {{name: s, labels: {{{labels}}}}}, addressType: IPv4,
          ports: [{{port: 8080}}], endpoints: [{{addresses: [{address}]}}]}}"
    ))
}

fn node(name: &str, address: &str) -> Object {
    object(&format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: {name}}},
          spec: {{podCIDRs: [10.244.1.0/24, nonsense]}},
          status: {{addresses: [{{type: InternalIP, address: {address}}}]}}}}"
    ))
}

const WEB: &str = "kubernetes.io/service-name: web";

fn name(name: &str) -> ServiceName {
    ServiceName::new("default", name)
}

#[test]
fn only_what_changes_the_view_makes_a_service_dirty() {
    let mut cluster = Cluster::new("node-a");
    assert_eq!(cluster.apply(&service("10.96.0.1")).services, [name("web")]);
    assert_eq!(cluster.apply(&service("10.96.0.1")).services, []);
    assert_eq!(
        cluster.apply(&slice(WEB, "10.244.1.1")).services,
        [name("web")]
    );
    assert_eq!(cluster.apply(&slice(WEB, "10.244.1.1")).services, []);
    assert_eq!(
        cluster.apply(&slice(WEB, "10.244.1.2")).services,
        [name("web")]
    );
    assert_eq!(cluster.delete(&service("").key()).services, [name("web")]);
    assert_eq!(cluster.delete(&service("").key()).services, []);
}

#[test]
fn a_slice_that_changes_its_service_makes_both_dirty() {
    let mut cluster = Cluster::new("node-a");
    cluster.apply(&slice(WEB, "10.244.1.1"));
    let moved = slice("kubernetes.io/service-name: other", "10.244.1.1");
    assert_eq!(cluster.apply(&moved).services, [name("web"), name("other")]);
    let stray = cluster.apply(&slice("", "10.244.1.1"));
    assert_eq!(stray.services, [name("other")]);
    assert_eq!(stray.skipped.len(), 1);
    assert_eq!(cluster.unowned().count(), 1);
    cluster.delete(&moved.key());
    assert_eq!(cluster.unowned().count(), 0);
    assert!(cluster.members.is_empty() && cluster.owners.is_empty());
}

#[test]
fn only_this_node_counts_and_only_its_changes() {
    let mut cluster = Cluster::new("node-a");
    assert!(!cluster.apply(&node("node-b", "192.168.0.2")).node);
    assert!(cluster.apply(&node("node-a", "192.168.0.1")).node);
    assert!(!cluster.apply(&node("node-a", "192.168.0.1")).node);
    let view = cluster.node().unwrap();
    assert_eq!(view.pod_cidrs.len(), 1);
    assert_eq!(
        view.skipped[0].to_string(),
        "Node node-a: spec.podCIDRs[1]: not an address range: \"nonsense\""
    );
    assert!(!cluster.delete(&node("node-b", "").key()).node);
    assert!(cluster.delete(&node("node-a", "").key()).node);
    assert_eq!(cluster.node(), None);
}

#[test]
fn an_endpoint_is_local_by_the_name_of_its_node_only() {
    let mut cluster = Cluster::new("node-a");
    cluster.apply(&service("10.96.0.1"));
    let Object::EndpointSlice(mut slice) = slice(WEB, "10.244.1.1") else {
        unreachable!();
    };
    for (node, local) in [
        (None, false),
        (Some("node-b"), false),
        (Some("node-a"), true),
    ] {
        slice
            .endpoints
            .iter_mut()
            .flatten()
            .for_each(|it| it.node_name = node.map(str::to_owned));
        cluster.apply(&Object::EndpointSlice(slice.clone()));
        let view = cluster.view(&name("web")).unwrap();
        assert_eq!(view.ports[0].endpoints[0].local, local, "{node:?}");
    }
}

#[test]
fn the_api_servers_that_were_there_last_are_kept() {
    let api = |addresses: &str| {
        object(&format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
              metadata: {{name: s, labels: {{kubernetes.io/service-name: kubernetes}}}}, addressType: IPv4,
              ports: [{{port: 6443}}], endpoints: [{addresses}]}}"
        ))
    };
    let mut cluster = Cluster::new("node-a");
    cluster.apply(&object(
        "{apiVersion: v1, kind: Service, metadata: {name: kubernetes},
          spec: {clusterIP: 10.96.0.1, ports: [{port: 443}]}}",
    ));
    let backends = |cluster: &Cluster| -> Vec<String> {
        let view = cluster.view(&name("kubernetes")).unwrap();
        let endpoints = view.ports[0].endpoints.iter();
        endpoints.map(|it| it.address.to_string()).collect()
    };
    let one = api("{addresses: [192.0.2.1]}");
    cluster.apply(&api(""));
    assert_eq!(backends(&cluster), [""; 0], "there was none yet");
    cluster.apply(&one);
    cluster.apply(&api(""));
    assert_eq!(backends(&cluster), ["192.0.2.1"]);
    cluster.delete(&one.key());
    assert_eq!(backends(&cluster), ["192.0.2.1"]);
    cluster.apply(&api("{addresses: [192.0.2.2]}"));
    assert_eq!(backends(&cluster), ["192.0.2.2"]);
    cluster.delete(&one.key());
    assert_eq!(backends(&cluster), ["192.0.2.2"]);
}

#[test]
fn service_ranges_are_known_each_once() {
    let range = |name: &str, cidrs: &str| {
        object(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {{name: {name}}},
              spec: {{cidrs: [{cidrs}]}}}}"
        ))
    };
    let mut cluster = Cluster::new("node-a");
    cluster.apply(&range("kubernetes", "10.96.0.0/12, 'fd00:10:96::/112'"));
    let dirty = cluster.apply(&range("more", "10.96.0.0/12, 10.200.0.0/33"));
    assert_eq!(
        dirty.skipped[0].to_string(),
        "ServiceCIDR more: spec.cidrs[1]: not an address range: \"10.200.0.0/33\""
    );
    let known: Vec<String> = cluster
        .service_cidrs()
        .iter()
        .map(Cidr::to_string)
        .collect();
    assert_eq!(known, ["10.96.0.0/12", "fd00:10:96::/112"]);
    cluster.delete(&range("kubernetes", "").key());
    assert_eq!(cluster.service_cidrs().len(), 1);
}

#[test]
fn where_the_node_is_matters_to_services_with_hints_alone() {
    let node = |zone: &str| {
        object(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: node-a, labels: {{topology.kubernetes.io/zone: '{zone}'}}}}}}"
        ))
    };
    let hinted = object(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
          metadata: {name: hinted, labels: {kubernetes.io/service-name: web}}, addressType: IPv4,
          ports: [{port: 8080}], endpoints: [
            {addresses: [10.244.1.1], hints: {forZones: [{name: a}], forNodes: [{name: node-b}]}},
            {addresses: [10.244.1.2], hints: {forZones: [{name: b}, {name: c}], forNodes: [{name: node-a}]}},
            {addresses: [10.244.1.3]}]}",
    );
    let mut cluster = Cluster::new("node-a");
    cluster.apply(&service("10.96.0.1"));
    cluster.apply(&slice("kubernetes.io/service-name: other", "10.244.1.1"));
    cluster.apply(&hinted);
    let hints = |cluster: &Cluster| {
        let view = cluster.view(&name("web")).unwrap();
        let endpoints = view.ports[0].endpoints.iter();
        let hints = endpoints.map(|it| (it.zone_hint, it.node_hint));
        hints.collect::<Vec<_>>()
    };
    use Hint::{Elsewhere, Here, None};
    let none = [(Elsewhere, Elsewhere), (Elsewhere, Here), (None, None)];
    assert_eq!(hints(&cluster), none);
    assert_eq!(cluster.apply(&node("c")).services, [name("web")]);
    assert_eq!(cluster.apply(&node("c")).services, []);
    let in_c = [(Elsewhere, Elsewhere), (Here, Here), (None, None)];
    assert_eq!(hints(&cluster), in_c);
    let moved = cluster.apply(&node("a"));
    assert!(moved.node);
    assert_eq!(moved.services, [name("web")]);
    assert_eq!(hints(&cluster)[0], (Here, Elsewhere));
    assert_eq!(cluster.delete(&node("").key()).services, [name("web")]);
    assert_eq!(hints(&cluster), none);
}

#[test]
fn slices_that_share_an_endpoint_make_it_one() {
    let endpoints = |name: &str, endpoints: &str| {
        object(&format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
              metadata: {{name: {name}, labels: {{kubernetes.io/service-name: web}}}}, addressType: IPv4,
              ports: [{{port: 8080}}], endpoints: [{endpoints}]}}"
        ))
    };
    let leaving = "conditions: {ready: false, serving: true, terminating: true}";
    let mut cluster = Cluster::new("node-a");
    cluster.apply(&service("10.96.0.1"));
    cluster.apply(&endpoints(
        "a",
        &format!("{{addresses: [10.244.1.9]}}, {{addresses: [10.244.1.1], {leaving}}}"),
    ));
    cluster.apply(&endpoints(
        "b",
        &format!(
            "{{addresses: [10.244.1.9], nodeName: node-a, {leaving}}},
             {{addresses: [10.244.1.1], nodeName: node-a}}"
        ),
    ));
    let view = cluster.view(&name("web")).unwrap();
    let endpoints = view.ports[0].endpoints.iter();
    let seen = endpoints.map(|it| (it.address.to_string(), it.ready, it.local));
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            ("10.244.1.1".to_owned(), true, true),
            ("10.244.1.9".to_owned(), true, false)
        ]
    );
}
