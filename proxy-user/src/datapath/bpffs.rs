//! The mount of bpffs: whether things can be pinned on it, and a mount where there is none.

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::path::Path;

/// Fails unless bpffs is mounted here and can be written: elsewhere nothing can be pinned, and the
/// kernel's words for that say nothing.
///
/// # Errors
/// What is wrong with the mount, by its name, and what to do.
pub fn require(point: &Path) -> Result<()> {
    let path = point.display();
    if !is_mounted(point)? {
        bail!(
            "{path} is not bpffs: mount it (mount -t bpf bpf {path}; ferrule init does), or name another \
             by --bpffs"
        );
    }
    let flags = statvfs(point).with_context(|| format!("can't use {path}"))?;
    if flags.flags().contains(FsFlags::ST_RDONLY) {
        bail!(
            "bpffs on {path} is read-only: nothing can be pinned there. Mount it read-write \
             (mount -o remount,bind,rw {path}; in a pod a volume without readOnly), or name another by --bpffs"
        );
    }
    Ok(())
}

/// Mounts bpffs here unless it is; returns whether it had to.
///
/// # Errors
/// There is no such folder and none can be made, or the mount is refused.
pub fn provide(point: &Path) -> Result<bool> {
    let path = point.display();
    std::fs::create_dir_all(point).with_context(|| format!("making {path}"))?;
    if is_mounted(point)? {
        return Ok(false);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Closed to others, as systemd mounts it.
    mount(Some("bpf"), point, Some("bpf"), flags, Some("mode=0700"))
        .with_context(|| format!("mounting bpffs on {path}, which takes CAP_SYS_ADMIN"))?;
    Ok(true)
}

fn is_mounted(point: &Path) -> Result<bool> {
    let kind = statfs(point).with_context(|| format!("can't use {}", point.display()))?;
    Ok(kind.filesystem_type() == BPF_FS_MAGIC)
}
