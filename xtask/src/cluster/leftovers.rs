//! What a cluster leaves on the machine, and its removal.
//!
//! A cluster is a folder below [`ROOT`]; its name prefixes all else that it owns (namespaces,
//! cgroups). The folder comes first and goes last, so whatever exists can be found from it, also
//! after its owner was killed.

use super::cgroup;
use super::namespace::NAMES;
use crate::process::Identity;
use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard};
use std::thread;

/// The folder of all clusters of this machine.
pub(crate) const ROOT: &str = "/run/ferrule-xtask";

/// File in a cluster's folder with the [`Identity`] of the process that owns it.
const OWNER: &str = "owner";
/// File in a cluster's folder that says: outlive your owner.
const KEPT: &str = "kept";
/// Folder in a cluster's folder with one file per process that runs in it.
const PROCESSES: &str = "processes";

/// Open while this process may make things; an interrupt shuts it for good before cleaning up.
static GATE: RwLock<()> = RwLock::new(());

/// Permission to make something that has to be removed later.
pub(crate) fn gate() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what dead owners left behind, then claims a new cluster for this process. Returns its id,
/// the prefix of all names.
pub(crate) fn claim() -> Result<String> {
    remove_on_interrupt();
    fs::create_dir_all(ROOT).with_context(|| format!("can't create {ROOT}"))?;
    let _lock = lock()?;
    for id in clusters()? {
        if !is_kept(&id) && !owner(&id).is_some_and(Identity::is_alive) {
            remove_locked(&id)?;
        }
    }
    remove_nameless()?;
    let own = Identity::own();
    let id = (0..)
        .map(|sequence| format!("fe{}x{sequence}", own.pid()))
        .find(|id| !folder(id).exists())
        .context("no free name for a cluster")?;
    fs::create_dir_all(folder(&id).join(PROCESSES))?;
    fs::write(folder(&id).join(OWNER), own.to_string())?;
    Ok(id)
}

/// The folder of a cluster.
pub(crate) fn folder(id: &str) -> PathBuf {
    Path::new(ROOT).join(id)
}

/// Lets a cluster outlive this process; only [`remove_kept`] takes it down.
pub(crate) fn keep(id: &str) -> Result<()> {
    Ok(fs::write(folder(id).join(KEPT), "")?)
}

/// Notes that a process belongs to a cluster, so that it dies with it.
pub(crate) fn record(id: &str, pid: u32) -> Result<()> {
    let identity = Identity::of(pid).context("the process ended at once")?;
    let file = folder(id).join(PROCESSES).join(pid.to_string());
    Ok(fs::write(file, identity.to_string())?)
}

/// Removes all that a cluster owns. Nothing left is no error.
pub(crate) fn remove(id: &str) -> Result<()> {
    let _lock = lock()?;
    remove_locked(id)
}

/// Removes the clusters that were told to outlive their owner; returns how many there were.
pub(crate) fn remove_kept() -> Result<usize> {
    if !Path::new(ROOT).exists() {
        return Ok(0);
    }
    let _lock = lock()?;
    let kept: Vec<String> = clusters()?.into_iter().filter(|id| is_kept(id)).collect();
    kept.iter().try_for_each(|id| remove_locked(id))?;
    Ok(kept.len())
}

/// On Ctrl-C, hang-up or termination: removes this process's clusters, then exits.
fn remove_on_interrupt() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        thread::spawn(move || {
            let Some(signal) = signals.forever().next() else {
                return;
            };
            let _shut = GATE.write();
            eprintln!("interrupted: removing the cluster");
            if let Err(error) = remove_own() {
                eprintln!("{error:#}");
            }
            std::process::exit(128 + signal);
        });
    });
}

fn remove_own() -> Result<()> {
    let _lock = lock()?;
    let own = Identity::own();
    for id in clusters()? {
        if owner(&id) == Some(own) && !is_kept(&id) {
            remove_locked(&id)?;
        }
    }
    Ok(())
}

/// One process at a time looks for leftovers or claims a name.
fn lock() -> Result<File> {
    let file = File::create(Path::new(ROOT).join("lock"))?;
    file.lock()?;
    Ok(file)
}

fn clusters() -> Result<Vec<String>> {
    let mut names = names_in(Path::new(ROOT))?;
    names.retain(|name| folder(name).is_dir());
    Ok(names)
}

fn owner(id: &str) -> Option<Identity> {
    fs::read_to_string(folder(id).join(OWNER))
        .ok()?
        .parse()
        .ok()
}

fn is_kept(id: &str) -> bool {
    folder(id).join(KEPT).exists()
}

fn remove_locked(id: &str) -> Result<()> {
    end_processes(id)?;
    let prefix = format!("{id}-");
    for name in names_in(Path::new(NAMES))? {
        if name.starts_with(&prefix) {
            remove_namespace(&name)?;
        }
    }
    unmount_below(&folder(id))?;
    cgroup::remove_all(&prefix)?;
    match fs::remove_dir_all(folder(id)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", folder(id).display()))
        }
        _ => Ok(()),
    }
}

/// Namespaces of clusters whose folder somebody else has deleted.
fn remove_nameless() -> Result<()> {
    for name in names_in(Path::new(NAMES))? {
        let Some((id, _)) = name.split_once('-') else {
            continue;
        };
        if is_cluster_id(id) && !folder(id).exists() {
            remove_namespace(&name)?;
        }
    }
    Ok(())
}

fn is_cluster_id(text: &str) -> bool {
    let numbers = text
        .strip_prefix("fe")
        .and_then(|rest| rest.split_once('x'));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(pid, sequence)| number(pid) && number(sequence))
}

fn end_processes(id: &str) -> Result<()> {
    for name in names_in(&folder(id).join(PROCESSES))? {
        let text = fs::read_to_string(folder(id).join(PROCESSES).join(&name))?;
        let ended = text.parse().is_ok_and(Identity::end) || text.is_empty();
        anyhow::ensure!(ended, "process {name} of cluster {id} does not end");
    }
    Ok(())
}

fn remove_namespace(name: &str) -> Result<()> {
    let path = Path::new(NAMES).join(name);
    // A name whose mount is already gone is only a file.
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    fs::remove_file(&path).with_context(|| format!("can't remove namespace {name}"))
}

fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = mounts()?;
    for (point, _) in mounts.iter().rev() {
        if point.starts_with(folder) {
            umount2(point, MntFlags::MNT_DETACH)
                .with_context(|| format!("can't unmount {}", point.display()))?;
        }
    }
    Ok(())
}

/// Mount point and file system type of all mounts, oldest first.
pub(super) fn mounts() -> Result<Vec<(PathBuf, String)>> {
    let text = fs::read_to_string("/proc/self/mounts")?;
    let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields
        .filter(|fields| fields.len() > 2)
        .map(|fields| (PathBuf::from(fields[1]), fields[2].to_owned()))
        .collect())
}

/// File names in a folder; none if there is no such folder.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("can't read {}", folder.display()))?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_cluster_gives_are_taken_for_its_own() {
        assert!(is_cluster_id("fe12x0"));
        for foreign in ["fe12", "fex0", "fe12x", "fe1ax0", "web", "fe"] {
            assert!(!is_cluster_id(foreign), "{foreign}");
        }
    }
}
