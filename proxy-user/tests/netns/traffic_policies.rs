//! Which endpoints a node may use: internalTrafficPolicy, externalTrafficPolicy and topology hints.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

use crate::everywhere::addresses;
use crate::questions::{
    answered, callers, edit_endpoints, itself, publish, set, settles, silent, terminate, these,
};
use crate::stage::Stage;
use serde_json::json;
use std::net::IpAddr;
use xtask::cluster::Pod;

const INTERNAL: &str = "internalTrafficPolicy: Local";
const EXTERNAL: &str = "externalTrafficPolicy: Local";

/// Callers on a node that also has a pod of the Service.
fn callers_on(stage: &Stage, node: u8) -> [Pod; 4] {
    let pod = match node {
        1 => &stage.shell,
        _ => &stage.web[usize::from(node) - 1],
    };
    callers(stage, node, pod)
}

/// What servers may see of callers on a node: a pod by its own address, processes and who asks itself by the
/// node's.
fn own(stage: &Stage, node: u8, caller: &Pod) -> impl Fn(&Pod) -> Vec<IpAddr> {
    let nodes = addresses(stage.cluster.node(node).namespace());
    let caller = caller.clone();
    move |server| match caller.name() {
        "process" => nodes.clone(),
        name if name == server.name() => [&nodes[..], &caller.addresses()].concat(),
        _ => caller.addresses().to_vec(),
    }
}

/// All callers on the node are served by these at the cluster addresses.
fn served(stage: &Stage, node: u8, servers: &[Pod]) -> Result<(), String> {
    let to = stage.cluster_ips();
    callers_on(stage, node).iter().try_for_each(|caller| {
        let own = own(stage, node, caller);
        answered(caller, &to, servers, own)
    })
}

fn none_served(stage: &Stage, node: u8) -> Result<(), String> {
    let to = stage.cluster_ips();
    let mut callers = callers_on(stage, node).into_iter();
    callers.try_for_each(|caller| silent(&caller, &to))
}

#[test]
fn internal_traffic_stays_on_its_node_if_that_is_wanted() {
    let mut stage = Stage::new(&[]);
    let web = stage.web.clone();
    set(&mut stage, &[INTERNAL], &web[..1]);
    settles("served where the endpoint is", || {
        served(&stage, 1, &web[..1])
    });
    settles("nowhere else", || none_served(&stage, 2));
    assert!(stage.count(2, "drops", "no-local-backend") > 0);
    // It holds for cluster addresses only.
    let node = stage.cluster.node(2);
    let to = stage.node_ports(2);
    let outside = answered(
        stage.cluster.client(),
        &to,
        &web[..1],
        these(&node.addresses()),
    );
    outside.unwrap();

    stage.set_backends(&web);
    settles("each by its own", || {
        served(&stage, 1, &web[..1]).and_then(|()| served(&stage, 2, &web[1..2]))
    });

    let host = stage.cluster.node(1).host_pod("host");
    stage.serve(&host);
    let hosts = [host];
    stage.set_backends(&hosts);
    settles("in the node's network, too", || served(&stage, 1, &hosts));
    settles("nowhere else", || none_served(&stage, 2));
    stage.assert_undisturbed();
}

#[test]
fn external_traffic_stays_on_its_node_and_keeps_the_clients_address() {
    let mut stage = Stage::new(&[]);
    let web = stage.web.clone();
    set(&mut stage, &[EXTERNAL], &web[..1]);
    let client = stage.cluster.client().clone();
    settles("served where the endpoint is", || {
        answered(&client, &stage.node_ports(1), &web[..1], itself(&client))
    });
    for node in [2, 3] {
        settles("nowhere else", || silent(&client, &stage.node_ports(node)));
        assert!(stage.count(node, "drops", "no-local-backend") > 0);
    }
    // Who is in the cluster need not know where endpoints are.
    for caller in callers_on(&stage, 2) {
        let own = own(&stage, 2, &caller);
        answered(&caller, &stage.node_ports(2), &web[..1], own).unwrap();
    }
    served(&stage, 2, &web[..1]).unwrap();

    stage.set_backends(&web);
    for node in 1..=3 {
        let server = &web[usize::from(node) - 1..usize::from(node)];
        settles("each by its own", || {
            answered(&client, &stage.node_ports(node), server, itself(&client))
        });
    }
    for caller in callers_on(&stage, 2) {
        let own = own(&stage, 2, &caller);
        answered(&caller, &stage.node_ports(2), &web, own).unwrap();
    }
    stage.assert_undisturbed();
}

#[test]
fn endpoints_on_their_way_out_serve_where_no_others_may() {
    let mut stage = Stage::new(&[]);
    let web = stage.web.clone();
    set(&mut stage, &[INTERNAL, EXTERNAL], &web[1..]);
    stage.service.pods = vec![web[0].clone(), web[2].clone()];
    // The first terminates, the third does not, and the second node has none.
    publish(&stage, &stage.service, |object| {
        edit_endpoints(object, |name, endpoint| {
            if name == "web-1" {
                terminate(endpoint);
            }
        });
    });
    let client = stage.cluster.client().clone();
    let outside = |node: u8, servers: &[Pod]| {
        answered(&client, &stage.node_ports(node), servers, itself(&client))
    };
    settles("cluster addresses", || {
        served(&stage, 1, &web[..1])?;
        served(&stage, 3, &web[2..])?;
        none_served(&stage, 2)
    });
    settles("node ports", || {
        outside(1, &web[..1])?;
        outside(3, &web[2..])?;
        silent(&client, &stage.node_ports(2))
    });
    // For all that may go anywhere there is still one that stays.
    for caller in callers_on(&stage, 1) {
        let own = own(&stage, 1, &caller);
        answered(&caller, &stage.node_ports(1), &web[2..], own).unwrap();
    }

    // Without policies, and when all terminate.
    stage.service.spec_lines.clear();
    publish(&stage, &stage.service, |object| {
        edit_endpoints(object, |_, endpoint| terminate(endpoint));
    });
    let two = stage.service.pods.clone();
    settles("all terminate", || served(&stage, 1, &two));
    for node in 1..=3 {
        let here = stage.cluster.node(node);
        settles("from outside", || {
            answered(&client, &stage.node_ports(node), &two, |server| {
                match server.node() == Some(&here.name()) {
                    true => client.addresses().to_vec(),
                    false => here.addresses().to_vec(),
                }
            })
        });
    }
    stage.assert_undisturbed();
}

/// Tells each endpoint whom it is for: the zones and nodes, by the pod's name.
fn hint(stage: &Stage, hints: &[(&str, serde_json::Value)]) {
    publish(stage, &stage.service, |object| {
        edit_endpoints(object, |name, endpoint| {
            let hint = hints.iter().find(|(pod, _)| *pod == name);
            if let Some((_, hint)) = hint {
                endpoint["hints"] = hint.clone();
            }
        });
    });
}

/// Puts a node into a zone.
fn set_zone(stage: &Stage, node: u8, zone: &str) {
    let node = stage.cluster.node(node);
    let mut object = node.object();
    object["metadata"]["labels"]["topology.kubernetes.io/zone"] = zone.into();
    let manifests = stage.cluster.manifests().unwrap();
    manifests
        .replace(&node.name(), &object.to_string())
        .unwrap();
}

#[test]
fn hints_keep_traffic_in_its_zone_and_on_its_node() {
    let stage = Stage::new(&[]);
    let web = stage.web.clone();
    let zone = |name: &str| json!({"forZones": [{"name": name}]});
    let node = |name: &str, zone: &str| json!({"forNodes": [{"name": name}], "forZones": [{"name": zone}]});
    hint(
        &stage,
        &[
            ("web-1", zone("b")),
            ("web-2", zone("a")),
            ("web-3", zone("b")),
        ],
    );
    settles("nodes without a zone", || served(&stage, 1, &web));
    for (node, zone) in [(1, "a"), (2, "a"), (3, "b")] {
        set_zone(&stage, node, zone);
    }
    let in_b = [web[0].clone(), web[2].clone()];
    settles("by zone", || {
        served(&stage, 1, &web[1..2])?;
        served(&stage, 3, &in_b)
    });
    let client = stage.cluster.client();
    let outside = || {
        answered(
            client,
            &stage.node_ports(1),
            &web[1..2],
            these(&stage.cluster.node(1).addresses()),
        )
    };
    settles("from outside, too", outside);
    set_zone(&stage, 1, "c");
    settles("a zone without endpoints", || served(&stage, 1, &web));
    set_zone(&stage, 1, "b");
    settles("in another zone", || served(&stage, 1, &in_b));

    hint(
        &stage,
        &[
            ("web-1", node("node3", "b")),
            ("web-2", node("node1", "a")),
            ("web-3", node("node3", "b")),
        ],
    );
    settles("by node", || {
        served(&stage, 1, &web[1..2])?;
        served(&stage, 3, &in_b)
    });
    settles("by zone where no node is named", || {
        served(&stage, 2, &web[1..2])
    });
    hint(&stage, &[("web-1", zone("b")), ("web-2", zone("a"))]);
    settles("one without a hint", || served(&stage, 1, &web));
    stage.assert_undisturbed();
}
