//! Ports and addresses for Services that nobody answers at.

use crate::questions::{another, answered, callers, refused, settles, silent, these};
use crate::stage::Stage;
use std::net::{IpAddr, SocketAddr};
use xtask::cluster::{Pod, SERVICE_CIDR_V4, SERVICE_CIDR_V6};

/// A port that the Service does not have.
const OTHER_PORT: u16 = 81;

fn others(stage: &Stage) -> Vec<SocketAddr> {
    let other = |to: SocketAddr| SocketAddr::new(to.ip(), OTHER_PORT);
    stage.cluster_ips().into_iter().map(other).collect()
}

#[test]
fn another_port_of_a_cluster_address_is_refused_at_once() {
    let mut stage = Stage::new(&[]);
    for caller in callers(&stage, 1, &stage.shell) {
        refused(&caller, &others(&stage));
    }
    assert!(stage.count(1, "passed", "refused") > 0);
    // Other addresses than the cluster's are not meant.
    let client = stage.cluster.client();
    answered(client, &stage.node_ports(1), &stage.web, |_| {
        let node = stage.cluster.node(1).addresses();
        node.into_iter().chain(client.addresses()).collect()
    })
    .unwrap();
    // From now on it is one of the Service's.
    stage
        .service
        .ports
        .iter_mut()
        .for_each(|port| port.port = OTHER_PORT);
    stage
        .cluster
        .manifests()
        .unwrap()
        .write(&stage.service)
        .unwrap();
    let shell = stage.shell.clone();
    settles("the new port", || {
        answered(
            &shell,
            &others(&stage),
            &stage.web,
            these(&shell.addresses()),
        )
    });
    for caller in callers(&stage, 1, &stage.shell) {
        refused(&caller, &stage.cluster_ips());
    }
    stage.assert_undisturbed();
}

#[test]
fn an_address_for_services_that_none_has_is_not_answered() {
    let stage = Stage::new(&[]);
    let unused = another(&stage, "late", 77);
    let to: Vec<SocketAddr> = unused
        .cluster_ips
        .iter()
        .map(|ip| (*ip, 80).into())
        .collect();
    let object = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [SERVICE_CIDR_V4, SERVICE_CIDR_V6]},
    });
    let manifests = stage.cluster.manifests().unwrap();
    manifests
        .replace("servicecidr", &object.to_string())
        .unwrap();
    let all: Vec<Pod> = callers(&stage, 1, &stage.shell).into();
    settles("nobody", || {
        all.iter().try_for_each(|caller| silent(caller, &to))
    });
    assert!(stage.count(1, "drops", "no-service") > 0);
    for caller in callers(&stage, 1, &stage.shell) {
        refused(&caller, &others(&stage));
    }

    let mut made = unused;
    made.pods = stage.web.clone();
    manifests.write(&made).unwrap();
    for caller in &all {
        let own: Vec<IpAddr> = match caller.name() {
            "process" => crate::everywhere::addresses(stage.cluster.node(1).namespace()),
            _ => caller.addresses().to_vec(),
        };
        settles("it is made", || {
            answered(caller, &to, &stage.web, these(&own))
        });
    }
    manifests.remove(&made).unwrap();
    settles("it is gone", || {
        all.iter().try_for_each(|caller| silent(caller, &to))
    });
    stage.assert_undisturbed();
}

#[test]
fn who_has_no_endpoints_refuses_at_once() {
    let mut stage = Stage::new(&[]);
    stage.set_backends(&[]);
    let to: Vec<SocketAddr> = stage
        .cluster_ips()
        .into_iter()
        .chain(stage.node_ports(1))
        .collect();
    for caller in callers(&stage, 1, &stage.shell) {
        refused(&caller, &to);
    }
    refused(stage.cluster.client(), &stage.node_ports(1));
    let web = stage.web.clone();
    stage.set_backends(&web);
    let shell = stage.shell.clone();
    let cluster_ips = stage.cluster_ips();
    settles("they are back", || {
        answered(&shell, &cluster_ips, &web, these(&shell.addresses()))
    });
    stage.assert_undisturbed();
}
