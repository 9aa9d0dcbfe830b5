//! Between a node and the router: devices, addresses, routes.

use super::Namespace;
use super::node::join;
use super::plan::{NodePlan, SECOND_CIDR_V4, SECOND_CIDR_V6};
use super::shape::{Families, NodeLink, Shape, Uplink};
use anyhow::Result;

/// The routing table for what comes from the address of the second uplink.
const SECOND_TABLE: u8 = 102;

/// Lays a node's uplinks.
pub(crate) fn lay(
    node: &Namespace,
    router: &Namespace,
    plan: NodePlan,
    shape: Shape,
) -> Result<()> {
    let name = plan.name();
    let device = shape.uplink.device();
    let (gateway4, gateway6) = (plan.subnet_v4(1), plan.subnet_v6(1));
    let (node4, node6) = (plan.subnet_v4(2), plan.subnet_v6(2));
    let router_device = connect(node, router, &name, shape.uplink)?;
    let batch = format!(
        "address add {gateway4}/24 dev {router_device}
         address add {gateway6}/64 dev {router_device} nodad
         link set {router_device} up\n"
    );
    router.ip(&Families::of_kernel().only(&batch))?;
    let batch = format!(
        "address add {node4}/24 dev {device}
         address add {node6}/64 dev {device} nodad
         link set {device} up
         route add default via {gateway4}
         route add default via {gateway6}\n"
    );
    node.ip(&shape.families.only(&batch))?;
    if shape.uplink == Uplink::Two {
        add_second(node, router, plan)?;
    }
    route_pods(router, plan, shape)
}

/// Makes the devices; returns that of the router.
fn connect(node: &Namespace, router: &Namespace, name: &str, uplink: Uplink) -> Result<String> {
    join(node, "eth0", router, name)?;
    match uplink {
        Uplink::Plain | Uplink::Two => Ok(name.to_owned()),
        Uplink::Vlan => {
            tag(node, "eth0", "eth0.10")?;
            let tagged = format!("{name}.10");
            tag(router, name, &tagged)?;
            Ok(tagged)
        }
        Uplink::Bond => bond(node, router, name),
    }
}

fn tag(place: &Namespace, device: &str, tagged: &str) -> Result<()> {
    place.ip(&format!(
        "link set {device} up
         link add link {device} name {tagged} type vlan id 10\n"
    ))
}

/// Two devices, of which one carries and the other waits; the router has a switch for them.
fn bond(node: &Namespace, router: &Namespace, name: &str) -> Result<String> {
    let (second, switch) = (format!("{name}b"), format!("{name}s"));
    join(node, "eth1", router, &second)?;
    node.ip("link add bond0 type bond mode active-backup miimon 100
         link set eth0 master bond0
         link set eth1 master bond0\n")?;
    router.ip(&format!(
        "link add {switch} type bridge
         link set {name} master {switch} up
         link set {second} master {switch} up\n"
    ))?;
    Ok(switch)
}

/// A second way to the router, with an address of its own.
fn add_second(node: &Namespace, router: &Namespace, plan: NodePlan) -> Result<()> {
    let device = format!("{}b", plan.name());
    join(node, "eth1", router, &device)?;
    let (gateway4, gateway6) = (plan.second_v4(1), plan.second_v6(1));
    let (node4, node6) = (plan.second_v4(2), plan.second_v6(2));
    router.ip(&format!(
        "address add {gateway4}/24 dev {device}
         address add {gateway6}/64 dev {device} nodad
         link set {device} up\n"
    ))?;
    node.ip(&format!(
        "address add {node4}/24 dev eth1
         address add {node6}/64 dev eth1 nodad
         link set eth1 up
         rule add from {node4} table {SECOND_TABLE}
         route add default via {gateway4} dev eth1 table {SECOND_TABLE}
         route add default via {gateway6} dev eth1 table {SECOND_TABLE}
         route add {pods4} via {gateway4}
         route add {pods6} via {gateway6}
         route add {SECOND_CIDR_V4} via {gateway4}
         route add {SECOND_CIDR_V6} via {gateway6}\n",
        pods4 = super::CLUSTER_CIDR_V4,
        pods6 = super::CLUSTER_CIDR_V6,
    ))?;
    // In a batch the family of a rule can't be told.
    let (from, table) = (node6.to_string(), SECOND_TABLE.to_string());
    node.command("ip", &["-6", "rule", "add", "from", &from, "table", &table])?;
    Ok(())
}

/// Tells the router where the node's pods are, unless tunnels carry what is for them.
fn route_pods(router: &Namespace, plan: NodePlan, shape: Shape) -> Result<()> {
    let (pods4, pods6) = (plan.pod_cidr_v4(), plan.pod_cidr_v6());
    let (via4, via6) = match shape.uplink {
        Uplink::Two => (plan.second_v4(2), plan.second_v6(2)),
        Uplink::Plain | Uplink::Vlan | Uplink::Bond => (plan.subnet_v4(2), plan.subnet_v6(2)),
    };
    let (v4, v6) = (
        format!("route add {pods4} via {via4}\n"),
        format!("route add {pods6} via {via6}\n"),
    );
    match shape.nodes {
        NodeLink::Routes => router.ip(&shape.families.only(&(v4 + &v6))),
        NodeLink::Ipip => router.ip(&shape.families.only(&v6)),
        NodeLink::Vxlan | NodeLink::WireGuard => Ok(()),
    }
}
