//! The pinned maps, as `bpftool map dump` shows them, shortened.

use crate::cluster::Node;
use crate::command;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const NAMES: [&str; 10] = [
    "FRONTENDS_V4",
    "FRONTENDS_V6",
    "SERVICES",
    "SLOTS",
    "BACKENDS_V4",
    "BACKENDS_V6",
    "FLOWS_V4",
    "FLOWS_V6",
    "COUNTERS",
    "CONFIG",
];
/// Columns of a terminal that is not wide.
const WIDTH: usize = 100;
/// Rows shown of each map.
const SHOWN: usize = 2;
/// Rows looked at: arrays have millions, and only the first are in use here.
const LOOKED_AT: usize = 2000;

/// The maps of one node.
pub(super) fn show(node: &Node) -> Result<String> {
    let folder = node.paths().bpffs.join("ferrule");
    let mut text = format!(
        "maps of {}, by bpftool map dump pinned {}/NAME\n",
        node.name(),
        folder.display()
    );
    for name in NAMES {
        let path = folder.join(name).to_string_lossy().into_owned();
        let about = command::run("bpftool", &["-j", "map", "show", "pinned", &path])
            .with_context(|| format!("map {name} is not there"))?;
        let about: Value = serde_json::from_str(&about)?;
        let kind = about["type"].as_str().unwrap_or("unknown");
        let _ = writeln!(text, "  {name} ({kind}, room for {})", about["max_entries"]);
        for row in first_rows(&path)? {
            let _ = writeln!(text, "    {}", shorten(&plain(&row)));
        }
    }
    Ok(text)
}

/// The first rows that hold anything but zeros.
fn first_rows(path: &str) -> Result<Vec<Value>> {
    let mut child = Command::new("bpftool")
        .args(["map", "dump", "pinned", path])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("can't start bpftool")?;
    let mut rows = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut block = String::new();
        let mut looked_at = 0;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            // Rows are joined as `},{`, without indentation that a value could also have.
            let ends = matches!(line.as_str(), "    },{" | "    }" | "]");
            if !ends {
                block.push_str(line.trim_start_matches("[{"));
                continue;
            }
            looked_at += 1;
            let row = serde_json::from_str(&format!("{{{}}}", std::mem::take(&mut block)));
            rows.extend(row.ok().filter(holds_something));
            if rows.len() == SHOWN || looked_at == LOOKED_AT {
                break;
            }
        }
    }
    // What is left of a large array is of no interest; it has ended by itself otherwise.
    let _ = child.kill();
    child.wait()?;
    Ok(rows)
}

fn holds_something(row: &Value) -> bool {
    let content = row.get("value").or_else(|| row.get("values"));
    content.is_some_and(|content| !is_zero(content))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text
            .trim_start_matches("0x")
            .bytes()
            .all(|byte| byte == b'0'),
        Value::Array(values) => values.iter().all(is_zero),
        // The number of a CPU says nothing about the row.
        Value::Object(fields) => fields
            .iter()
            .all(|(name, value)| name == "cpu" || is_zero(value)),
        Value::Bool(true) => false,
    }
}

/// JSON without quotes; a struct with one field is that field.
fn plain(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("[{}]", join(values.iter().map(plain))),
        Value::Object(fields) if fields.len() == 1 && !fields.contains_key("value") => {
            fields.values().map(plain).collect()
        }
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", plain(value)));
            format!("{{{}}}", join(fields))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    let start: String = text.chars().take(WIDTH - 2).collect();
    format!("{start}..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shown_plainly_and_empty_ones_are_not() {
        let row = serde_json::json!({"key": {"__0": 7}, "value": {"port": 80, "kind": [0, 1]}});
        assert_eq!(plain(&row), "{key: 7, value: {kind: [0, 1], port: 80}}");
        assert!(holds_something(&row));
        let counters = serde_json::json!({"key": 1, "values": [{"cpu": 1, "value": 0}]});
        assert!(!holds_something(&counters));
    }

    #[test]
    fn long_rows_end_at_the_edge_of_the_terminal() {
        assert_eq!(shorten(&"x".repeat(500)).len(), WIDTH);
    }
}
