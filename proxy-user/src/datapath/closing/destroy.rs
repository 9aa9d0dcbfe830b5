//! Closing sockets by programs that walk over them (bpf_sock_destroy, Linux 6.5).

use super::rows;
use crate::datapath::bpf::walk;
use anyhow::{Context as _, Result, anyhow};
use aya::programs::{Iter, ProgramFd};
use aya::{Btf, Ebpf};
use proxy_common::{Connected, Proto};
use std::io;
use std::os::fd::AsFd as _;

/// The programs, and what they walk over.
const PROGRAMS: [(Proto, &str, &str); 2] = [
    (Proto::Udp, "ferrule_end_udp", "udp"),
    (Proto::Tcp, "ferrule_end_tcp", "tcp"),
];

/// The loaded programs.
pub(super) struct Destroyer([(Proto, ProgramFd); 2]);

impl Destroyer {
    /// Loads them.
    ///
    /// # Errors
    /// What is not there, or what the kernel refused.
    pub(super) fn load(programs: &mut Ebpf, btf: &Btf) -> Result<Self> {
        let [udp, tcp] = PROGRAMS.map(|(proto, name, kind)| {
            load_iterator(programs, name, kind, btf).map(|program| (proto, program))
        });
        Ok(Self([udp?, tcp?]))
    }

    /// Closes what has to be in the network namespace of the thread, of the protocols that are among those
    /// wanted; returns how many that were.
    pub(super) fn close(&self, wanted: &[Connected]) -> io::Result<u64> {
        let mut closed = 0;
        for (proto, program) in &self.0 {
            let number = u16::from(proto.number());
            if wanted.iter().any(|row| row.proto == number) {
                closed += rows(walk(program.as_fd(), None)?)?.len() as u64;
            }
        }
        Ok(closed)
    }
}

/// Loads a program that walks over objects of this kind.
pub(super) fn load_iterator(
    programs: &mut Ebpf,
    name: &str,
    kind: &str,
    btf: &Btf,
) -> Result<ProgramFd> {
    let program = programs.program_mut(name);
    let program = program.ok_or_else(|| anyhow!("the object has no program {name}"))?;
    let program: &mut Iter = program.try_into()?;
    let loaded = program.load(kind, btf);
    loaded.with_context(|| format!("loading {name}"))?;
    Ok(program.fd()?.try_clone()?)
}
