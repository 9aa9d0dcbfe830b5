//! What kube-proxy's own tests say about objects, word for word: which Services and endpoints it sees, which of
//! them it chooses, and what it counts. Packets are another ring's.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

#[path = "conformance_units/cases.rs"]
mod cases;

use cases::{Case, Flow, at, endpoints, node, put, read, views};
use proxy_user::cluster::{Cluster, ServiceView};
use proxy_user::frontend::{
    FrontendKind, IpFamily, LocalAddresses, NodeContext, NodePortAddresses, Protocol, ServicePort,
    local_gaps, service_ports,
};
use proxy_user::source::Object;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const PACKETS: &str = "packets.json";
const UNITS: &str = "units.json";

/// What is run here: file, kind, how many.
const RUN: [(&str, &str, usize); 7] = [
    (PACKETS, "categorize", 38),
    (PACKETS, "metric", 7),
    (UNITS, "service_map", 18),
    (UNITS, "endpoints_map", 12),
    (UNITS, "endpoints_update", 18),
    (UNITS, "nodeport_addresses", 13),
    (UNITS, "conntrack_cleanup", 1),
];
/// What is not, and why.
const NOT_RUN: [(&str, &str, usize, &str); 4] = [
    (PACKETS, "packetflow", 90, "needs the datapath's decision"),
    (PACKETS, "healthz", 2, "is about the agent's own health"),
    (
        PACKETS,
        "local_ready_endpoints",
        2,
        "is about health check node ports",
    ),
    (
        PACKETS,
        "healthcheck_service",
        1,
        "is about health check node ports",
    ),
];
/// Fields of expectations that are not compared, and why.
const NOT_COMPARED: [(&str, &str); 2] = [
    ("healthCheckNodePort", "is about health check node ports"),
    (
        "udpConntrackCleanupRequired",
        "flows are judged by their backend when they are used: nothing has to be triggered",
    ),
];

#[test]
fn no_case_is_left_out_without_a_reason() {
    let mut counts = BTreeMap::new();
    for file in [PACKETS, UNITS] {
        for case in read(file) {
            let kind = case["kind"].as_str().unwrap().to_owned();
            *counts.entry((file, kind)).or_default() += 1;
        }
    }
    let run = RUN.map(|(file, kind, count)| ((file, kind.to_owned()), count));
    let not_run = NOT_RUN.map(|(file, kind, count, _)| ((file, kind.to_owned()), count));
    assert_eq!(counts, run.into_iter().chain(not_run).collect());
}

#[test]
fn services_are_seen_as_kube_proxy_sees_them() {
    check("service_map", |case| {
        let cluster = case.cluster();
        let ports = views(&cluster).into_iter().flat_map(|view| {
            let mut ports = service_ports(&view, &node());
            ports.retain(|port| port.family == case.family());
            let ports = ports.into_iter();
            ports
                .map(move |port| service_port(&view, &port))
                .collect::<Vec<_>>()
        });
        Value::Object(ports.collect())
    });
}

fn service_port(view: &ServiceView, port: &ServicePort) -> (String, Value) {
    let inside = port.frontends.iter();
    let mut inside = inside.filter(|it| it.kind == FrontendKind::ClusterIp);
    let inside = inside.next().unwrap();
    let of_family = |ips: &[IpAddr]| -> Value {
        let ips = ips.iter().filter(|ip| IpFamily::of(**ip) == port.family);
        ips.map(ToString::to_string).collect()
    };
    let ranges = view.outside.source_ranges.iter();
    let ranges = ranges.filter(|it| IpFamily::of(it.address()) == port.family);
    let seen = json!({
        "clusterIP": inside.address,
        "externalIPs": of_family(&view.outside.external_ips),
        "loadBalancerSourceRanges": ranges.map(ToString::to_string).collect::<Vec<_>>(),
        "loadBalancerVIPs": of_family(&view.outside.load_balancer_ips),
        "port": inside.port,
        "protocol": inside.protocol.name(),
    });
    let name = format!("{}:{}/{}", view.name, port.name, inside.protocol.name());
    (name, seen)
}

/// kube-proxy's test asks for one Service, whatever else there is.
#[test]
fn slices_are_merged_as_kube_proxy_merges_them() {
    check("endpoints_map", |case| {
        let mut case = case;
        case.services = Case::services_of(case.slices.iter());
        let mut endpoints = endpoints(&case.full_cluster(), case.family());
        let ports = endpoints.as_object_mut().unwrap();
        ports.retain(|port, _| port.starts_with("ns1/svc1:"));
        endpoints
    });
}

#[test]
fn changes_of_slices_are_seen_as_kube_proxy_sees_them() {
    check("endpoints_update", |case| {
        let mut case = case;
        let slices = case.previous.iter().chain(&case.current).flatten();
        case.services = Case::services_of(slices);
        let mut cluster = case.cluster();
        for slice in case.previous.iter().flatten() {
            put(&mut cluster, slice);
        }
        let previous = endpoints(&cluster, case.family());
        let changed = changes(&case, &mut cluster);
        json!({
            "previousEndpoints": previous,
            "endpoints": endpoints(&cluster, case.family()),
            "localReadyEndpoints": local_ready_endpoints(&cluster),
            "changedServices": changed,
        })
    });
}

/// Goes from the previous slices to the current ones; returns which Services that changes.
fn changes(case: &Case, cluster: &mut Cluster) -> BTreeSet<String> {
    let mut changed = BTreeSet::new();
    for (previous, current) in case.previous.iter().zip(&case.current) {
        let names = match (previous, current) {
            (_, Some(slice)) => put(cluster, slice),
            (Some(slice), None) => {
                let key = Object::EndpointSlice(Box::new(slice.clone())).key();
                cluster.delete(&key).services
            }
            (None, None) => Vec::new(),
        };
        changed.extend(names.iter().map(ToString::to_string));
    }
    changed
}

/// How many addresses of each Service are on this node and ready; without those that have none.
fn local_ready_endpoints(cluster: &Cluster) -> BTreeMap<String, usize> {
    let counts = views(cluster).into_iter().map(|view| {
        let endpoints = view.ports.iter().flat_map(|port| &port.endpoints);
        let ready = endpoints.filter(|it| it.local && it.ready);
        let addresses: BTreeSet<IpAddr> = ready.map(|it| it.address).collect();
        (view.name.to_string(), addresses.len())
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn endpoints_are_chosen_as_kube_proxy_chooses_them() {
    check("categorize", |case| {
        let ports = case.service_ports();
        let port = &ports[0];
        let is_accessible = port
            .frontends
            .iter()
            .any(|it| it.kind != FrontendKind::ClusterIp);
        let stays_local = port.stays_local;
        let uses_cluster = is_accessible || !stays_local.internal;
        let uses_local = stays_local.internal || stays_local.external;
        let chosen = |is_in: &dyn Fn(&proxy_user::frontend::Backend) -> bool| -> Value {
            let chosen = port.backends.iter().filter(|it| is_in(it));
            chosen.map(|it| at(it.address, it.port)).collect()
        };
        json!({
            "clusterEndpoints": uses_cluster.then(|| chosen(&|it| it.in_cluster)),
            "localEndpoints": uses_local.then(|| chosen(&|it| it.in_local)),
            "allReachableEndpoints":
                chosen(&|it| uses_cluster && it.in_cluster || uses_local && it.in_local),
            "hasAnyEndpoints": port.backends.iter().any(|it| it.in_cluster),
        })
    });
}

#[test]
fn ports_without_local_endpoints_are_counted_as_kube_proxy_counts_them() {
    check("metric", |case| {
        let gaps = local_gaps(&case.service_ports(), case.family());
        json!({
            "metric": "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "values": { "internal": gaps.internal, "external": gaps.external },
        })
    });
}

/// kube-proxy counts loopback addresses as well, and says apart whether that is all there is.
#[test]
fn node_ports_are_served_where_kube_proxy_serves_them() {
    for case in cases("nodeport_addresses") {
        let list = case.node_port_addresses.iter().map(String::as_str);
        let list = NodePortAddresses::parse(list).unwrap();
        let mut local = LocalAddresses::new();
        for (device, addresses) in &case.interfaces {
            for address in addresses {
                let (address, _) = address.split_once('/').unwrap();
                local.insert(address.parse().unwrap(), device.clone());
            }
        }
        let served = NodeContext::of([], local, &list).node_port_addresses;
        let expected = ["IPv4", "IPv6"].into_iter().flat_map(|family| {
            let listed = case.expect[family]["ips"].as_array().unwrap();
            let parse = |it: &Value| it.as_str().unwrap().parse::<IpAddr>().unwrap();
            listed.iter().map(parse).collect::<Vec<_>>()
        });
        let expected = expected.filter(|ip| !ip.is_loopback());
        let expected: BTreeSet<IpAddr> = expected.collect();
        assert_eq!(BTreeSet::from_iter(served), expected, "{}", case.id);
    }
}

/// Of a row of connection tracking only this is said: it goes when a datagram's Service has endpoints that answer,
/// and its backend is none of them. When Ferrule's own flows go is the datapath's affair; it also keeps those of
/// an endpoint that is ready though it does not answer yet (`publishNotReadyAddresses`), which new ones go to.
#[test]
fn endpoints_answer_or_not_as_kube_proxy_sees_it() {
    for case in cases("conntrack_cleanup") {
        let cluster = case.full_cluster();
        let view = views(&cluster).pop().unwrap();
        let ports = service_ports(&view, &node());
        let stays = |flow: &&Flow| !is_stale(flow, &view, &ports);
        let kept: Vec<Flow> = case.before.iter().filter(stays).cloned().collect();
        assert_eq!(in_order(kept), in_order(case.after), "{}", case.id);
    }
}

/// The files' two lists are in different orders.
fn in_order(mut flows: Vec<Flow>) -> Vec<Flow> {
    flows.sort_by_key(|flow| format!("{flow:?}"));
    flows
}

fn is_stale(flow: &Flow, view: &ServiceView, ports: &[ServicePort]) -> bool {
    if flow.protocol != "UDP" {
        return false;
    }
    let mut frontends = ports.iter().flat_map(|port| &port.frontends);
    let is_of_service = frontends.any(|it| {
        let is_at = match it.kind {
            FrontendKind::NodePort => true,
            _ => it.address.to_string() == flow.orig_dst,
        };
        is_at && it.protocol == Protocol::Udp && it.port == flow.orig_dst_port
    });
    let of_port = view.ports.iter().filter(|it| it.protocol == Protocol::Udp);
    let mut serving = of_port.flat_map(|it| &it.endpoints).filter(|it| it.serving);
    let source = format!("{}:{}", flow.reply_src, flow.reply_src_port);
    is_of_service && !serving.any(|it| at(it.address, it.port) == source)
}

fn cases(kind: &str) -> Vec<Case> {
    let (file, _, count) = *RUN.iter().find(|(_, it, _)| *it == kind).unwrap();
    let cases = Case::of_kind(file, kind);
    assert_eq!(cases.len(), count, "{kind}");
    cases
}

/// Compares what becomes of each case of a kind with what it expects.
fn check(kind: &str, becomes: impl Fn(Case) -> Value) {
    let mut wrong = Vec::new();
    for case in cases(kind) {
        let (id, mut expected) = (case.id.clone(), case.expect.clone());
        let mut found = becomes(case);
        for value in [&mut expected, &mut found] {
            simplify(value);
        }
        if expected != found {
            wrong.push(format!("{id}:\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// No list and an empty one are the same; what is not compared goes.
fn simplify(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|name, _| NOT_COMPARED.iter().all(|(field, _)| field != name));
        for field in fields.values_mut() {
            if field.is_null() {
                *field = json!([]);
            }
            simplify(field);
        }
    }
}
