//! The programs at cgroups: they give the sockets of a node's processes a backend when these dial a
//! frontend.

mod root;

pub use root::{OWN_CGROUP, Root, find_root, is_cgroup, is_root, mounted_root};

use crate::datapath::bpf::{linked_cgroup, netns_cookie, open_pin, update_link};
use crate::datapath::pins::Pins;
use anyhow::{Context as _, Result, anyhow, bail};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// A hook of cgroups, by the name of its program; the kernel keeps 15 letters.
///
/// What is told of a peer comes first and goes last, so that whoever is given a backend is not told of it.
pub const HOOKS: [&str; 10] = [
    "ferrule_peer4",
    "ferrule_peer6",
    "ferrule_recv4",
    "ferrule_recv6",
    "ferrule_send4",
    "ferrule_send6",
    "ferrule_conn4",
    "ferrule_conn6",
    "ferrule_bind4",
    "ferrule_bind6",
];

/// So many of them tell of a peer.
const TELLING: usize = 4;
/// So many of them, the last ones, are only attached where NodePorts can't be bound.
const BINDING: usize = 2;

/// Attaches the programs to a cgroup, in the place of those of an earlier agent where there are such.
///
/// # Errors
/// The cgroup can't be opened, or the kernel refuses a program.
pub fn attach(programs: &mut Ebpf, pins: &Pins, cgroup: &Path, protects_binds: bool) -> Result<()> {
    let folder = File::open(cgroup).with_context(|| format!("opening {}", cgroup.display()))?;
    let wanted = HOOKS.len() - if protects_binds { 0 } else { BINDING };
    let (wanted, unwanted) = HOOKS.split_at(wanted);
    take_off(pins, unwanted);
    for hook in wanted {
        attach_one(programs, pins, &folder, hook)
            .with_context(|| format!("attaching {hook} to {}", cgroup.display()))?;
    }
    Ok(())
}

/// Takes the programs off that give backends to sockets. Those that tell sockets of their peers stay: there are
/// sockets with a backend.
pub fn stop(pins: &Pins) {
    take_off(pins, &HOOKS[TELLING..]);
}

fn take_off(pins: &Pins, hooks: &[&str]) {
    for hook in hooks.iter().rev() {
        // Not there is as good as removed.
        let _ = std::fs::remove_file(pins.cgroup_link(hook));
    }
}

/// The cookie of the network namespace of the thread.
///
/// # Errors
/// The kernel does not tell.
pub fn own_netns() -> Result<u64> {
    let socket = UnixDatagram::unbound().context("opening a socket")?;
    netns_cookie(socket.as_fd()).context("asking for the cookie of the network namespace")
}

/// Loads a program, if that has not been done.
///
/// # Errors
/// The object lacks it, or the kernel refuses it.
pub fn load<'a>(programs: &'a mut Ebpf, hook: &str) -> Result<&'a mut Program> {
    let program = programs.program_mut(hook);
    let program = program.ok_or_else(|| anyhow!("the object has no program {hook}"))?;
    if program.fd().is_err() {
        let loaded = match program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            _ => bail!("{hook} is no program of a cgroup"),
        };
        loaded.with_context(|| format!("loading {hook}"))?;
    }
    Ok(program)
}

fn attach_one(programs: &mut Ebpf, pins: &Pins, folder: &File, hook: &str) -> Result<()> {
    let program = load(programs, hook)?;
    let path = pins.cgroup_link(hook);
    let id = folder.metadata()?.ino();
    if is_linked(&path, id).unwrap_or(false) {
        let link = open_pin(&name(&path)?)?;
        return Ok(update_link(link.as_fd(), program.fd()?.as_fd())?);
    }
    // It leads elsewhere.
    let _ = std::fs::remove_file(&path);
    link(program, folder)?
        .pin(&path)
        .with_context(|| format!("pinning {}", path.display()))?;
    Ok(())
}

fn link(program: &mut Program, folder: &File) -> Result<FdLink> {
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    Ok(match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(folder, MODE)?;
            program.take_link(id)?.try_into()?
        }
        Program::CgroupSock(program) => {
            let id = program.attach(folder, MODE)?;
            program.take_link(id)?.try_into()?
        }
        _ => bail!("no program of a cgroup"),
    })
}

/// Whether a pinned link leads to the cgroup with this id.
fn is_linked(path: &Path, id: u64) -> Result<bool> {
    let link = open_pin(&name(path)?)?;
    Ok(linked_cgroup(link.as_fd())? == id)
}

fn name(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("a path with a zero")
}
