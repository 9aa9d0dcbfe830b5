//! Networks that nodes are found in.

use crate::installed::methods;
use crate::stage::{PATIENCE, PROTOCOLS, Stage, eventually, expect_all, family};
use crate::tunnel::Tunnel;
use xtask::traffic::tcp_transfer;

/// Sends what node `from` has for the pods and the address of node `to` through the tunnel.
pub(crate) fn route(stage: &Stage, from: u8, to: u8) {
    let (node, plan) = (stage.cluster.node(from), stage.cluster.node(to).plan());
    let (v4, v6) = (plan.subnet_v4(2), plan.subnet_v6(2));
    let (pods_v4, pods_v6) = (plan.pod_cidr_v4(), plan.pod_cidr_v6());
    let [own_v4, own_v6] = node.addresses();
    let batch = format!(
        "link set tun0 up
         route add {v4}/32 dev tun0 src {own_v4}
         route add {pods_v4} dev tun0 src {own_v4}
         route add {v6}/128 dev tun0 src {own_v6}
         route add {pods_v6} dev tun0 src {own_v6}\n"
    );
    node.namespace().ip(&batch).expect("the routes are set");
}

#[test]
fn nodes_are_joined_by_a_tunnel_without_ethernet_headers() {
    for method in methods() {
        let stage = Stage::new(&["--attach", method]);
        let [one, two] = [1, 2].map(|number| stage.cluster.node(number));
        let _tunnel = Tunnel::lay(one.namespace(), two.namespace());
        route(&stage, 1, 2);
        route(&stage, 2, 1);
        eventually("the programs are on the tunnel", || {
            [1, 2].iter().all(|node| stage.is_attached(*node, "tun0"))
        });
        let far = [stage.web[1].clone()];
        let mut stage = stage;
        stage.set_backends(&far);
        let (shell, client) = (stage.shell.clone(), stage.cluster.client().clone());
        let node = stage.cluster.node(1).addresses();
        for protocol in PROTOCOLS {
            for to in stage.cluster_ips() {
                expect_all(&shell, protocol, to, &far, |_| {
                    family(shell.addresses(), to)
                });
            }
            // Masked on the way into the tunnel, and turned back on the way out of it.
            for to in stage.node_ports(1) {
                expect_all(&client, protocol, to, &far, |_| family(node, to));
            }
        }
        for to in stage.node_ports(1) {
            let transfer = tcp_transfer(client.namespace(), to, 1 << 20, PATIENCE);
            assert_eq!(transfer.expect("1 MB comes back whole").bytes, 1 << 20);
        }
        assert!(stage.count(1, "passed", "masked") > 0);
        stage.assert_undisturbed();
    }
}
