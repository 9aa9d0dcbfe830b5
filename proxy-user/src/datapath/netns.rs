//! The network namespaces of this machine, as far as there are names for them.

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Files that lead into them, each once.
pub(super) struct Namespaces {
    /// By inode; the thread's own is not among them.
    others: BTreeMap<u64, PathBuf>,
}

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

    /// Does something in the thread's own and in all others; returns what came of it until it was enough.
    ///
    /// # Errors
    /// Why the last one that could not be entered was not.
    pub(super) fn visit<T: Send>(
        &self,
        mut work: impl FnMut() -> ControlFlow<T> + Send,
    ) -> Result<Option<T>> {
        if let ControlFlow::Break(enough) = work() {
            return Ok(Some(enough));
        }
        let mut refusal = Ok(None);
        for path in self.others.values() {
            match enter(path, &mut work) {
                Ok(ControlFlow::Break(enough)) => return Ok(Some(enough)),
                Ok(ControlFlow::Continue(())) => {}
                // Gone meanwhile, or not ours to enter.
                Err(error) => refusal = Err(error),
            }
        }
        refusal
    }
}

/// Does it in another network namespace, in a thread that ends there.
fn enter<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into());
        let inside = thread.spawn_scoped(scope, || {
            setns(file, CloneFlags::CLONE_NEWNET)
                .context("entering network namespaces takes CAP_SYS_ADMIN")?;
            Ok(work())
        })?;
        inside
            .join()
            .map_err(|_| anyhow!("the thread has panicked"))?
    })
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(path.metadata()?.ino())
}
