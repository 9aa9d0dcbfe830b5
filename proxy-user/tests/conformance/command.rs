//! The command, asked about a case.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use super::cases::{Case, Packet};
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// A query about the packet, as a line.
pub(crate) fn line(packet: &Packet) -> String {
    let query = packet.query();
    let from = query.from.ip().to_string();
    json!({"from": from, "to": query.to.to_string(), "proto": packet.protocol}).to_string()
}

/// The command for the node and the objects of a case.
pub(crate) fn command(folder: &Folder, case: &Case) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrule"));
    command
        .arg("explain")
        .arg("--manifests")
        .arg(&folder.0)
        .args(case.flags());
    command
}

/// What it does about these lines.
pub(crate) fn ask(folder: &Folder, case: &Case, lines: &str) -> Output {
    let mut command = command(folder, case);
    command.arg("--batch").stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines = lines.to_owned();
    // Apart: who does not read answers must not ask for ever.
    let asking = thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    asking.join().unwrap().unwrap();
    output
}

/// A folder with one manifest, as long as it lives.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn with(manifest: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ferrule-conformance-{}-{number}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&folder.0).unwrap();
        fs::write(folder.0.join("objects.json"), manifest).unwrap();
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
