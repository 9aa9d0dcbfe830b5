//! The folder on bpffs: what is pinned where.
//!
//! ```text
//! <bpffs>/ferrule/FRONTENDS_V4 ...          maps, by name
//! <bpffs>/ferrule/links/<ifindex>-ingress   tcx links, one for each device and hook
//! <bpffs>/ferrule/links/cgroup-<program>    links to the root of cgroup v2
//! <bpffs>/ferrule/qdiscs/<ifindex>          folder: the clsact qdisc of this device is ours
//! ```

use crate::datapath::hook::Hook;
use std::io;
use std::path::{Path, PathBuf};

/// The maps that outlive the agent.
pub const PINNED_MAPS: [&str; 27] = [
    "CONFIG",
    "COUNTERS",
    "FRONTENDS_V4",
    "FRONTENDS_V6",
    "SERVICES",
    "SLOTS",
    "BACKENDS_V4",
    "BACKENDS_V6",
    "SOURCE_RANGES_V4",
    "SOURCE_RANGES_V6",
    "AFFINITIES",
    "FLOWS_V4",
    "FLOWS_V6",
    "HALF_OPEN_V4",
    "HALF_OPEN_V6",
    "FILTER_V4",
    "FILTER_V6",
    "FRAGMENTS_V4",
    "FRAGMENTS_V6",
    "REFUSALS_V4",
    "REFUSALS_V6",
    "SNAT_CURSORS",
    "DEVICES",
    "CONNECTED_SOCKETS",
    "UNCONNECTED_SOCKETS",
    "EXEMPT",
    "EXEMPT_BY",
];

/// Paths below one mount of bpffs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Below this mount point.
    pub fn new(bpffs: &Path) -> Self {
        Self {
            root: bpffs.join("ferrule"),
        }
    }

    /// The folder that holds everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where the link of a device's hook is pinned.
    pub fn link(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.root
            .join("links")
            .join(format!("{ifindex}-{}", hook.name()))
    }

    /// Where the link of a program at a cgroup is pinned.
    pub fn cgroup_link(&self, program: &str) -> PathBuf {
        self.root.join("links").join(format!("cgroup-{program}"))
    }

    /// All such links, also those of programs of other versions.
    pub fn cgroup_links(&self) -> Vec<PathBuf> {
        let folder = self.root.join("links");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let is_of_cgroup = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("cgroup-"))
        };
        entries
            .map(|entry| entry.path())
            .filter(is_of_cgroup)
            .collect()
    }

    /// Remembers that a device's clsact qdisc is ours.
    pub fn qdisc(&self, ifindex: u32) -> PathBuf {
        self.root.join("qdiscs").join(ifindex.to_string())
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// The folder that can't be made: no bpffs is mounted there, or permission is lacking.
    pub fn create(&self) -> io::Result<()> {
        std::fs::create_dir_all(self.root.join("links"))?;
        std::fs::create_dir_all(self.root.join("qdiscs"))
    }

    /// The folders, the inner ones first.
    pub fn folders(&self) -> [PathBuf; 3] {
        [
            self.root.join("links"),
            self.root.join("qdiscs"),
            self.root.clone(),
        ]
    }

    /// The interface indices that have links here.
    pub fn linked_devices(&self) -> Vec<u32> {
        let entries = std::fs::read_dir(self.root.join("links"))
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut devices: Vec<u32> = names
            .filter_map(|name| name.split_once('-')?.0.parse().ok())
            .collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// The interface indices whose clsact qdisc is ours.
    pub fn own_qdiscs(&self) -> Vec<u32> {
        let entries = std::fs::read_dir(self.root.join("qdiscs"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Lets go of a device's links: a pin is what keeps its programs attached.
    pub fn unlink(&self, ifindex: u32) {
        for hook in Hook::ALL {
            // Not there is as good as removed.
            let _ = std::fs::remove_file(self.link(ifindex, hook));
        }
    }

    /// Forgets a device that is gone.
    pub fn forget(&self, ifindex: u32) {
        self.unlink(ifindex);
        let _ = std::fs::remove_dir(self.qdisc(ifindex));
    }
}
