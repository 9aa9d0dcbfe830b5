//! `cargo xtask image`: the image for containers, an archive that runtimes and registries take.

mod archive;
mod program;

use crate::{setup, workspace};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};

pub use archive::unpack;

/// Flags of `cargo xtask image`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask image
  cargo xtask image --tag registry.example/ferrule:0.1.0 --output ferrule.tar
  cargo xtask image --arch arm64
  cargo xtask image --binary ./ferrule

The archive has the layout of OCI. To take it:
  ctr --namespace k8s.io images import ferrule.tar
  skopeo copy oci-archive:ferrule.tar docker://registry.example/ferrule:0.1.0

It needs no Docker engine and fetches no other image. What is missing (rustup's target for musl, Debian's
musl-tools and buildah) is installed.")]
pub struct Options {
    /// Where the archive goes; target/xtask/image/ferrule-ARCH.tar if not given.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name and version of the image; ferrule and the version of the workspace if not given.
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("ferrule:", env!("CARGO_PKG_VERSION")))]
    pub tag: String,
    /// Whose machine code; this machine's if not given.
    #[arg(long, value_enum)]
    pub arch: Option<Arch>,
    /// Build the static program only, and put it there.
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    pub binary: Option<PathBuf>,
}

/// Processors, as images name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// That of this machine.
    const HOST: Self = if cfg!(target_arch = "aarch64") {
        Self::Arm64
    } else {
        Self::Amd64
    };

    /// As images name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// Builds the program and packs it.
///
/// # Errors
/// Something is missing and can't be installed, or a step fails.
pub fn run(options: &Options) -> Result<()> {
    let arch = options.arch.unwrap_or(Arch::HOST);
    if let Some(file) = &options.binary {
        setup::refuse(&setup::prepare_static())?;
        let program = program::build(arch)?;
        return copy(&program, file);
    }
    let archive = build(arch, &options.tag, options.output.as_deref())?;
    let length = fs::metadata(&archive)?.len();
    println!(
        "{} ({}, {:.1} MB) is in {}",
        options.tag,
        arch.name(),
        length as f64 / 1e6,
        archive.display()
    );
    Ok(())
}

/// Builds the image; returns where its archive is.
///
/// # Errors
/// As [`run`].
pub fn build(arch: Arch, tag: &str, output: Option<&Path>) -> Result<PathBuf> {
    let mut lacks = setup::prepare_static();
    lacks.extend(setup::prepare_packing());
    setup::refuse(&lacks)?;
    let folder = folder()?;
    let output = output.map_or_else(
        || folder.join(format!("ferrule-{}.tar", arch.name())),
        Path::to_owned,
    );
    // What the last stage takes from the first one.
    let context = folder.join(arch.name());
    fs::create_dir_all(&context)?;
    copy(&program::build(arch)?, &context.join("ferrule"))?;
    archive::pack(arch, tag, &context, &output)?;
    Ok(output)
}

fn folder() -> Result<PathBuf> {
    Ok(workspace::target()?.join("xtask").join("image"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("can't write {}", to.display()))?;
    Ok(())
}
