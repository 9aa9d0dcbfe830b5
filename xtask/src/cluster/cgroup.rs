//! Cgroups of a cluster's nodes: whose sockets an agent's programs see.

use super::leftovers::{mounts, names_in};
use crate::process::wait_for;
use anyhow::{Context, Result};
use nix::unistd::gettid;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// Makes a threaded cgroup: threads of one process can be in different ones.
pub(super) fn make(path: &Path) -> Result<()> {
    let made = fs::create_dir_all(path);
    made.and_then(|()| fs::write(path.join("cgroup.type"), "threaded"))
        .with_context(|| format!("can't create cgroup {}", path.display()))
}

/// Moves the calling thread.
pub(super) fn join(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.threads"), gettid().to_string())
}

/// Removes the cgroups whose names begin with this.
pub(super) fn remove_all(prefix: &str) -> Result<()> {
    let Some(root) = root()? else {
        return Ok(());
    };
    for name in names_in(&root)? {
        let path = root.join(&name);
        // A process that just ended may still be counted for a moment.
        if name.starts_with(prefix) {
            let gone = wait_for(Duration::from_secs(2), || remove(&root, &path).is_ok());
            anyhow::ensure!(gone, "can't remove cgroup {}", path.display());
        }
    }
    Ok(())
}

/// Removes a cgroup and those in it. Threads of tests may still be there: they return to the root.
fn remove(root: &Path, path: &Path) -> Result<()> {
    for name in names_in(path)? {
        let inner = path.join(&name);
        if inner.is_dir() {
            remove(root, &inner)?;
        }
    }
    let threads = fs::read_to_string(path.join("cgroup.threads"))?;
    for thread in threads.lines() {
        // One that has just ended is as good as moved.
        let _ = fs::write(root.join("cgroup.threads"), thread);
    }
    Ok(fs::remove_dir(path)?)
}

/// Where the machine has cgroup v2 mounted, if at all.
pub(super) fn root() -> Result<Option<PathBuf>> {
    let mounts = mounts()?;
    let mut cgroups = mounts.into_iter().filter(|(_, kind)| kind == "cgroup2");
    Ok(cgroups.next().map(|(point, _)| point))
}
