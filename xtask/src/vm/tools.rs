//! Programs of this machine that the guest gets, with the libraries that they load.

use super::initramfs::Initramfs;
use crate::command;
use crate::setup::find;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// What the cluster, its rules and the tests call.
const PROGRAMS: [&str; 12] = [
    "ip", "bridge", "tc", "nft", "bpftool", "ethtool", "wg", "setpriv", "sh", "sleep", "unshare",
    "mount",
];

/// Adds all programs, in `/bin`, and their libraries.
pub(super) fn add(initramfs: &mut Initramfs) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let program = find(name).with_context(|| format!("no {name} on PATH"))?;
        initramfs.add(&format!("/bin/{name}"), &program)?;
        libraries.extend(libraries_of(&program)?);
    }
    libraries
        .iter()
        .try_for_each(|library| initramfs.add(library, Path::new(library)))
}

/// As the dynamic linker finds them, and the linker itself.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let text = command::run("ldd", &[&program.to_string_lossy()])?;
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(words.map(str::to_owned).collect())
}
