//! The watch on a folder: which files are to be read now, and which are still being written.

use super::folder::is_manifest;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf, absolute};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A finished change may be one of several: wait this long for the others.
const SETTLED: Duration = Duration::from_millis(3);
/// How late notices may come in.
const LATE: Duration = Duration::from_millis(1);
/// How long to wait for a notice.
pub(super) const IDLE: Duration = Duration::from_millis(200);
/// A file that is being written and of which nothing is heard for so long is taken as finished.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// A folder's notices.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    identity: (u64, u64),
    notices: Receiver<notify::Result<notify::Event>>,
    /// Files that were opened for writing and not yet closed, and when they were last heard of.
    writing: BTreeMap<String, Instant>,
    /// The folder was removed or renamed, and the watch went with it.
    lost: bool,
    /// What came in while the last look was taken.
    next: Option<Look>,
    _watcher: RecommendedWatcher,
}

/// What is to be read.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Files to be read even if they look as before: two writes can bear the same time.
    pub(super) suspects: BTreeSet<String>,
    /// What else.
    pub(super) scope: Scope,
}

/// Which files are read at once if they look changed. Others have to look the same for a while:
/// nobody tells when they are finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// Suspects only.
    #[default]
    Suspects,
    /// Also other files under known names, as after a folder that links lead through is swapped.
    Replaced,
    /// All.
    Everything,
}

/// What a notice says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Nothing,
    /// It is being written.
    Writing,
    /// Something but its content has changed.
    Touched,
    /// It is written, there under another name, or gone.
    Finished,
}

impl Watch {
    /// Starts to watch the folder, which `identity` tells from others of the same path.
    pub(super) fn new(path: &Path, identity: (u64, u64)) -> notify::Result<Self> {
        let (sender, notices) = channel();
        let mut watcher = notify::recommended_watcher(sender)?;
        watcher.watch(path, RecursiveMode::NonRecursive)?;
        Ok(Self {
            path: absolute(path)?,
            identity,
            notices,
            writing: BTreeMap::new(),
            lost: false,
            next: None,
            _watcher: watcher,
        })
    }

    /// Whether this watches the folder. A new folder can have the number of a removed one.
    pub(super) fn is_on(&self, identity: (u64, u64)) -> bool {
        !self.lost && self.identity == identity
    }

    /// Whether the file is being written.
    pub(super) fn is_writing(&self, name: &str) -> bool {
        self.writing.contains_key(name)
    }

    /// Waits for a change and until it has settled; `None` if there was none for a while.
    pub(super) fn wait(&mut self) -> Option<Look> {
        let next = self.next.take();
        let mut until = next.as_ref().map(|_| Instant::now() + SETTLED);
        let mut look = next.unwrap_or_default();
        let idle = Instant::now() + IDLE;
        loop {
            let timeout = until.unwrap_or(idle);
            let timeout = timeout.saturating_duration_since(Instant::now());
            let Ok(notice) = self.notices.recv_timeout(timeout) else {
                break;
            };
            if self.take_in(&mut look, notice) {
                until.get_or_insert_with(|| Instant::now() + SETTLED);
            }
            // Readers can keep the notices coming.
            if Instant::now() >= idle {
                break;
            }
        }
        look.suspects.extend(self.silent());
        (until.is_some() || !look.suspects.is_empty()).then_some(look)
    }

    /// Takes in what has been noticed while files were read.
    pub(super) fn catch_up(&mut self) {
        let mut look = self.next.take().unwrap_or_default();
        let mut found = false;
        let until = Instant::now() + LATE;
        loop {
            let timeout = until.saturating_duration_since(Instant::now());
            let Ok(notice) = self.notices.recv_timeout(timeout) else {
                break;
            };
            found |= self.take_in(&mut look, notice);
        }
        self.next = (found || !look.suspects.is_empty()).then_some(look);
    }

    /// Whether the file is being written, or has been while it was read.
    pub(super) fn is_in_motion(&self, name: &str) -> bool {
        let next = self.next.as_ref();
        self.is_writing(name) || next.is_some_and(|next| next.suspects.contains(name))
    }

    /// Whether there is something to look at.
    fn take_in(&mut self, look: &mut Look, notice: notify::Result<notify::Event>) -> bool {
        // Notices may have been lost: see what has changed.
        let Ok(event) = notice else {
            return true;
        };
        let mut found = event.paths.is_empty();
        for path in &event.paths {
            found |= self.take_in_path(look, event.kind, path);
        }
        found
    }

    fn take_in_path(&mut self, look: &mut Look, kind: EventKind, path: &Path) -> bool {
        let news = News::of(kind, path);
        if *path == self.path {
            self.lost |= news == News::Finished;
            return self.lost;
        }
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if is_manifest(name) => self.file(look, news, name),
            _ if news == News::Finished => {
                look.scope = look.scope.max(Scope::Replaced);
                true
            }
            _ => false,
        }
    }

    fn file(&mut self, look: &mut Look, news: News, name: &str) -> bool {
        let writing = self.is_writing(name);
        match news {
            News::Nothing => false,
            News::Touched if !writing => look.suspects.insert(name.to_owned()),
            News::Writing | News::Touched => {
                look.suspects.remove(name);
                self.writing.insert(name.to_owned(), Instant::now());
                false
            }
            News::Finished => {
                self.writing.remove(name);
                look.suspects.insert(name.to_owned());
                true
            }
        }
    }

    /// Takes files as finished of which nothing was heard for long: not every file system tells.
    fn silent(&mut self) -> Vec<String> {
        let silent = self
            .writing
            .extract_if(.., |_, heard| heard.elapsed() >= SILENCE);
        silent.map(|(name, _)| name).collect()
    }
}

impl News {
    fn of(kind: EventKind, path: &Path) -> Self {
        match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Self::Finished,
            EventKind::Access(_) => Self::Nothing,
            EventKind::Create(CreateKind::File) if is_link(path) => Self::Finished,
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                Self::Writing
            }
            EventKind::Modify(ModifyKind::Metadata(_)) => Self::Touched,
            EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Any
            | EventKind::Other => Self::Finished,
        }
    }
}

/// A link, of either kind, is made in one step: no close follows.
fn is_link(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
}
