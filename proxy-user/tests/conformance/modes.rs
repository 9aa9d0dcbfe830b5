//! In what kube-proxy's modes differ, and which packets are decided by that: Ferrule follows nftables.

use super::cases::{Case, Mode, Packet};
use proxy_user::frontend::Cidr;
use serde_json::Value;
use std::net::IpAddr;

/// A behaviour that the modes do not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    /// A port of an active cluster address that no Service has: nftables rejects.
    WrongPort,
    /// An address for Services that none has: nftables drops.
    UnallocatedAddress,
    /// A NodePort on loopback: iptables has it, for IPv4.
    LoopbackNodePort,
    /// A health check node port: iptables lets it through in its filter.
    HealthCheckPort,
    /// Ranges of sources without any endpoint: nftables drops where iptables rejects.
    SourceRangesWithoutEndpoints,
    /// A NodePort that nobody answers, on an address that serves none: iptables rejects or drops all the same.
    NodePortElsewhere,
}

/// Whether a row decides about a packet.
type Decides = fn(&Case, &Packet) -> bool;

/// The row that decides about the packet, if one does.
pub(crate) fn row(case: &Case, packet: &Packet) -> Option<Row> {
    if case.mode == Mode::Nftables {
        return None;
    }
    let rows: [(Row, Decides); 6] = [
        (Row::LoopbackNodePort, is_loopback_node_port),
        (Row::WrongPort, is_wrong_port),
        (Row::UnallocatedAddress, is_unallocated),
        (Row::HealthCheckPort, is_health_check),
        (
            Row::SourceRangesWithoutEndpoints,
            is_restricted_without_endpoints,
        ),
        (Row::NodePortElsewhere, is_node_port_elsewhere),
    ];
    let mut rows = rows.into_iter();
    rows.find(|(_, decides)| decides(case, packet))
        .map(|(row, _)| row)
}

fn is_loopback_node_port(case: &Case, packet: &Packet) -> bool {
    let mut services = case.services.iter();
    packet.dest.is_loopback() && services.any(|service| port(service, packet, "nodePort").is_some())
}

fn is_wrong_port(case: &Case, packet: &Packet) -> bool {
    let active: Vec<&Value> = with_cluster_ip(case, packet).collect();
    let mut ports = active
        .iter()
        .filter_map(|service| port(service, packet, "port"));
    !active.is_empty() && ports.next().is_none()
}

fn is_unallocated(case: &Case, packet: &Packet) -> bool {
    let ranges = case.node.service_cidrs.iter().flatten();
    let mut ranges = ranges.filter_map(|range| range.parse::<Cidr>().ok());
    let is_free = with_cluster_ip(case, packet).next().is_none();
    is_free && ranges.any(|range| range.contains(packet.dest))
}

fn is_health_check(case: &Case, packet: &Packet) -> bool {
    let ports = case
        .services
        .iter()
        .map(|it| &it["spec"]["healthCheckNodePort"]);
    let mut ports = ports.filter_map(Value::as_u64);
    ports.any(|port| port == u64::from(packet.dest_port)) && packet.output == ["ACCEPT"]
}

fn is_restricted_without_endpoints(case: &Case, packet: &Packet) -> bool {
    case.services.iter().any(|service| {
        let ingress = &service["status"]["loadBalancer"]["ingress"];
        let mut ingress = ingress.as_array().into_iter().flatten();
        let is_balancer = ingress.any(|it| is_address(&it["ip"], packet.dest));
        let ranges = service["spec"]["loadBalancerSourceRanges"].as_array();
        let found = port(service, packet, "port");
        is_balancer
            && ranges.is_some_and(|ranges| !ranges.is_empty())
            && found.is_some_and(|found| !has_endpoints(case, service, found, Policy::Any))
    })
}

fn is_node_port_elsewhere(case: &Case, packet: &Packet) -> bool {
    let node = &case.node;
    let is_of_node = node.addresses().contains(&packet.dest);
    is_of_node
        && !node.serves_node_ports_at(packet.dest)
        && case.services.iter().any(|service| {
            let found = port(service, packet, "nodePort");
            found.is_some_and(|found| !has_endpoints(case, service, found, Policy::External))
        })
}

fn with_cluster_ip<'a>(case: &'a Case, packet: &'a Packet) -> impl Iterator<Item = &'a Value> {
    case.services.iter().filter(|service| {
        let spec = &service["spec"];
        let several = spec["clusterIPs"].as_array().into_iter().flatten();
        let mut all = several.chain([&spec["clusterIP"]]);
        all.any(|ip| is_address(ip, packet.dest))
    })
}

fn is_address(text: &Value, address: IpAddr) -> bool {
    let text = text
        .as_str()
        .and_then(|text| text.trim().parse::<IpAddr>().ok());
    text == Some(address)
}

/// The Service's port with this number and protocol.
fn port<'a>(service: &'a Value, packet: &Packet, field: &str) -> Option<&'a Value> {
    let mut ports = service["spec"]["ports"].as_array()?.iter();
    ports.find(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        port[field].as_u64() == Some(packet.dest_port.into()) && protocol == packet.protocol
    })
}

/// Whether any endpoint of a service port could answer, under the policy for clients outside if it is that.
fn has_endpoints(case: &Case, service: &Value, port: &Value, policy: Policy) -> bool {
    let metadata = &service["metadata"];
    let of_service = case.slices.iter().filter(|slice| {
        let labels = &slice["metadata"]["labels"];
        slice["addressType"] == case.node.family()
            && slice["metadata"]["namespace"] == metadata["namespace"]
            && labels["kubernetes.io/service-name"] == metadata["name"]
    });
    let name = |it: &Value| it["name"].as_str().unwrap_or_default().to_owned();
    let of_port = of_service.filter(|slice| {
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        ports.any(|it| name(it) == name(port))
    });
    let endpoints = of_port.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let is_local =
        service["spec"]["externalTrafficPolicy"] == "Local" && policy == Policy::External;
    let mut endpoints =
        endpoints.filter(|it| !is_local || it["nodeName"] == case.node.node_name.as_str());
    endpoints.any(can_answer)
}

/// Which of a Service's policies counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Any,
    External,
}

fn can_answer(endpoint: &Value) -> bool {
    let is = |condition: &str| endpoint["conditions"][condition].as_bool();
    let is_leaving = is("serving").unwrap_or(true) && is("terminating").unwrap_or(false);
    is("ready").unwrap_or(true) || is_leaving
}
