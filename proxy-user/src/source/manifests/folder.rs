//! The folder on disk: which files have changed since the last look.

use super::catalog::Change;
use super::parse::parse;
use super::watch::{Look, SILENCE, Scope};
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tracing::debug;

/// What was seen last.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    seen: BTreeMap<String, Stamp>,
    /// Files that have changed without anybody telling, and since when they look like this.
    unsettled: BTreeMap<String, (Stamp, Instant)>,
}

/// Changes with every change of a file's content, and between one file and another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: BTreeMap::new(),
            unsettled: BTreeMap::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells this folder from another that takes its place.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()))
    }

    /// Reads the files that have changed, as far as `look` goes, but those that are being written:
    /// they stay as they were seen.
    ///
    /// # Errors
    /// The folder can't be listed; the files are as before.
    pub(super) fn changes(
        &mut self,
        look: &Look,
        is_writing: impl Fn(&str) -> bool,
    ) -> io::Result<Vec<(String, Change)>> {
        let now = self.list()?;
        self.unsettled.retain(|name, _| now.contains_key(name));
        let gone = self.seen.extract_if(.., |name, _| !now.contains_key(name));
        let mut changes: Vec<_> = gone.map(|(name, _)| (name, Change::Gone)).collect();
        for (name, stamp) in now {
            if !is_writing(&name) && self.is_due(&name, stamp, look) {
                self.unsettled.remove(&name);
                changes.push((name.clone(), self.read(&name)));
                self.seen.insert(name, stamp);
            }
        }
        Ok(changes)
    }

    /// Whether the file has changed and can be expected to be whole.
    fn is_due(&mut self, name: &str, stamp: Stamp, look: &Look) -> bool {
        let seen = self.seen.get(name).copied();
        if look.suspects.contains(name) {
            return true;
        }
        if seen == Some(stamp) {
            self.unsettled.remove(name);
            return false;
        }
        match look.scope {
            Scope::Everything => true,
            Scope::Replaced if seen.is_none_or(|seen| !seen.is_same_file(stamp)) => true,
            Scope::Replaced | Scope::Suspects => self.is_settled(name, stamp),
        }
    }

    fn is_settled(&mut self, name: &str, stamp: Stamp) -> bool {
        match self.unsettled.get(name) {
            Some((before, since)) if *before == stamp => since.elapsed() >= SILENCE,
            _ => {
                let since = Instant::now();
                self.unsettled.insert(name.to_owned(), (stamp, since));
                false
            }
        }
    }

    /// All files are gone.
    pub(super) fn clear(&mut self) -> Vec<(String, Change)> {
        self.unsettled.clear();
        let seen = std::mem::take(&mut self.seen);
        seen.into_keys().map(|name| (name, Change::Gone)).collect()
    }

    fn list(&self) -> io::Result<BTreeMap<String, Stamp>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let Ok(name) = entry?.file_name().into_string() else {
                continue;
            };
            // Through links: a mounted ConfigMap consists of them. What vanishes now is gone.
            if is_manifest(&name)
                && let Ok(metadata) = fs::metadata(self.path.join(&name))
                && metadata.is_file()
            {
                files.insert(name, Stamp::of(&metadata));
            }
        }
        Ok(files)
    }

    fn read(&self, name: &str) -> Change {
        match fs::read(self.path.join(name)) {
            Ok(bytes) => {
                let parsed = parse(&bytes);
                let ignored = parsed.as_ref().map_or(0, |parsed| parsed.ignored);
                debug!(name, ignored, "read; objects of other kinds are ignored");
                Change::Read(parsed)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Change::Gone,
            Err(error) => Change::Unreadable(error.to_string()),
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_same_file(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Editors' temporary and backup files start with a dot or end in something else.
pub(super) fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|it| it.to_str());
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}
