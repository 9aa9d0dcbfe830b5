//! Images by buildah, without an engine, without other images, and without namespaces: the Dockerfile's last
//! stage only copies.

use super::{Arch, folder};
use crate::{command, progress, setup, workspace};
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs the Dockerfile's last stage on what its first stage would have made, and writes the image as an
/// archive. The same content gives the same image.
pub(super) fn pack(arch: Arch, tag: &str, context: &Path, output: &Path) -> Result<()> {
    let dockerfile = workspace::root()?.join("deploy/Dockerfile");
    let mut build = buildah("build")?;
    build
        .args(["--isolation", "chroot", "--pull-never", "--timestamp", "0"])
        .args(["--arch", arch.name(), "--target", "image", "--tag", tag])
        .arg("--build-context")
        .arg(joined("binary=", context))
        .arg("--file")
        .arg(dockerfile)
        .arg(context);
    progress::run("packing the image", "image-build", build)?;
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder)?;
    }
    // buildah adds to an archive that is there.
    let _ = fs::remove_file(output);
    let mut push = buildah("push")?;
    push.arg(tag).arg(joined("oci-archive:", output));
    progress::run("writing the archive", "image-push", push)
}

/// Unpacks the file system of an image's archive into a folder; returns the image's configuration, as OCI
/// describes it.
///
/// # Errors
/// It is no archive of an image, or has no layer.
pub fn unpack(archive: &Path, into: &Path) -> Result<serde_json::Value> {
    let layout = into.join(".layout");
    fs::create_dir_all(&layout)?;
    extract(archive, &layout)?;
    let index = read(&layout.join("index.json"))?;
    let manifest = blob(&layout, &index["manifests"][0]["digest"])?;
    let config = blob(&layout, &manifest["config"]["digest"])?;
    let layers = manifest["layers"].as_array().context("no layers")?;
    for layer in layers {
        extract(&blob_path(&layout, &layer["digest"])?, into)?;
    }
    fs::remove_dir_all(&layout)?;
    Ok(config)
}

fn extract(archive: &Path, into: &Path) -> Result<()> {
    let (archive, into) = (archive.to_string_lossy(), into.to_string_lossy());
    command::run("tar", &["-x", "-f", &archive, "-C", &into]).map(drop)
}

fn blob(layout: &Path, digest: &serde_json::Value) -> Result<serde_json::Value> {
    read(&blob_path(layout, digest)?)
}

fn blob_path(layout: &Path, digest: &serde_json::Value) -> Result<std::path::PathBuf> {
    let digest = digest.as_str().context("no digest")?;
    Ok(layout.join("blobs").join(digest.replace(':', "/")))
}

fn read(file: &Path) -> Result<serde_json::Value> {
    let text = fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", file.display()))
}

/// Its images and containers are in a folder of ours.
fn buildah(task: &str) -> Result<Command> {
    let program = setup::find("buildah");
    ensure!(
        nix::unistd::geteuid().is_root(),
        "packing an image needs root"
    );
    let mut buildah = Command::new(program.context("no buildah: cargo xtask image installs it")?);
    let storage = folder()?.join("storage");
    buildah
        .args(["--storage-driver", "vfs", "--root"])
        .arg(&storage)
        .arg("--runroot")
        .arg(storage.join("run"))
        .arg(task);
    Ok(buildah)
}

fn joined(prefix: &str, path: &Path) -> std::ffi::OsString {
    [OsStr::new(prefix), path.as_os_str()].into_iter().collect()
}
