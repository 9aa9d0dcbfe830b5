//! What a guest boots into: its folder on the host, and its initramfs.

use super::guest;
use super::initramfs::Initramfs;
use super::kernel::Kernel;
use super::payload::Payload;
use super::plan::Step;
use super::tools;
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// The programs of the workspace that every guest has.
const PROGRAMS: [&str; 4] = ["ferrule", "prog_run", "netns", "cluster"];
/// Folders that tests expect.
const FOLDERS: [&str; 4] = ["/proc", "/sys", "/dev", "/var/run"];

/// A guest's files on the host.
pub(super) struct Image {
    /// Logs go here.
    pub(super) folder: PathBuf,
    /// What the kernel unpacks.
    pub(super) initramfs: PathBuf,
}

impl Image {
    /// Puts together what a kernel and the steps of a plan need, under a name of the guest's own.
    pub(super) fn build(
        kernel: &Kernel,
        name: &str,
        payload: &Payload,
        steps: &[Step],
    ) -> Result<Self> {
        let folder = workspace::target()?.join("xtask/vm").join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("can't create {}", folder.display()))?;
        let path = folder.join("initramfs.cpio");
        let mut initramfs = Initramfs::create(&path)?;
        for inside in FOLDERS {
            initramfs.add_folder(inside)?;
        }
        initramfs.add("/init", payload.program("xtask")?)?;
        for program in PROGRAMS {
            initramfs.add(&format!("/bin/{program}"), payload.program(program)?)?;
        }
        tools::add(&mut initramfs)?;
        add_modules(&mut initramfs, kernel)?;
        add_test_files(&mut initramfs)?;
        initramfs.add(&format!("/{DOCUMENT}"), &workspace::root()?.join(DOCUMENT))?;
        let plan: Vec<&str> = steps.iter().map(|step| step.command.as_str()).collect();
        initramfs.add_bytes(guest::PLAN, plan.join("\n").as_bytes())?;
        initramfs.finish()?;
        Ok(Self {
            folder,
            initramfs: path,
        })
    }
}

fn add_modules(initramfs: &mut Initramfs, kernel: &Kernel) -> Result<()> {
    initramfs.add_folder(guest::MODULES)?;
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        initramfs.add(&format!("{}/{name}", guest::MODULES), module)?;
    }
    Ok(())
}

/// The document that `netns` compares with its tests.
const DOCUMENT: &str = "docs/testing.md";

/// The files that `prog_run` reads.
fn add_test_files(initramfs: &mut Initramfs) -> Result<()> {
    for (inner, ending) in [("tests/scenarios", ".txt"), ("tests/conformance", ".json")] {
        for entry in fs::read_dir(workspace::root()?.join("proxy-user").join(inner))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(ending) {
                initramfs.add(&format!("{}/{inner}/{name}", guest::PACKAGE), &path)?;
            }
        }
    }
    Ok(())
}
