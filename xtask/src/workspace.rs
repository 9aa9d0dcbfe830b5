//! Where the repository is, and cargo as all commands call it.

use anyhow::{Context, Result};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The top folder of the repository.
///
/// # Errors
/// When neither cargo's environment nor the current folder leads there.
pub fn root() -> Result<PathBuf> {
    let member = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let start = member.map_or_else(env::current_dir, Ok)?;
    let root = start
        .ancestors()
        .find(|folder| folder.join("Cargo.lock").exists())
        .context("not inside Ferrule's repository")?;
    Ok(root.to_owned())
}

/// Cargo, at the top of the repository, with the folder where `cargo install` puts programs on the
/// search path: a fresh shell often lacks it. What the cargo that runs us says of our own package is not meant for
/// this one: build scripts that look at it would run again, and all that is built on them.
///
/// # Errors
/// As [`root`].
pub fn cargo(args: &[&str]) -> Result<Command> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(args)
        .current_dir(root()?)
        .env("PATH", search_path());
    let is_ours = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    for (name, _) in env::vars_os().filter(|(name, _)| is_ours(name)) {
        cargo.env_remove(name);
    }
    Ok(cargo)
}

/// The search path, extended by cargo's own folder of programs.
#[must_use]
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(installed_programs());
    env::join_paths(folders).unwrap_or(path)
}

fn installed_programs() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")))?;
    Some(home.join("bin"))
}

/// Cargo's folder for what it builds.
///
/// # Errors
/// As [`root`].
pub fn target() -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.map_or_else(|| root().map(|root| root.join("target")), Ok)
}

/// The file for a step's output.
///
/// # Errors
/// When its folder can't be created.
pub fn log_file(name: &str) -> Result<PathBuf> {
    let folder = target()?.join("xtask");
    fs::create_dir_all(&folder).with_context(|| format!("can't create {}", folder.display()))?;
    Ok(folder.join(format!("{name}.log")))
}
