//! A file whose content is followed, whatever it is replaced by and however.

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::debug;

/// How often the content is compared even if nobody tells of a change: a link may lead through other folders, and
/// not every file system tells.
const COMPARE: Duration = Duration::from_secs(1);
/// A content that stays so long is not about to be written.
const SETTLED: Duration = Duration::from_millis(50);

/// Its bytes, or why it can't be read.
pub(super) type Content = Result<Vec<u8>, String>;

/// A watched file.
pub(super) struct Watched {
    path: PathBuf,
    known: Content,
    notices: Arc<Notify>,
    _watcher: Option<RecommendedWatcher>,
}

impl Watched {
    /// Watches the file, of which this is known.
    pub(super) fn new(path: &Path, known: Vec<u8>) -> Self {
        let notices = Arc::new(Notify::new());
        let watcher = watch(path, Arc::clone(&notices));
        let watcher =
            watcher.inspect_err(|error| debug!("{}: not watched: {error}", path.display()));
        Self {
            path: path.to_owned(),
            known: Ok(known),
            notices,
            _watcher: watcher.ok(),
        }
    }

    /// Waits for another content.
    pub(super) async fn changed(&mut self) -> Content {
        loop {
            // Either way the content tells.
            let _ = timeout(COMPARE, self.notices.notified()).await;
            let now = self.settled().await;
            if now != self.known {
                self.known.clone_from(&now);
                return now;
            }
        }
    }

    /// The content once it is the same twice, unless it is the one that is known.
    async fn settled(&self) -> Content {
        let mut now = read(&self.path).await;
        while now != self.known {
            sleep(SETTLED).await;
            let then = std::mem::replace(&mut now, read(&self.path).await);
            if then == now {
                break;
            }
        }
        now
    }
}

/// Watches the folder: files are replaced by renaming, those of a ConfigMap by a link beside them.
fn watch(path: &Path, notices: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // To read it, as we do, is no change.
        let is_change = event.is_ok_and(|event| match event.kind {
            EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
            _ => true,
        });
        if is_change {
            notices.notify_one();
        }
    })?;
    let folder = std::path::absolute(path)?;
    let folder = folder.parent().unwrap_or(Path::new("/"));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Not on a thread that others need: a file system may hang.
async fn read(path: &Path) -> Content {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
    let read = read.map_err(|error| error.to_string())?;
    read.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A folder of this test's own.
    fn folder(name: &str) -> PathBuf {
        let name = format!("ferrule-watched-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    async fn expect(watched: &mut Watched, content: &str) {
        let changed = timeout(PATIENCE, watched.changed()).await;
        let changed = changed.expect("a change is noticed").unwrap();
        assert_eq!(String::from_utf8(changed).unwrap(), content);
    }

    #[tokio::test]
    async fn a_file_is_followed_when_it_is_written_replaced_and_gone() {
        let folder = folder("file");
        let file = folder.join("config.yaml");
        fs::write(&file, "one").unwrap();
        let mut watched = Watched::new(&file, b"one".to_vec());
        fs::write(&file, "two").unwrap();
        expect(&mut watched, "two").await;
        fs::write(folder.join("new"), "three").unwrap();
        fs::rename(folder.join("new"), &file).unwrap();
        expect(&mut watched, "three").await;
        fs::remove_file(&file).unwrap();
        let gone = timeout(PATIENCE, watched.changed()).await.unwrap();
        assert!(gone.unwrap_err().contains("No such file"));
        fs::write(&file, "four").unwrap();
        expect(&mut watched, "four").await;
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_config_map_is_followed_when_its_link_is_swapped() {
        let folder = folder("link");
        for (name, content) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("config.conf"), content).unwrap();
        }
        symlink("..1", folder.join("..data")).unwrap();
        let file = folder.join("config.conf");
        symlink("..data/config.conf", &file).unwrap();
        let mut watched = Watched::new(&file, b"one".to_vec());
        symlink("..2", folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        expect(&mut watched, "two").await;
        fs::remove_dir_all(&folder).unwrap();
    }
}
