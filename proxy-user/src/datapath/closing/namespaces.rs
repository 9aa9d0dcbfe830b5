//! The network namespaces of this machine, as far as there are names for them.

use crate::datapath::cgroup::own_netns;
use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Files that lead into them, each once.
pub(super) struct Namespaces {
    /// By inode; the thread's own is not among them.
    others: BTreeMap<u64, PathBuf>,
}

/// Cookies of sockets, by that of their network namespace.
type Wanted = BTreeMap<u64, BTreeSet<u64>>;

/// Closes the sockets with these cookies in the network namespace of the thread; returns how many.
type Close = fn(&BTreeSet<u64>) -> io::Result<u64>;

const OWN: &str = "/proc/thread-self/ns/net";
/// Where iproute2 and container runtimes keep names of them.
const NAMED: &str = "/run/netns";

impl Namespaces {
    /// Those with a name, and those of processes that can be seen.
    ///
    /// # Errors
    /// The thread's own can't be seen.
    pub(super) fn find() -> Result<Self> {
        let own = inode(Path::new(OWN)).with_context(|| format!("looking at {OWN}"))?;
        let named = entries(Path::new(NAMED));
        let processes = entries(Path::new("/proc")).map(|process| process.join("ns/net"));
        let found = named.chain(processes);
        let mut others: BTreeMap<u64, PathBuf> = BTreeMap::new();
        for path in found {
            // What is no namespace, or ends just now, has none.
            if let Ok(inode) = inode(&path) {
                others.entry(inode).or_insert(path);
            }
        }
        others.remove(&own);
        Ok(Self { others })
    }

    /// Closes what is wanted wherever it is; returns how many sockets that were.
    ///
    /// # Errors
    /// Sockets that were not reached, and why.
    pub(super) fn visit(&self, wanted: &Wanted, close: Close) -> Result<u64> {
        let mut left = wanted.clone();
        let mut closed = close_here(&mut left, close)?;
        let mut refusal = None;
        for path in self.others.values() {
            if left.is_empty() {
                break;
            }
            match enter(path, &mut left, close) {
                Ok(count) => closed += count,
                // Gone meanwhile, or not ours to enter.
                Err(error) => refusal = Some(error),
            }
        }
        if left.is_empty() {
            return Ok(closed);
        }
        let count: usize = left.values().map(BTreeSet::len).sum();
        let why = refusal.unwrap_or_else(|| anyhow!("no name leads to their network namespace"));
        bail!("{count} sockets could not be reached: {why:#}")
    }
}

/// Does it in another network namespace, in a thread that ends there.
fn enter(path: &Path, left: &mut Wanted, close: Close) -> Result<u64> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET)
                .context("entering network namespaces takes CAP_SYS_ADMIN")?;
            close_here(left, close)
        });
        inside
            .join()
            .map_err(|_| anyhow!("the thread has panicked"))?
    })
}

/// What is wanted here; all of it where the kernel does not tell where here is.
fn close_here(left: &mut Wanted, close: Close) -> Result<u64> {
    let closed = match own_netns() {
        Ok(cookie) => match left.remove(&cookie) {
            Some(cookies) => close(&cookies),
            None => Ok(0),
        },
        Err(_) => close(&left.values().flatten().copied().collect()),
    };
    closed.context("closing sockets")
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(path.metadata()?.ino())
}
