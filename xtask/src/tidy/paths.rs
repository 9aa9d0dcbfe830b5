//! The paths that a file names, in full: groups of `use` expanded, `super` and `self` resolved.

use super::source::Source;

/// Line from zero, and path such as `crate::cluster::Node` or `aya::Ebpf`.
pub(super) fn named(source: &Source) -> Vec<(usize, String)> {
    let module = module_of(&source.path);
    let mut found = Vec::new();
    let mut statement = String::new();
    let mut start = 0;
    for (line, code) in source.product_code() {
        let words = code.trim();
        if statement.is_empty() {
            start = line;
            if !is_import(words) {
                found.extend(inline(words).map(|path| (line, path)));
                continue;
            }
        }
        statement.push_str(words);
        statement.push(' ');
        if words.ends_with(';') {
            let tree = import_tree(&statement);
            found.extend(expand("", tree).into_iter().map(|path| (start, path)));
            statement.clear();
        }
    }
    for (_, path) in &mut found {
        *path = resolve(path, &module);
    }
    found
}

fn is_import(words: &str) -> bool {
    let word = words.split(' ').find(|word| !word.starts_with("pub"));
    word == Some("use")
}

fn import_tree(statement: &str) -> &str {
    let tree = statement.split_once("use ").map_or("", |(_, tree)| tree);
    tree.trim().trim_end_matches(';')
}

/// Expands `a::{b, c::{d, e}}` to its leaves.
fn expand(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree).trim();
        return vec![format!("{prefix}{path}")];
    };
    let group = group.strip_suffix('}').unwrap_or(group);
    let prefix = format!("{prefix}{}", head.trim());
    let branches = split_top_level(group).into_iter();
    branches
        .flat_map(|branch| expand(&prefix, branch))
        .collect()
}

fn split_top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (place, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Paths in the middle of code: words joined by `::`.
fn inline(code: &str) -> impl Iterator<Item = String> {
    let separators = |character: char| !character.is_alphanumeric() && !"_:".contains(character);
    let words = code.split(separators).filter(|word| word.contains("::"));
    words.map(|word| word.trim_matches(':').to_owned())
}

/// `proxy-user/src/cluster/node.rs` is module `cluster`, `node`.
fn module_of(path: &str) -> Vec<String> {
    let inner = path.split_once("/src/").map_or(path, |(_, inner)| inner);
    let inner = inner.trim_end_matches(".rs");
    let mut parts: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if ["mod", "lib", "main"].contains(&parts.last().map_or("", String::as_str)) {
        parts.pop();
    }
    parts
}

fn resolve(path: &str, module: &[String]) -> String {
    let mut parts: Vec<&str> = path.split("::").collect();
    let ups = parts.iter().take_while(|part| **part == "super").count();
    let relative = ups > 0 || parts.first() == Some(&"self");
    if !relative {
        return path.to_owned();
    }
    parts.retain(|part| *part != "super" && *part != "self");
    let above = module.len().saturating_sub(ups);
    let mut full = vec!["crate"];
    full.extend(module[..above].iter().map(String::as_str));
    full.extend(parts);
    full.join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_relatives_and_inline_paths_are_found_in_full() {
        let text = "use aya::{maps::{Map, HashMap}, Ebpf as Other};\npub(crate) use super::{\n    cluster::Node,\n    x,\n};\nfn a() -> tokio::io::Result { self::b::c() }\n";
        let source = Source::parse("proxy-user/src/frontend/topology.rs", text);
        let paths = named(&source);
        let expected = [
            (0, "aya::maps::Map"),
            (0, "aya::maps::HashMap"),
            (0, "aya::Ebpf"),
            (1, "crate::frontend::cluster::Node"),
            (1, "crate::frontend::x"),
            (5, "tokio::io::Result"),
            (5, "crate::frontend::topology::b::c"),
        ];
        let expected = expected.map(|(line, path)| (line, path.to_owned()));
        assert_eq!(paths, expected);
    }
}
