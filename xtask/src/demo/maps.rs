//! The pinned maps, as `bpftool map dump` shows them, shortened; only addresses and ports, which
//! are words in network order, are spelled out.

use crate::cluster::Node;
use crate::command;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr};
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
        "maps of {}, by bpftool map dump pinned {}/NAME\n(shortened; bpftool shows addresses and ports as words in network order)\n",
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
            for line in wrap(&row_text(&row)) {
                let _ = writeln!(text, "    {line}");
            }
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

fn row_text(row: &Value) -> String {
    let value = row.get("value").or_else(|| row.get("values"));
    format!(
        "{} = {}",
        plain(&row["key"]),
        value.map_or_else(String::new, plain)
    )
}

/// JSON without quotes; a struct with one field is that field.
fn plain(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("[{}]", join(values.iter().map(plain))),
        Value::Object(fields) if fields.len() == 1 => fields.values().map(plain).collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", field(name, value)));
            format!("{{{}}}", join(fields))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn field(name: &str, value: &Value) -> String {
    let spelled = match name {
        "address" | "src" | "dst" => address(value),
        "port" | "sport" | "dport" => number(value).and_then(|word| {
            let word = u16::try_from(word).ok()?;
            Some(u16::from_be(word).to_string())
        }),
        _ => None,
    };
    spelled.unwrap_or_else(|| plain(value))
}

fn address(value: &Value) -> Option<String> {
    if let Some(word) = number(value) {
        return Some(Ipv4Addr::from(word.to_ne_bytes()).to_string());
    }
    let words: Vec<u32> = inner(value).as_array()?.iter().filter_map(number).collect();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    Some(Ipv6Addr::from(bytes).to_string())
}

/// What a struct of one field holds.
fn inner(value: &Value) -> &Value {
    match value {
        Value::Object(fields) if fields.len() == 1 => fields.values().next().map_or(value, inner),
        other => other,
    }
}

fn number(value: &Value) -> Option<u32> {
    inner(value)
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// At most two lines that fit; what does not is cut off.
fn wrap(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= WIDTH {
        return vec![text.to_owned()];
    }
    let break_at = characters[..WIDTH]
        .iter()
        .rposition(|character| *character == ' ');
    let (first, rest) = characters.split_at(break_at.map_or(WIDTH, |place| place + 1));
    let mut second: String = rest.iter().take(WIDTH - 4).collect();
    if rest.len() > WIDTH - 4 {
        second.push_str("..");
    }
    let first: String = first.iter().collect();
    vec![first.trim_end().to_owned(), format!("  {second}")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_shown_plainly_and_empty_ones_are_not() {
        let port = 80u16.to_be();
        let word = u32::from_ne_bytes([10, 96, 0, 10]);
        let row = json!({"key": {"port": {"word": port}, "src": {"word": word}}, "value": {"only": [0, 1]}});
        assert_eq!(row_text(&row), "{port: 80, src: 10.96.0.10} = [0, 1]");
        assert!(holds_something(&row));
        let counters = json!({"key": 1, "values": [{"cpu": 1, "value": 0}]});
        assert!(!holds_something(&counters));
    }

    #[test]
    fn ipv6_addresses_are_spelled_out() {
        let mut words = [0xfd00_0010u32.to_be(), 0, 0, 1u32.to_be()];
        words[1] = 0x0096_0000u32.to_be();
        assert_eq!(address(&json!(words)), Some("fd00:10:96::1".to_owned()));
    }

    #[test]
    fn long_rows_end_at_the_edge_of_the_terminal() {
        let lines = wrap(&"word ".repeat(100));
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
    }
}
