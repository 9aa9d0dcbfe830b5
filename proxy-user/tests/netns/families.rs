//! Nodes of one address family, in clusters whose Services have both.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

use crate::cells::{Place, Way};
use crate::shaped::Shaped;
use crate::stage::{SHORT, eventually};
use std::path::Path;
use xtask::cluster::{Families, Node, Shape};
use xtask::traffic::tcp_ask;

/// What an agent may complain about in its life.
const COMPLAINTS: usize = 3;
/// How often every object changes; each time could be a reason to complain.
const CHANGES: u16 = 20;
/// The ports that a service has one after the other come after this one.
const FIRST_PORT: u16 = 7000;

#[test]
fn dual_stack_services_make_no_noise_on_nodes_of_one_family() {
    let has_v6 = Path::new("/proc/sys/net/ipv6").exists();
    let all = [Families::V4, Families::V6].into_iter();
    for families in all.filter(|families| has_v6 || *families == Families::V4) {
        let shaped = Shaped::new(Shape {
            families,
            ..Shape::default()
        });
        for number in 1..=CHANGES {
            shaped.set_port(Place::Local, FIRST_PORT + number);
        }
        let is_v6 = families == Families::V6;
        let mut to = shaped.frontend(Way::ClusterIp, Place::Local, is_v6);
        to.set_port(FIRST_PORT + CHANGES);
        eventually("the last change has arrived", || {
            tcp_ask(shaped.shell.namespace(), to, SHORT).is_ok()
        });
        for node in shaped.cluster.nodes() {
            let complaints = complaints(node);
            assert!(
                complaints.len() <= COMPLAINTS,
                "{}: {complaints:#?}",
                node.name()
            );
        }
        shaped.disturbed().unwrap();
    }
}

/// The lines of an agent's log that somebody should read.
fn complaints(node: &Node) -> Vec<String> {
    let log = std::fs::read_to_string(&node.paths().log).unwrap();
    let lines = log
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    lines.map(str::to_owned).collect()
}
