//! Debian packages: only those that are missing.

use crate::{progress, workspace};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

/// Program and the package that has it.
const TOOLS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("nft", "nftables"),
    ("bpftool", "bpftool"),
    ("ethtool", "ethtool"),
    ("wg", "wireguard-tools"),
];

/// As [`TOOLS`], for virtual machines: the emulator, and what unpacks kernels and their modules.
const GUESTS: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("xz", "xz-utils"),
];

/// As [`TOOLS`], applications that tests put behind a Service and before it.
const APPLICATIONS: [(&str, &str); 3] = [
    ("curl", "curl"),
    ("dnsmasq", "dnsmasq-base"),
    ("redis-cli", "redis-tools"),
];

/// As [`APPLICATIONS`]; to install it would start it.
const DAEMON: (&str, &str) = ("nginx", "nginx");

/// As [`TOOLS`], what benchmarks compare with.
const RIVALS: [(&str, &str); 2] = [
    ("iptables-legacy-restore", "iptables"),
    ("iptables-nft-restore", "iptables"),
];

/// As [`TOOLS`], what links a program that needs no libraries.
const STATIC: [(&str, &str); 1] = [("musl-gcc", "musl-tools")];

/// As [`TOOLS`], what makes images.
const PACKING: [(&str, &str); 2] = [("buildah", "buildah"), ("tar", "tar")];

/// Makes sure of what links a program that needs no libraries.
pub(super) fn linking() -> Result<String> {
    ready(&STATIC)
}

/// Makes sure of what makes images.
pub(super) fn packing() -> Result<String> {
    ready(&PACKING)
}

/// Makes sure of what benchmarks compare with.
pub(super) fn rivals() -> Result<String> {
    ready(&RIVALS)
}

/// Makes sure of the programs that configure and inspect the network.
pub(super) fn tools() -> Result<String> {
    ready(&TOOLS)
}

/// Makes sure of the programs for virtual machines.
pub(super) fn guests() -> Result<String> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "virtual machines are x86-64 only, and this machine is not"
    );
    ready(&GUESTS)
}

/// Makes sure of the applications.
pub(super) fn applications() -> Result<String> {
    let ready = ready(&APPLICATIONS)?;
    let (daemon, package) = DAEMON;
    if find(daemon).is_none() {
        unpack(package)?;
    }
    ensure!(find(daemon).is_some(), "package {package} has no {daemon}");
    Ok(format!("{ready} {daemon}"))
}

/// Unpacks a package in a folder of ours.
fn unpack(package: &str) -> Result<()> {
    let folder = unpacked()?;
    fs::create_dir_all(&folder)?;
    if !are_listed(&[package]) {
        refresh()?;
    }
    let mut download = apt(&["download", package]);
    download.current_dir(&folder);
    progress::run(&format!("downloading {package}"), "apt-download", download)?;
    let name = format!("{package}_");
    let files = fs::read_dir(&folder)?.flatten().map(|file| file.path());
    let is_meant = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default();
        file.to_string_lossy().starts_with(&name)
    };
    for file in files.filter(is_meant) {
        let (file, folder) = (file.to_string_lossy(), folder.to_string_lossy());
        crate::command::run("dpkg", &["-x", &file, &folder])?;
    }
    Ok(())
}

fn unpacked() -> Result<PathBuf> {
    Ok(workspace::target()?.join("xtask").join("packages"))
}

/// Installs the packages of the programs that are not there, and returns all names.
fn ready(programs: &[(&str, &str)]) -> Result<String> {
    let mut missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    install(&missing)?;
    for (program, package) in programs {
        ensure!(
            find(program).is_some(),
            "no {program} on PATH, although package {package} is installed"
        );
    }
    let names: Vec<&str> = programs.iter().map(|(program, _)| *program).collect();
    Ok(names.join(" "))
}

/// Where a program is; also looks into the folders that only root has on its search path, and into what was only
/// unpacked.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = workspace::search_path();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.extend(unpacked().map(|folder| folder.join("usr/sbin")));
    let mut places = folders.into_iter().map(|folder| folder.join(program));
    places.find(|place| place.is_file())
}

/// Installs packages; refreshes the lists of packages only if it does not work without.
///
/// # Errors
/// They can't be installed, or by root only.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    ensure!(
        find("apt-get").is_some(),
        "can't install without apt-get; missing: {names}"
    );
    ensure!(
        nix::unistd::geteuid().is_root(),
        "can't install without root; missing: {names}"
    );
    let title = format!("installing {names}");
    let args = [&["install", "-y", "--no-install-recommends"], packages].concat();
    if are_listed(packages) && progress::run(&title, "apt-install", apt(&args)).is_ok() {
        return Ok(());
    }
    refresh()?;
    progress::run(&title, "apt-install", apt(&args))
}

fn refresh() -> Result<()> {
    let title = "refreshing the lists of packages";
    progress::run(title, "apt-update", apt(&["update"]))
}

fn apt(args: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

fn are_listed(packages: &[&str]) -> bool {
    crate::command::run("apt-cache", &[&["show"], packages].concat()).is_ok()
}
