//! The program as it runs where nothing else is: linked statically, with musl, whose resolver needs no
//! libraries at run time as glibc's does.

use super::Arch;
use crate::setup::install;
use crate::{command, progress, setup, workspace};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// The profile in Cargo.toml.
const PROFILE: &str = "image";

/// Builds it; returns where it is.
pub(super) fn build(arch: Arch) -> Result<PathBuf> {
    let target = target(arch);
    provide(target)?;
    let mut cargo = workspace::cargo(&["build", "--package", "proxy-user", "--bin", "ferrule"])?;
    cargo.args(["--profile", PROFILE, "--target", target]);
    if arch != Arch::HOST {
        cross(arch, &mut cargo)?;
    }
    progress::run("building the static program", "image-program", cargo)?;
    let built = workspace::target()?.join(target).join(PROFILE);
    Ok(built.join("ferrule"))
}

const fn target(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-unknown-linux-musl",
        Arch::Arm64 => "aarch64-unknown-linux-musl",
    }
}

/// The standard library for a target, with musl in it.
fn provide(target: &str) -> Result<()> {
    command::run("rustup", &["target", "add", target])
        .map(drop)
        .with_context(|| format!("rustup has no standard library for {target}"))
}

/// Debian has no compiler for another processor's musl. That for its glibc does as well: what is compiled in C
/// does not use the C library, and rustup's target brings musl itself.
fn cross(arch: Arch, cargo: &mut Command) -> Result<()> {
    let (compiler, packages) = match arch {
        Arch::Amd64 => (
            "x86_64-linux-gnu-gcc",
            ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
        ),
        Arch::Arm64 => (
            "aarch64-linux-gnu-gcc",
            ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        ),
    };
    if setup::find(compiler).is_none() {
        install(&packages)?;
    }
    let words = target(arch).replace('-', "_");
    cargo.env(format!("CC_{words}"), compiler);
    let linker = format!("CARGO_TARGET_{}_LINKER", words.to_uppercase());
    cargo.env(linker, compiler);
    Ok(())
}
