//! Which module may name which: data moves one way.

use super::Violation;
use super::paths;
use super::source::Source;

/// Files below the first must not name what follows.
const NEVER: [(&str, &[&str]); 9] = [
    (
        "proxy-common/src/",
        &[
            "std",
            "alloc",
            "aya",
            "aya_ebpf",
            "proxy_ebpf",
            "proxy_user",
        ],
    ),
    ("proxy-user/src/source", &["proxy_common", "aya", "aya_obj"]),
    (
        "proxy-user/src/cluster",
        &["proxy_common", "aya", "aya_obj", "tokio"],
    ),
    (
        "proxy-user/src/frontend",
        &["k8s_openapi", "proxy_common", "aya", "aya_obj", "tokio"],
    ),
    (
        "proxy-user/src/tables",
        &["crate::cluster", "k8s_openapi", "aya", "aya_obj", "tokio"],
    ),
    (
        "proxy-user/src/flows",
        &[
            "crate::datapath",
            "crate::cluster",
            "aya",
            "aya_obj",
            "tokio",
        ],
    ),
    (
        "proxy-user/src/datapath",
        &["crate::cluster", "crate::frontend", "k8s_openapi", "kube"],
    ),
    ("proxy-user/src/sync", &["kube", "aya", "aya_obj"]),
    (
        "xtask/",
        &["proxy_common", "proxy_ebpf", "proxy_user", "aya"],
    ),
];

/// What the library of proxy-ebpf must not name; its object file may.
const NEVER_IN_DATAPATH: &[&str] = &["aya_ebpf", "aya_ebpf_bindings", "aya_log_ebpf"];

/// Modules of proxy-ebpf's library from bottom to top: none may name a higher one.
const DATAPATH_LEVELS: [&[&str]; 4] = [
    &["verdict"],
    &["packet", "kernel"],
    &["parse", "flow", "service", "nat", "icmp", "fragment"],
    &["pipeline", "socket"],
];

/// Places where a file names what its module must not know.
pub(super) fn check(source: &Source) -> Vec<Violation> {
    let paths = paths::named(source);
    let forbidden = forbidden_for(&source.path);
    let breaks = paths.iter().filter_map(|(line, path)| {
        let hit = forbidden.iter().find(|root| is_below(path, root))?;
        let rule = format!("this module must not know `{hit}` (it names `{path}`)");
        Some(Violation::line(&source.path, *line, rule))
    });
    breaks.collect()
}

fn forbidden_for(path: &str) -> Vec<String> {
    let table = NEVER.iter().filter(|(folder, _)| covers(folder, path));
    let mut all: Vec<String> = table
        .flat_map(|(_, names)| names.iter().map(|name| (*name).to_owned()))
        .collect();
    if let Some(module) = datapath_module(path) {
        all.extend(NEVER_IN_DATAPATH.iter().map(|name| (*name).to_owned()));
        let level = DATAPATH_LEVELS
            .iter()
            .position(|level| level.contains(&module));
        let above = DATAPATH_LEVELS
            .iter()
            .skip(level.map_or(4, |level| level + 1));
        all.extend(
            above
                .copied()
                .flatten()
                .map(|name| format!("crate::{name}")),
        );
    }
    all
}

/// A folder's rule covers the file of the same name, too.
fn covers(folder: &str, path: &str) -> bool {
    let Some(rest) = path.strip_prefix(folder) else {
        return false;
    };
    folder.ends_with('/') || rest.starts_with('/') || rest == ".rs"
}

/// The module of proxy-ebpf's library that a file belongs to.
fn datapath_module(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("proxy-ebpf/src/")?;
    let module = inner.split(['/', '.']).next()?;
    (module != "bpf" && module != "main" && module != "bin").then_some(module)
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let found = check(&Source::parse(path, text));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_module_that_names_what_it_must_not_know_is_reported_with_its_line() {
        let text = "//! x\nuse crate::{\n    cluster::Node, frontend};\n";
        assert_eq!(
            messages("proxy-user/src/tables/diff.rs", text),
            [
                "proxy-user/src/tables/diff.rs:2: this module must not know `crate::cluster` (it names `crate::cluster::Node`)"
            ]
        );
        assert!(messages("proxy-user/src/sync.rs", text).is_empty());
    }

    #[test]
    fn the_datapath_only_looks_down() {
        let up = "use crate::pipeline::ingress;\n";
        assert_eq!(messages("proxy-ebpf/src/nat.rs", up).len(), 1);
        assert!(messages("proxy-ebpf/src/testing.rs", up).is_empty());
        assert!(messages("proxy-ebpf/src/pipeline.rs", "use crate::nat::apply;\n").is_empty());
        let helper = "use aya_ebpf::helpers::x;\n";
        assert_eq!(messages("proxy-ebpf/src/flow.rs", helper).len(), 1);
        assert!(messages("proxy-ebpf/src/bpf/maps.rs", helper).is_empty());
    }
}
