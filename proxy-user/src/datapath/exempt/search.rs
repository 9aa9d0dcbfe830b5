//! Where a pod's processes and sockets are on this node.

use super::{Client, Mark};
use crate::datapath::cgroup::{is_cgroup, is_root, own_netns};
use crate::datapath::netns::Namespaces;
use nix::ifaddrs::getifaddrs;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What a client's sockets can be told by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Ids of cgroups, and bits for the levels below the root at which each may be.
    pub(super) cgroups: Vec<(u64, u32)>,
    /// Cookie of the network namespace, where there is no cgroup.
    pub(super) netns: Option<u64>,
}

impl Marks {
    pub(super) fn kind(&self) -> Option<Mark> {
        let netns = self.netns.map(|_| Mark::Netns);
        self.cgroups.first().map(|_| Mark::Cgroup).or(netns)
    }
}

/// Levels of cgroups that the programs look at; kubelet's pods are at the second to fourth.
const LEVELS: u32 = 10;
const ALL_LEVELS: u32 = (1 << (LEVELS + 1)) - 2;

pub(super) struct Search {
    cgroup: PathBuf,
    /// How far below the root it is; `None`: not to be seen from here.
    level: Option<u32>,
}

impl Search {
    /// Below a cgroup.
    pub(super) fn new(cgroup: PathBuf) -> Self {
        Self {
            level: level(&cgroup),
            cgroup,
        }
    }

    /// What there is of these clients, by uid.
    pub(super) fn find(&self, clients: &[Client]) -> BTreeMap<String, Marks> {
        let mut found: BTreeMap<String, Marks> = BTreeMap::new();
        if clients.is_empty() {
            return found;
        }
        // The systemd driver of kubelet writes uids with other dashes.
        let names = clients
            .iter()
            .map(|it| (it.uid.clone(), it.uid.replace('-', "_")));
        let names: Vec<(String, String)> = names.collect();
        walk(&self.cgroup, 1, &mut |name, id, depth| {
            let mut of = names
                .iter()
                .filter(|(uid, other)| is_of(name, uid) || is_of(name, other));
            let Some((uid, _)) = of.next() else {
                return false;
            };
            let levels = self.level.map_or(ALL_LEVELS, |level| 1 << (level + depth));
            let marks = found.entry(uid.clone()).or_default();
            marks.cgroups.push((id, levels & ALL_LEVELS));
            true
        });
        let mut left: Vec<&Client> = clients.iter().collect();
        left.retain(|it| !found.contains_key(&it.uid) && !it.is_host && !it.addresses.is_empty());
        if !left.is_empty() {
            find_netns(&left, &mut found);
        }
        found
    }
}

/// Whether a cgroup has the name of a pod: `pod<uid>`, or `kubepods-burstable-pod<uid>.slice` and the like.
fn is_of(name: &str, uid: &str) -> bool {
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let pod = name.strip_suffix(uid).and_then(|it| it.strip_suffix("pod"));
    pod.is_some_and(|before| before.is_empty() || before.ends_with('-'))
}

/// How far below the root of the hierarchy a cgroup is: as many steps up as there are cgroups.
fn level(cgroup: &Path) -> Option<u32> {
    let mut at = cgroup.to_owned();
    for level in 0..=LEVELS {
        if is_root(&at) {
            return Some(level);
        }
        if !is_cgroup(&at) {
            return None;
        }
        at.push("..");
    }
    None
}

/// Tells of all cgroups below one, and how far; what is below a hit is not looked at.
fn walk(folder: &Path, depth: u32, is_hit: &mut impl FnMut(&str, u64, u32) -> bool) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        // What goes away while we look is gone.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if !metadata.is_dir() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_hit(&name, metadata.ino(), depth) && depth < LEVELS {
            walk(&entry.path(), depth + 1, is_hit);
        }
    }
}

/// A network namespace is a client's if it has one of its addresses, and no other has.
fn find_netns(clients: &[&Client], found: &mut BTreeMap<String, Marks>) {
    let (Ok(namespaces), Ok(node)) = (Namespaces::find(), own_netns()) else {
        return;
    };
    let mut candidates: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let look = || -> ControlFlow<()> {
        let own = addresses();
        let is_here = |it: &&&Client| it.addresses.iter().any(|ip| own.contains(ip));
        if let (Some(client), Ok(cookie)) = (clients.iter().find(is_here), own_netns())
            && cookie != node
        {
            candidates.entry(&client.uid).or_default().push(cookie);
        }
        ControlFlow::Continue(())
    };
    // What could not be looked at is not found.
    let _ = namespaces.visit(look);
    for (uid, cookies) in candidates {
        if let [cookie] = cookies[..] {
            found.entry(uid.to_owned()).or_default().netns = Some(cookie);
        }
    }
}

/// Addresses in the network namespace of the thread.
fn addresses() -> Vec<IpAddr> {
    let all = getifaddrs().into_iter().flatten();
    let addresses = all.filter_map(|it| it.address);
    let addresses = addresses.filter_map(|it| {
        let v4 = it.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| it.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_pods_are_known_by_name() {
        let (uid, other) = ("12-ab", "12_ab");
        assert!(is_of("pod12-ab", uid));
        assert!(is_of("kubepods-burstable-pod12_ab.slice", other));
        assert!(is_of("kubelet-kubepods-pod12_ab.slice", other));
        assert!(!is_of("pod112-ab", uid), "another pod's ends like it");
        assert!(!is_of("12-ab", uid));
        assert!(!is_of("cri-containerd-12_ab.scope", other));
    }
}
