//! What is kept from run to run, outside the repository: lists of packages and unpacked kernels.

use anyhow::{Context, Result};
use std::env;
use std::fs::{self, File};
use std::path::PathBuf;

/// A folder of the cache, made if it is not there.
pub(super) fn folder(name: &str) -> Result<PathBuf> {
    let folder = root()?.join(name);
    fs::create_dir_all(&folder).with_context(|| format!("can't create {}", folder.display()))?;
    Ok(folder)
}

/// Held by a run from its first look at the cache until its last guest has ended: one at a time.
pub(super) fn lock() -> Result<File> {
    let file = File::create(folder("")?.join("lock"))?;
    if file.try_lock().is_err() {
        println!("  .. waiting for another run of virtual machines");
        file.lock()?;
    }
    Ok(file)
}

fn root() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let cache = cache.context("no folder for downloads: neither XDG_CACHE_HOME nor a home")?;
    Ok(cache.join("ferrule-vm"))
}
