//! The compiler and the linker for BPF.
//!
//! `core` is built for the BPF target, so the compiler needs its sources beside it, and it has to
//! speak the LLVM that the linker was built with. A nightly tool chain with rust-src does; else
//! Debian's packages do, linked into rustup under the name that proxy-user's build script tries
//! first.

use super::packages::{find, install};
use crate::command;
use crate::progress;
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Debian's compiler as a rustup tool chain.
const LINKED: &str = "ferrule-bpf";
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];
const DEBIAN_LLVM: [&str; 3] = ["llvm-22-dev", "libzstd-dev", "zlib1g-dev"];
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const LINKER_VERSION: &str = "0.13.0";

/// Which tool chain builds the BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// Debian's compiler, through rustup.
    Linked,
    /// rustup's nightly.
    Nightly,
    /// Debian's compiler on a machine without rustup.
    Plain,
}

impl Toolchain {
    /// The first tool chain that has the sources of `core`, in the order of the build script.
    #[must_use]
    pub fn find() -> Option<Self> {
        let all = [Self::Linked, Self::Nightly, Self::Plain];
        all.into_iter()
            .find(|toolchain| toolchain.has_sources() == Some(true))
    }

    /// The command that runs one of its programs, such as `cargo`.
    #[must_use]
    pub fn program(self, program: &str) -> Vec<String> {
        let words = match self {
            Self::Linked => vec!["rustup", "run", LINKED, program],
            Self::Nightly => vec!["rustup", "run", "nightly", program],
            Self::Plain => vec![program],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// Nothing if there is no such tool chain on this machine.
    fn has_sources(self) -> Option<bool> {
        if self == Self::Plain && find("rustup").is_some() {
            return None;
        }
        let sysroot = self.ask(&["--print", "sysroot"])?;
        let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core");
        Some(core.exists())
    }

    fn ask(self, args: &[&str]) -> Option<String> {
        let words = self.program("rustc");
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.extend(args);
        let text = command::run(words[0], &words[1..]).ok()?;
        Some(text.trim().to_owned())
    }

    fn version(self) -> String {
        self.ask(&["--version"]).unwrap_or_default()
    }
}

/// Makes sure of both, and returns what they are.
pub(super) fn ready() -> Result<String> {
    let toolchain = match Toolchain::find() {
        Some(toolchain) => toolchain,
        None => install_debian()?,
    };
    let linker = match linker_version() {
        Some(version) => version,
        None => install_linker(toolchain)?,
    };
    Ok(format!("{} for BPF, {linker}", toolchain.version()))
}

fn install_debian() -> Result<Toolchain> {
    install(&DEBIAN_COMPILER).context(
        "no compiler for BPF: no nightly with rust-src, and Debian's can't be installed",
    )?;
    if find("rustup").is_some() {
        command::run("rustup", &["toolchain", "link", LINKED, "/usr"])?;
    }
    let toolchain = Toolchain::find()
        .context("packages rustc-web and rust-web-src are installed, but don't give a compiler")?;
    let version = toolchain.version();
    let minor = version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse().ok());
    ensure!(
        minor >= Some(95),
        "Debian's rustc is {version}; 1.95 or newer comes from the bookworm-security archive"
    );
    Ok(toolchain)
}

/// What the linker says of itself, if it is there and its libraries are.
fn linker_version() -> Option<String> {
    let linker = find("bpf-linker")?;
    let text = command::run(&linker.to_string_lossy(), &["--version"]).ok()?;
    Some(text.trim().to_owned())
}

/// Builds the linker with the LLVM of the compiler: rustup's nightly brings its own, Debian's is a
/// package.
fn install_linker(toolchain: Toolchain) -> Result<String> {
    let words = toolchain.program("cargo");
    let mut cargo = std::process::Command::new(&words[0]);
    cargo.args(&words[1..]).args([
        "install",
        "bpf-linker",
        "--force",
        "--version",
        LINKER_VERSION,
    ]);
    if toolchain != Toolchain::Nightly {
        install(&DEBIAN_LLVM).context("no bpf-linker, and what builds it can't be installed")?;
        cargo
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("LLVM_PREFIX", LLVM_PREFIX);
    }
    // The variables of the cargo that runs us are not meant for this one.
    cargo
        .env("PATH", workspace::search_path())
        .env_remove("RUSTUP_TOOLCHAIN");
    progress::run("building bpf-linker", "bpf-linker", cargo)?;
    linker_version().context("bpf-linker is installed but does not run")
}
