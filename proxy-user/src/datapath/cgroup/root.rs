//! The root of cgroup v2: where it is mounted, and a mount of our own where it isn't.

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The root of cgroup v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Whether hierarchies of version 1 are mounted beside it.
    pub is_hybrid: bool,
}

/// The kernel gives the root of the hierarchy this number; those of containers have others.
const ROOT_INODE: u64 = 1;

/// Where the root of cgroup v2 is mounted, if anywhere.
///
/// # Errors
/// The mounts can't be read.
pub fn mounted_root() -> Result<Option<Root>> {
    let text = std::fs::read_to_string(MOUNTS).with_context(|| format!("reading {MOUNTS}"))?;
    let mounts: Vec<Mount<'_>> = text.lines().filter_map(parse).collect();
    let is_hybrid = mounts.iter().any(|mount| mount.kind == "cgroup");
    let roots = mounts.iter().filter(|mount| mount.kind == "cgroup2");
    let found = roots
        .map(|mount| mount.point.clone())
        .find(|it| is_root(it));
    Ok(found.map(|path| Root { path, is_hybrid }))
}

/// A mount of the root of cgroup v2; one is made in `run_dir` where there is none.
///
/// # Errors
/// There is none, and none can be made.
pub fn find_root(run_dir: &Path) -> Result<PathBuf> {
    match mounted_root()? {
        Some(root) => Ok(root.path),
        None => mount_own(&run_dir.join(OWN_CGROUP)),
    }
}

const MOUNTS: &str = "/proc/thread-self/mountinfo";
/// Folder of our own mount, which stays until `ferrule cleanup`.
pub const OWN_CGROUP: &str = "cgroup";

/// Whether the root of cgroup v2 is mounted here.
pub fn is_root(point: &Path) -> bool {
    is_cgroup(point) && point.metadata().is_ok_and(|it| it.ino() == ROOT_INODE)
}

/// Whether a cgroup is here, of version 2.
pub fn is_cgroup(point: &Path) -> bool {
    statfs(point).is_ok_and(|it| it.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// In a container what is mounted may be the container's own cgroup: that is of no use.
fn mount_own(point: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(point).with_context(|| format!("making {}", point.display()))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), point, Some("cgroup2"), flags, None::<&str>).with_context(|| {
        format!(
            "no root of cgroup v2 is mounted, and mounting it at {} takes CAP_SYS_ADMIN",
            point.display()
        )
    })?;
    if !is_root(point) {
        umount2(point, MntFlags::MNT_DETACH)?;
        bail!(
            "this is a container's cgroup namespace: mount the host's /sys/fs/cgroup, or give --cgroup"
        );
    }
    Ok(point.to_owned())
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
}

fn parse(line: &str) -> Option<Mount<'_>> {
    let (mount, kind) = line.split_once(" - ")?;
    let point = mount.split(' ').nth(4)?;
    Some(Mount {
        // The kernel writes blanks in octal.
        point: point.replace("\\040", " ").into(),
        kind: kind.split(' ').next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_from_lines_of_the_kernel() {
        let line =
            "36 25 0:31 / /sys/fs/cgroup/uni\\040fied rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        let mount = parse(line).unwrap();
        assert_eq!(mount.point, Path::new("/sys/fs/cgroup/uni fied"));
        assert_eq!(mount.kind, "cgroup2");
    }
}
