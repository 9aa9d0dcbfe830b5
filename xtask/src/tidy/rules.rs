//! The rules about single files, maps and the top of the repository.

use super::Violation;
use super::source::Source;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Lines of a source file, without its test modules.
const MAX_LINES: usize = 350;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] = [
    "util", "utils", "helper", "helpers", "misc", "manager", "handler", "types",
];

/// Where the compiler's checks may be set aside.
const UNSAFE_PLACES: [&str; 4] = [
    "proxy-common/src/pod.rs",
    "proxy-ebpf/src/bpf/",
    "proxy-ebpf/src/main.rs",
    "proxy-user/src/datapath/bpf.rs",
];

/// Programs that the kernel finds by name: they may say so, and nothing else.
const NAMED_PROGRAMS: &str = "proxy-ebpf/src/bin/";

const MAPS: [&str; 2] = [
    "proxy-ebpf/src/bpf/maps.rs",
    "proxy-ebpf/src/bpf/sockets.rs",
];
const MAPS_DOC: &str = "docs/maps.md";

/// What has to be at the top of the repository.
const TOP: [&str; 15] = [
    ".cargo",
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "clippy.toml",
    "docs",
    "proxy-common",
    "proxy-ebpf",
    "proxy-user",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "xtask",
];

/// What may be there besides.
const TOP_OPTIONAL: [&str; 9] = [
    ".git",
    ".github",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "deny.toml",
    "deploy",
    "target",
];

/// Files short enough to be read in one go.
pub(super) fn length(source: &Source) -> Option<Violation> {
    let lines = source.product_code().count();
    let too_long = source.path.contains("/src/") && lines > MAX_LINES;
    let rule = format!("{lines} lines without tests, {MAX_LINES} at most: split it");
    too_long.then(|| Violation::file(&source.path, rule))
}

/// Modules named after what they are about.
pub(super) fn name(source: &Source) -> Option<Violation> {
    let parts = source.path.trim_end_matches(".rs").split('/');
    let empty = parts.into_iter().find(|part| EMPTY_NAMES.contains(part))?;
    let rule = format!("a module named `{empty}` says nothing about its content");
    Some(Violation::file(&source.path, rule))
}

/// No notes of unfinished work, in comments or code.
pub(super) fn marks(source: &Source) -> Vec<Violation> {
    // Put together here, or this file would break its own rule.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["X", "XX"]].map(|parts| parts.concat());
    let macros = [["unimplemented", "!"], ["todo", "!"]].map(|parts| parts.concat());
    let mut found = Vec::new();
    for (line, text) in source.lines.iter().enumerate() {
        let words = || text.split(|character: char| !character.is_alphanumeric());
        let mark = marks.iter().find(|mark| words().any(|word| word == *mark));
        let call = macros.iter().find(|call| source.code[line].contains(*call));
        if let Some(unfinished) = mark.or(call) {
            let rule = format!("`{unfinished}`: finish it or file an issue");
            found.push(Violation::line(&source.path, line, rule));
        }
    }
    found
}

/// Unsafe code in the few places made for it.
pub(super) fn unsafe_code(source: &Source) -> Vec<Violation> {
    if UNSAFE_PLACES
        .iter()
        .any(|place| source.path.starts_with(place))
    {
        return Vec::new();
    }
    let is_word = |code: &str| {
        code.split(|character: char| !character.is_alphanumeric() && character != '_')
            .any(|word| word == "unsafe")
    };
    let is_named_program = source.path.starts_with(NAMED_PROGRAMS);
    let is_attribute = |code: &str| code.trim_start().starts_with("#[unsafe(");
    let lines = source.code.iter().enumerate();
    lines
        .filter(|(_, code)| is_word(code) && !(is_named_program && is_attribute(code)))
        .map(|(line, _)| Violation::line(&source.path, line, "unsafe has no place in this file"))
        .collect()
}

/// Every map described, and nothing described that is no map.
pub(super) fn maps(root: &Path, sources: &[Source]) -> Result<Vec<Violation>> {
    let sources = sources.iter();
    let sources = sources.filter(|source| MAPS.contains(&source.path.as_str()));
    let sources: Vec<&Source> = sources.collect();
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(root.join(MAPS_DOC)).unwrap_or_default();
    Ok(compare_maps(&sources, &text))
}

fn compare_maps(sources: &[&Source], text: &str) -> Vec<Violation> {
    let described = described_maps(text);
    let mut names = BTreeSet::new();
    let mut found = Vec::new();
    for source in sources {
        for (line, name) in declared_maps(source) {
            if !described.iter().any(|(_, other)| *other == name) {
                let rule = format!("map `{name}` is not described in {MAPS_DOC}");
                found.push(Violation::line(&source.path, line, rule));
            }
            names.insert(name);
        }
    }
    let unknown = described.iter().filter(|(_, name)| !names.contains(name));
    found.extend(unknown.map(|(line, name)| {
        let rule = format!("`{name}` is no map of {}", MAPS.join(" or "));
        Violation::line(MAPS_DOC, *line, rule)
    }));
    found
}

fn declared_maps(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut expected = false;
    for (line, code) in source.product_code() {
        expected |= code.contains("#[btf_map]");
        let name = code.split_once("static ").and_then(|(_, rest)| {
            let rest = rest.trim_start_matches("mut ");
            rest.split_once(':').map(|(name, _)| name.trim().to_owned())
        });
        if let Some(name) = name
            && std::mem::take(&mut expected)
        {
            found.push((line, name));
        }
    }
    found
}

/// Names in backticks in headings and in the first column of tables; only capitals name maps.
fn described_maps(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let subject = match text.strip_prefix('|') {
            Some(row) => row.split('|').next().unwrap_or_default(),
            None if text.starts_with('#') => text,
            None => continue,
        };
        let quoted = subject.split('`').skip(1).step_by(2);
        let names = quoted.filter(|name| is_map_name(name));
        found.extend(names.map(|name| (line, name.to_owned())));
    }
    found
}

fn is_map_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A top level that a newcomer can read.
pub(super) fn top_level(root: &Path) -> Result<Vec<Violation>> {
    let entries = fs::read_dir(root).context("can't read the top of the repository")?;
    let mut present = BTreeSet::new();
    for entry in entries {
        present.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let missing = TOP.iter().filter(|name| !present.contains(**name));
    let missing = missing.map(|name| Violation::file(name, "missing at the top of the repository"));
    let surplus = present
        .iter()
        .filter(|name| !TOP.contains(&name.as_str()) && !TOP_OPTIONAL.contains(&name.as_str()));
    let surplus = surplus.map(|name| Violation::file(name, "has no place at the top"));
    Ok(missing.chain(surplus).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_their_descriptions_are_compared_both_ways() {
        let source = Source::parse(
            MAPS[0],
            "#[btf_map]\npub(crate) static FLOWS_V4: Map = Map::new();\n#[btf_map]\nstatic NEW: Map = x;\nstatic OTHER: u8 = 0;\n",
        );
        let text = "| map | key |\n| `FLOWS_V4` | `Tuple` |\n## `OLD` map\nprose on `NOTHING`\n";
        let found: Vec<String> = compare_maps(&[&source], text)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "proxy-ebpf/src/bpf/maps.rs:4: map `NEW` is not described in docs/maps.md",
                "docs/maps.md:3: `OLD` is no map of proxy-ebpf/src/bpf/maps.rs or proxy-ebpf/src/bpf/sockets.rs",
            ]
        );
    }

    #[test]
    fn unsafe_counts_as_code_only_and_outside_its_places_only() {
        let text = "// unsafe\n#![forbid(unsafe_code)]\nfn a() { unsafe { b() } }\n";
        let found = unsafe_code(&Source::parse("proxy-user/src/sync.rs", text));
        assert_eq!(found.len(), 1);
        assert!(found[0].place.ends_with(":3"));
        assert!(unsafe_code(&Source::parse("proxy-ebpf/src/bpf/skb.rs", text)).is_empty());
        let program = "#[unsafe(no_mangle)]\nfn a() { unsafe { b() } }\n";
        let found = unsafe_code(&Source::parse("proxy-ebpf/src/bin/bench.rs", program));
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn long_files_empty_names_and_marks_are_reported() {
        let long = "fn a() {}\n".repeat(MAX_LINES + 1);
        assert!(length(&Source::parse("x/src/a.rs", &long)).is_some());
        assert!(length(&Source::parse("x/tests/a.rs", &long)).is_none());
        assert!(name(&Source::parse("x/src/helper/a.rs", "")).is_some());
        assert!(name(&Source::parse("x/src/typeset.rs", "")).is_none());
        let mark = format!("// {}{}: later\n", "TO", "DO");
        assert_eq!(marks(&Source::parse("x/src/a.rs", &mark)).len(), 1);
    }
}
