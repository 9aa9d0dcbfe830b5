//! Builds the BPF object from proxy-ebpf, for the embedding in `datapath/bpf.rs`.
//!
//! `core` has to be built for the BPF target, which needs its sources and unstable options of cargo:
//! a nightly tool chain has both, a stable one is allowed to use them by RUSTC_BOOTSTRAP.

use object::{Object as _, ObjectSymbol as _};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The rustup tool chain that `cargo xtask setup` links to Debian's compiler.
const LINKED: &str = "ferrule-bpf";
const TARGET: &str = "bpfel-unknown-none";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let sources = manifest.with_file_name("proxy-ebpf");
    for changed in ["proxy-ebpf", "proxy-common", "Cargo.lock"] {
        println!(
            "cargo::rerun-if-changed={}",
            manifest.with_file_name(changed).display()
        );
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    run(compiler(&sources, &out.join("bpf-target"))?)?;
    // The last is what the benchmarks load; the library embeds the others.
    for object in ["ferrule-bpf", "ferrule-probe", "ferrule-bench"] {
        let built = out
            .join("bpf-target")
            .join(TARGET)
            .join("release")
            .join(object);
        refuse_panics(&built)?;
        std::fs::copy(&built, out.join(object))
            .map_err(|error| format!("can't copy {}: {error}", built.display()))?;
    }
    Ok(())
}

fn compiler(sources: &Path, target_dir: &Path) -> Result<Command, String> {
    let arch = variable("CARGO_CFG_TARGET_ARCH")?
        .into_string()
        .unwrap_or_default();
    let mut command = toolchain();
    command
        .args(["build", "--package", "proxy-ebpf", "--bins", "--release"])
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(target_dir)
        .current_dir(sources)
        .env("RUSTC_BOOTSTRAP", "1")
        // Without them a program outgrows its stack of 512 bytes.
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&arch))
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    Ok(command)
}

/// v3 has 32-bit arithmetic and jumps, in every kernel since 5.1.
fn flags(arch: &str) -> String {
    let arch = format!("--cfg=bpf_target_arch=\"{arch}\"");
    [
        &arch,
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Ctarget-cpu=v3",
    ]
    .join("\x1f")
}

fn toolchain() -> Command {
    for name in [LINKED, "nightly"] {
        let sysroot = Command::new("rustup")
            .args(["run", name, "rustc", "--print", "sysroot"])
            .output();
        let Ok(sysroot) = sysroot else {
            break;
        };
        let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
        if sysroot.join("lib/rustlib/src/rust/library/core").exists() {
            let mut command = Command::new("rustup");
            command.args(["run", name, "cargo"]);
            return command;
        }
    }
    Command::new("cargo")
}

fn run(mut command: Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("can't run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        println!("cargo::warning={line}");
    }
    Err("the BPF object did not build; `cargo xtask setup` installs what it needs".into())
}

/// A panic in a BPF program is a call into `core`, which the verifier refuses with a message that
/// names neither: say here where it comes from.
fn refuse_panics(object: &Path) -> Result<(), String> {
    let bytes = std::fs::read(object).map_err(|error| format!("{}: {error}", object.display()))?;
    let file =
        object::File::parse(&*bytes).map_err(|error| format!("{}: {error}", object.display()))?;
    let panics =
        |symbol: object::Symbol<'_, '_>| symbol.name().is_ok_and(|name| name.contains("panicking"));
    if file.symbols().any(panics) {
        return Err(format!(
            "{} can panic: a bounds check or division is left",
            object.display()
        ));
    }
    Ok(())
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}
