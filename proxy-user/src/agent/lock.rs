//! One agent at a time.

use anyhow::{Context as _, Result, bail};
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes the run folder, and holds its lock: two agents would undo each other's writes.
pub(super) fn take(run_dir: &Path) -> Result<File> {
    let folder = || format!("can't use the folder {}", run_dir.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir)
        .with_context(folder)?;
    let lock = File::create(run_dir.join("ferrule.lock")).with_context(folder)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!("another agent holds {}", run_dir.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(folder),
    }
}
