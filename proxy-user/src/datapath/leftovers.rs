//! Everything that Ferrule has set up on a node, found without knowing who set it up and when.

use crate::datapath::attach::{Filters, detach_filter, has_qdisc, remove_qdisc};
use crate::datapath::cgroup::{HOOKS, OWN_CGROUP, is_cgroup};
use crate::datapath::devices::{self, Marked};
use crate::datapath::hook::{Device, Hook};
use crate::datapath::pins::{PINNED_MAPS, Pins};
use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A pin or another file; a tcx link ends with its pin.
    File(PathBuf),
    /// Our own mount of cgroup v2.
    Mount(PathBuf),
    /// A folder, empty by the time it is removed.
    Folder(PathBuf),
    /// A filter of ours in somebody's clsact qdisc.
    Filter(Device, Hook),
    /// A clsact qdisc that we added and nobody else uses.
    Qdisc(Device),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Mount(path) => write!(f, "mount on {}", path.display()),
            Self::Filter(device, hook) => write!(f, "{} filter of {}", hook.name(), device.name),
            Self::Qdisc(device) => write!(f, "clsact qdisc of {}", device.name),
        }
    }
}

impl Leftover {
    /// Removes it.
    ///
    /// # Errors
    /// What the kernel said.
    pub async fn remove(&self) -> Result<()> {
        match self {
            Self::File(path) => std::fs::remove_file(path).context("removing the file"),
            Self::Mount(path) => umount2(path, MntFlags::MNT_DETACH).context("unmounting"),
            Self::Folder(path) => std::fs::remove_dir(path).context("removing the folder"),
            Self::Filter(device, hook) => detach_filter(device, *hook),
            Self::Qdisc(device) => remove_qdisc(device.index).await,
        }
    }
}

/// What there is, in the order in which it can be removed: programs off the devices first.
///
/// # Errors
/// The devices can't be listed.
pub async fn find(pins: &Pins, run_dir: &Path) -> Result<Vec<Leftover>> {
    for place in [pins.root(), run_dir] {
        // Without the right to look, nothing would seem to be there.
        let seen = place.try_exists();
        seen.with_context(|| format!("looking at {}", place.display()))?;
    }
    let devices = devices::current(Marked::default()).await?;
    let mut found = links(pins);
    for device in &devices {
        found.extend(filters(pins, device).await?);
    }
    found.extend(files(PINNED_MAPS.iter().map(|name| pins.map(name))));
    found.extend(folders(
        pins.own_qdiscs().into_iter().map(|index| pins.qdisc(index)),
    ));
    found.extend(folders(pins.folders()));
    found.extend(files(RUN_FILES.map(|name| run_dir.join(name))));
    let cgroup = run_dir.join(OWN_CGROUP);
    found.extend(is_cgroup(&cgroup).then(|| Leftover::Mount(cgroup.clone())));
    found.extend(folders([cgroup]));
    let run_folder = is_ours_alone(run_dir).then(|| run_dir.to_owned());
    found.extend(folders(run_folder));
    Ok(found)
}

const RUN_FILES: [&str; 2] = ["ferrule.sock", "ferrule.lock"];

/// Whether nothing but our files is in the run folder.
fn is_ours_alone(run_dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(run_dir) else {
        return false;
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names.into_iter().all(|name| {
        RUN_FILES
            .iter()
            .chain([&OWN_CGROUP])
            .any(|ours| name == *ours)
    })
}

fn links(pins: &Pins) -> Vec<Leftover> {
    let devices = pins.linked_devices().into_iter();
    let mut cgroup = HOOKS.map(|hook| pins.cgroup_link(hook));
    cgroup.reverse();
    let devices = devices.flat_map(|index| Hook::ALL.map(|hook| pins.link(index, hook)));
    files(cgroup.into_iter().chain(pins.cgroup_links()).chain(devices))
}

async fn filters(pins: &Pins, device: &Device) -> Result<Vec<Leftover>> {
    let filters = Filters::of(device.index).await?;
    let mut found: Vec<Leftover> = filters
        .ours()
        .map(|hook| Leftover::Filter(device.clone(), hook))
        .collect();
    let is_ours = pins.qdisc(device.index).exists() && has_qdisc(device.index).await?;
    if is_ours && !filters.has_foreign() {
        found.push(Leftover::Qdisc(device.clone()));
    }
    Ok(found)
}

fn files(paths: impl IntoIterator<Item = PathBuf>) -> Vec<Leftover> {
    let mut seen = BTreeSet::new();
    paths
        .into_iter()
        .filter(|path| path.exists() && seen.insert(path.clone()))
        .map(Leftover::File)
        .collect()
}

fn folders(paths: impl IntoIterator<Item = PathBuf>) -> Vec<Leftover> {
    paths
        .into_iter()
        .filter(|path| path.is_dir())
        .map(Leftover::Folder)
        .collect()
}
