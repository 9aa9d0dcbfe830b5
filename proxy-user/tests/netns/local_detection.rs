//! How it is known what a pod is, and whom backends see for it.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

use crate::everywhere::{addresses, ip};
use crate::questions::{another, answered, itself, settles, silent, these};
use crate::sockets::inside;
use crate::stage::{PATIENCE, Stage};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use xtask::cluster::{Pod, PodLink, Service, Shape};

/// What an agent makes of a pod's packets, in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// They are a pod's.
    Pod,
    /// They are not.
    Stranger,
    /// It can't be told what anything is.
    Nothing,
}

/// Flags of the agent of the first node, and what follows in IPv4 and IPv6.
struct Mode {
    flags: &'static [&'static str],
    known: [Known; 2],
}

const fn mode(flags: &'static [&'static str], known: Known) -> Mode {
    Mode {
        flags,
        known: [known; 2],
    }
}

const NODE_CIDR: &[&str] = &["--detect-local-mode", "NodeCIDR"];

/// A backend on the second node, where the client outside gets to by the first; and one that asks itself.
struct Scene {
    stage: Stage,
    hairpin: Service,
    /// Where no server listens on the second node, so that the test can.
    ear: Pod,
    deaf: Service,
}

impl Scene {
    fn new(pods: PodLink) -> Self {
        let shape = Shape {
            pods,
            ..Shape::default()
        };
        let mut stage = Stage::shaped(shape, &[]);
        let ear = stage.cluster.add_pod(2, "ear").unwrap();
        let [hairpin, deaf] = [("hairpin", 11), ("deaf", 12)].map(|(name, host)| {
            let mut service = another(&stage, name, host);
            service.pods = match name {
                "deaf" => vec![ear.clone()],
                _ => vec![stage.web[0].clone()],
            };
            stage.cluster.manifests().unwrap().write(&service).unwrap();
            service
        });
        stage.service.pods = vec![stage.web[1].clone()];
        stage.service.spec_lines = vec!["externalTrafficPolicy: Local".to_owned()];
        let manifests = stage.cluster.manifests().unwrap();
        manifests.write(&stage.service).unwrap();
        lead_services_to_the_first_node(&stage);
        Self {
            stage,
            hairpin,
            ear,
            deaf,
        }
    }

    /// Starts the agent of the first node with the flags of a mode, and asks from everywhere.
    fn expect(&mut self, mode: &Mode) {
        self.stage.restart_agent(1, mode.flags);
        for (index, known) in mode.known.into_iter().enumerate() {
            let what = format!("{:?} IPv{} {known:?}", mode.flags, [4, 6][index]);
            self.expect_pod(&what, index, known);
            self.expect_outside(&what, index, known);
            self.expect_others(&what, index);
        }
        self.stage.assert_undisturbed();
    }

    fn expect_pod(&self, what: &str, index: usize, known: Known) {
        let (stage, backend) = (&self.stage, &self.stage.web[1..2]);
        let to = [stage.cluster_ips()[index]];
        let node = stage.cluster.node(1).addresses();
        let seen = match known {
            Known::Pod | Known::Nothing => stage.shell.addresses(),
            Known::Stranger => node,
        };
        settles(what, || answered(&stage.shell, &to, backend, these(&seen)));
        let inside = inside(stage, 1, &stage.shell);
        // Sockets connect to the backend itself.
        settles(what, || answered(&inside, &to, backend, itself(&inside)));
        // To the port of a node on which there is no backend.
        let to = [stage.node_ports(1)[index]];
        let drops = stage.count(1, "drops", "no-local-backend");
        match known {
            Known::Pod => {
                answered(&stage.shell, &to, backend, itself(&stage.shell))
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(stage.count(1, "drops", "no-local-backend"), drops, "{what}");
            }
            Known::Stranger | Known::Nothing => {
                silent(&stage.shell, &to).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(
                    stage.count(1, "drops", "no-local-backend") > drops,
                    "{what}"
                );
            }
        }
    }

    fn expect_outside(&self, what: &str, index: usize, known: Known) {
        let (stage, client) = (&self.stage, self.stage.cluster.client());
        let to = stage.cluster_ips()[index];
        let node = stage.cluster.node(1).addresses();
        match known {
            Known::Pod | Known::Stranger => {
                let backend = &stage.web[1..2];
                settles(what, || answered(client, &[to], backend, these(&node)));
            }
            Known::Nothing => {
                let to = SocketAddr::new(self.deaf.cluster_ips[index], to.port());
                let heard = self.heard(client, to);
                assert_eq!(heard, client.addresses()[index], "{what}: outside");
            }
        }
        let to = [stage.node_ports(1)[index]];
        silent(client, &to).unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    /// Whom the pod without a server sees when it is asked; answers may take another way.
    fn heard(&self, from: &Pod, to: SocketAddr) -> IpAddr {
        let own = crate::everywhere::direct(&self.ear, to);
        let ear = self.ear.namespace().run(|| UdpSocket::bind(own));
        let ear = ear.unwrap().unwrap();
        ear.set_read_timeout(Some(PATIENCE)).unwrap();
        let any = crate::sockets::any(to);
        let mouth = from.namespace().run(|| UdpSocket::bind(any));
        mouth.unwrap().unwrap().send_to(b"?", to).unwrap();
        ear.recv_from(&mut [0; 16]).unwrap().1.ip()
    }

    fn expect_others(&self, what: &str, index: usize) {
        let (stage, to) = (&self.stage, self.stage.cluster_ips()[index]);
        let process = stage.cluster.node(1).host_pod("process");
        let own = addresses(stage.cluster.node(1).namespace());
        for process in [process.clone(), inside(stage, 1, &process)] {
            settles(what, || {
                answered(&process, &[to], &stage.web[1..2], these(&own))
            });
        }
        // To a port of the node processes may go wherever there are backends.
        let node_port = [stage.node_ports(1)[index]];
        answered(&process, &node_port, &stage.web[1..2], these(&own)).unwrap();
        let to = [SocketAddr::new(self.hairpin.cluster_ips[index], to.port())];
        let itself = &stage.web[..1];
        settles(what, || answered(&itself[0], &to, itself, these(&own)));
    }
}

/// The client outside reaches addresses for Services by the first node; and the router lets backends answer
/// by another way.
fn lead_services_to_the_first_node(stage: &Stage) {
    let router = stage.cluster.router();
    let [v4, v6] = stage.cluster.node(1).addresses();
    ip(
        router,
        "-4",
        &format!("route add {} via {v4}", xtask::cluster::SERVICE_CIDR_V4),
    );
    ip(
        router,
        "-6",
        &format!("route add {} via {v6}", xtask::cluster::SERVICE_CIDR_V6),
    );
    let loosen = || {
        for device in std::fs::read_dir("/proc/sys/net/ipv4/conf").unwrap() {
            std::fs::write(device.unwrap().path().join("rp_filter"), "0").unwrap();
        }
    };
    router.run(loosen).unwrap();
}

#[test]
fn pods_are_known_by_their_addresses() {
    let mut scene = Scene::new(PodLink::Routed);
    for mode in [
        mode(&[], Known::Pod),
        mode(
            &["--cluster-cidr", "10.99.0.0/16,fd00:99::/48"],
            Known::Stranger,
        ),
        Mode {
            flags: &["--cluster-cidr", "fd00:10:244::/48"],
            known: [Known::Nothing, Known::Pod],
        },
    ] {
        scene.expect(&mode);
    }
    // With a file flags do not count.
    let file = scene.stage.cluster.folder().join("config.yaml");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n";
    std::fs::write(&file, text).unwrap();
    let flags = ["--config", file.to_str().unwrap().to_owned().leak()];
    scene.expect(&mode(Vec::from(flags).leak(), Known::Nothing));
}

#[test]
fn pods_are_known_by_what_the_nodes_object_says() {
    let mut scene = Scene::new(PodLink::Routed);
    scene.expect(&mode(NODE_CIDR, Known::Pod));
    let cidrs = |scene: &Scene, cidrs: &[&str]| {
        let node = scene.stage.cluster.node(1);
        let mut object = node.object();
        object["spec"] = serde_json::json!({"podCIDRs": cidrs});
        let manifests = scene.stage.cluster.manifests().unwrap();
        manifests
            .replace(&node.name(), &object.to_string())
            .unwrap();
    };
    cidrs(&scene, &[]);
    scene.expect(&mode(NODE_CIDR, Known::Nothing));
    cidrs(&scene, &["fd00:10:244:1::/64"]);
    scene.expect(&Mode {
        flags: NODE_CIDR,
        known: [Known::Nothing, Known::Pod],
    });
    cidrs(&scene, &["10.244.2.0/24", "fd00:10:244:2::/64"]);
    scene.expect(&mode(NODE_CIDR, Known::Stranger));
}

#[test]
fn pods_are_known_by_the_names_of_their_devices() {
    let mut scene = Scene::new(PodLink::Routed);
    let flags: [&[&str]; 2] = [
        &[
            "--detect-local-mode",
            "InterfaceNamePrefix",
            "--pod-interface-name-prefix",
            "pod",
        ],
        &[
            "--detect-local-mode",
            "InterfaceNamePrefix",
            "--pod-interface-name-prefix",
            "cali",
        ],
    ];
    scene.expect(&mode(flags[0], Known::Pod));
    scene.expect(&mode(flags[1], Known::Stranger));
}

#[test]
fn pods_are_known_by_their_bridge() {
    let mut scene = Scene::new(PodLink::Bridge);
    let flags: [&[&str]; 2] = [
        &[
            "--detect-local-mode",
            "BridgeInterface",
            "--pod-bridge-interface",
            "cni0",
        ],
        &[
            "--detect-local-mode",
            "BridgeInterface",
            "--pod-bridge-interface",
            "docker0",
        ],
    ];
    scene.expect(&mode(flags[0], Known::Pod));
    scene.expect(&mode(flags[1], Known::Stranger));
}

#[test]
fn all_are_masked_if_that_is_wanted_and_local_backends_see_it_only_on_demand() {
    let mut stage = Stage::new(&[]);
    lead_services_to_the_first_node(&stage);
    let (shell, client) = (stage.shell.clone(), stage.cluster.client().clone());
    let own = addresses(stage.cluster.node(1).namespace());
    let web = stage.web.clone();
    for (flags, all, local) in [
        (&[][..], false, false),
        (&["--masquerade-all"], true, false),
        (&["--masquerade-local-backends"], false, true),
        (
            &["--masquerade-all", "--masquerade-local-backends"],
            true,
            true,
        ),
    ] {
        stage.restart_agent(1, flags);
        let seen = |from: &Pod, is_wanted: bool, server: &Pod| {
            let is_here = server.node() == Some("node1");
            match is_wanted && (local || !is_here) {
                true => own.clone(),
                false => from.addresses().to_vec(),
            }
        };
        let to = stage.cluster_ips();
        settles(&format!("{flags:?}"), || {
            answered(&shell, &to, &web, |server| seen(&shell, all, server))
        });
        answered(&client, &to, &web, |server| seen(&client, true, server)).unwrap();
        for from in [&shell, &client] {
            let to = stage.node_ports(1);
            answered(from, &to, &web, |server| seen(from, true, server)).unwrap();
        }
    }
    stage.assert_undisturbed();
}
