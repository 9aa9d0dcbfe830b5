//! Memory of a process that this one has started.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;

/// Kilobytes in memory: of all kinds, and of its own, which no file backs.
pub(crate) fn of_child(name: &str) -> Result<[u64; 2]> {
    let text = find(name).with_context(|| format!("no child {name}"))?;
    let field = |key: &str| {
        let words = text.lines().find_map(|line| line.strip_prefix(key));
        let number = words.and_then(|words| words.split_ascii_whitespace().next());
        let number = number.with_context(|| format!("no {key}"))?;
        number.parse().context("not a number")
    };
    Ok([field("VmRSS:")?, field("RssAnon:")?])
}

/// The child's status.
fn find(name: &str) -> Option<String> {
    let (name, parent) = (
        format!("Name:\t{name}"),
        format!("PPid:\t{}", std::process::id()),
    );
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let status = |path: PathBuf| fs::read_to_string(path.join("status")).ok();
    let mut texts = entries.filter_map(|entry| status(entry.path()));
    texts.find(|text| {
        let has = |wanted: &String| text.lines().any(|line| line == wanted);
        has(&name) && has(&parent)
    })
}
