//! The cluster as a drawing of at most 80 columns.

use super::stage::{CLUSTER_IPS, NODE_PORT, PORT, Stage};
use crate::cluster::{Node, Pod};
use std::fmt::Write;

/// Columns of a box, borders included.
const BOX: usize = 25;

pub(super) fn draw(stage: &Stage) -> String {
    let client = stage.cluster.client();
    let nodes = stage.cluster.nodes();
    let mut text = String::new();
    let _ = writeln!(text, "  client {} {}", client.v4(), client.v6());
    let _ = writeln!(text, "    |");
    let joint = format!("+{}", "-".repeat(BOX));
    let _ = writeln!(text, "  router -{}+", joint.repeat(nodes.len() - 1));
    let boxes: Vec<Vec<String>> = nodes.iter().map(node_box).collect();
    for row in 0..boxes.iter().map(Vec::len).max().unwrap_or(0) {
        let cells = boxes.iter().map(|lines| {
            let line = lines.get(row).map_or("", String::as_str);
            format!("{line:<BOX$}")
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join(" ").trim_end());
    }
    let [v4, v6] = CLUSTER_IPS;
    let names: Vec<&str> = stage.backends.iter().map(Pod::name).collect();
    let _ = writeln!(text, "  service web  TCP and UDP");
    let _ = writeln!(text, "    ClusterIP  {v4}:{PORT}  [{v6}]:{PORT}");
    let _ = writeln!(text, "    NodePort   {NODE_PORT} on every node");
    let _ = writeln!(text, "    pods       {}", names.join(", "));
    text
}

fn node_box(node: &Node) -> Vec<String> {
    let inner = BOX - 2;
    let edge = format!("+{}+", "-".repeat(inner));
    let mut lines = vec![edge.clone()];
    let mut add = |text: String| lines.push(format!("|{text:<inner$}|"));
    let [v4, v6] = node.addresses();
    add(format!(" {}  ferrule", node.name()));
    add(format!("  {v4}"));
    add(format!("  {v6}"));
    for pod in node.pods() {
        add(format!("   {}", pod.name()));
        add(format!("     {}", pod.v4()));
        add(format!("     {}", pod.v6()));
    }
    lines.push(edge);
    lines
}
