//! The workspace's own programs for the guest: tests and the agent, linked statically.

use crate::{progress, workspace};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Guests are of this kind.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const LOG: &str = "vm-build";

/// Programs by name: the agent, xtask, and the tests of rings 3 and 4.
pub(super) struct Payload {
    programs: BTreeMap<String, PathBuf>,
}

impl Payload {
    /// Builds them.
    pub(super) fn build() -> Result<Self> {
        let mut cargo = workspace::cargo(&["test", "--no-run", "--profile", "guest"])?;
        cargo
            .args(["--target", TARGET, "--message-format", "json"])
            .args(["--package", "proxy-user", "--package", "xtask"])
            .args(["--test", "prog_run", "--test", "netns", "--test", "cluster"])
            .env("RUSTFLAGS", "-C target-feature=+crt-static");
        progress::run("building tests for guests", LOG, cargo)?;
        let log = fs::read_to_string(workspace::log_file(LOG)?)?;
        Ok(Self {
            programs: programs(&log),
        })
    }

    /// The file of a program.
    pub(super) fn program(&self, name: &str) -> Result<&PathBuf> {
        let program = self.programs.get(name);
        program.with_context(|| format!("cargo has built no {name}"))
    }
}

/// The executables that cargo has written about, one JSON object a line.
fn programs(log: &str) -> BTreeMap<String, PathBuf> {
    let messages = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter_map(|message| {
            let executable = message["executable"].as_str()?;
            let name = message["target"]["name"].as_str()?;
            Some((name.to_owned(), PathBuf::from(executable)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let log = concat!(
            "   Compiling xtask v0.1.0\n",
            r#"{"reason":"compiler-artifact","target":{"name":"aya"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"netns"},"executable":"/t/netns-1"}"#,
            "\n",
        );
        let found = programs(log);
        assert_eq!(found.len(), 1);
        assert_eq!(found["netns"], PathBuf::from("/t/netns-1"));
    }
}
