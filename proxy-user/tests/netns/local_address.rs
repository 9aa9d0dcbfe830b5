//! Addresses of Services that a node has itself, as NodeLocal DNSCache sets them up.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

use crate::cells::{Place, Way};
use crate::shaped::Shaped;
use crate::stage::{PROTOCOLS, SHORT, ask, eventually, family};
use std::net::{IpAddr, SocketAddr};
use xtask::cluster::{Pod, SERVICE_CIDR_V4, SERVICE_CIDR_V6, Shape};
use xtask::traffic::Server;

/// Who answers at the service's address, if all protocols and families agree.
fn who_answers(shaped: &Shaped, way: Way) -> Option<String> {
    let client = shaped.client(way, Place::Local);
    let asked = [false, true].into_iter().flat_map(|is_v6| {
        let to = shaped.frontend(way, Place::Local, is_v6);
        PROTOCOLS.map(|protocol| {
            let answer = ask(client, protocol, to, SHORT).ok()?;
            let is_seen = answer.seen_source.ip() == family(client.addresses(), to);
            is_seen.then_some(answer.server)
        })
    });
    let asked: Vec<Option<String>> = asked.collect();
    let is_one = asked.iter().all(|name| *name == asked[0]);
    asked[0].clone().filter(|_| is_one)
}

/// The service's addresses on a device of the first node.
fn take(shaped: &Shaped, addresses: [SocketAddr; 2]) -> Pod {
    let node = shaped.cluster.node(1).namespace();
    let [IpAddr::V4(v4), IpAddr::V6(v6)] = addresses.map(|it| it.ip()) else {
        panic!("IPv4 comes first");
    };
    // Any device will do; kernels may lack dummies.
    node.ip(&format!(
        "link add nodelocaldns type bridge
         link set nodelocaldns up
         address add {v4}/32 dev nodelocaldns
         address add {v6}/128 dev nodelocaldns nodad\n"
    ))
    .unwrap();
    Pod::outside("cache", node.clone(), v4, v6)
}

#[test]
fn a_service_address_that_the_node_has_itself_is_left_alone() {
    let shaped = Shaped::new(Shape::default());
    // Addresses out of it that no Service has are dropped, but not the node's own.
    let ranges = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [SERVICE_CIDR_V4, SERVICE_CIDR_V6]},
    });
    let manifests = shaped.cluster.manifests().unwrap();
    manifests.replace("ranges", &ranges.to_string()).unwrap();
    let addresses = [false, true].map(|is_v6| shaped.frontend(Way::ClusterIp, Place::Local, is_v6));
    let is_answering = |name: &str| who_answers(&shaped, Way::ClusterIp).as_deref() == Some(name);
    assert!(is_answering("local"));
    let cache = take(&shaped, addresses);
    let server = Server::start(&cache, addresses[0].port()).unwrap();
    eventually("the node's own listener answers", || is_answering("cache"));
    assert_eq!(
        who_answers(&shaped, Way::NodePort).as_deref(),
        Some("local")
    );
    drop(server);
    let node = shaped.cluster.node(1).namespace();
    node.ip("link del nodelocaldns\n").unwrap();
    eventually("the service is back", || is_answering("local"));
}
