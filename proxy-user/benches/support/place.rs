//! A place of its own for a run: nothing of it is left, however it ends.

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use std::path::{Path, PathBuf};

/// Mounts a bpffs that only this process sees and that ends with it, over the machine's. To be
/// called before there are other threads.
pub(crate) fn private_bpffs() -> Result<PathBuf> {
    ensure!(geteuid().is_root(), "loading BPF programs needs root");
    let path = Path::new("/sys/fs/bpf");
    unshare(CloneFlags::CLONE_NEWNS).context("leaving the machine's mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("private mounts")?;
    mount(
        Some("bpf"),
        path,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mounting a bpffs")?;
    Ok(path.into())
}
