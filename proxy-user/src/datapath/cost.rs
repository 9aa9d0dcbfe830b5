//! What the verifier of this kernel makes of the programs.

use crate::datapath::bpf::{Kind, verify};
use crate::datapath::cgroup::{self, HOOKS};
use crate::datapath::features::Features;
use crate::datapath::hook::{Framing, Hook};
use crate::datapath::object::{self, EXPIRE, named};
use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya::programs::ProgramInfo;
use aya_obj::ProgramSection;
use aya_obj::generated::{bpf_insn, bpf_prog_type};
use serde::Serialize;
use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

/// The price of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// The program's name.
    pub program: String,
    /// Instructions that the verifier has walked over, each as often as it had to; a million is too
    /// many.
    pub verified: u64,
    /// Bytes of stack of the program, then of each of its functions; a chain of calls may have 512.
    pub stack: Vec<u32>,
    /// Bytes of the program in the kernel's instructions.
    pub translated: u32,
    /// Bytes of the program in the machine's instructions; 0 without a compiler.
    pub jited: u32,
}

/// Loads the programs with maps of their own, and drops both.
///
/// # Errors
/// A program that this kernel refuses, with the verifier's words.
pub fn costs(features: &Features) -> Result<Vec<Cost>> {
    let mut programs = object::load_unpinned(features)?;
    let linked = linked(&programs)?;
    let all = Framing::ALL
        .into_iter()
        .flat_map(|framing| Hook::ALL.map(|hook| (hook, framing)))
        // The same program as elsewhere.
        .filter(|place| *place != (Hook::Egress, Framing::Port))
        .map(|(hook, framing)| hook.program(framing));
    let costs = all.chain([EXPIRE]).chain(HOOKS).map(|name| {
        let info = info(&mut programs, name)?;
        let (instructions, license, kind) = linked.program(name)?;
        let log = verify(instructions, license, kind);
        let log = log.with_context(|| format!("verifying {name}"))?;
        Ok(Cost {
            program: name.to_owned(),
            verified: number_after(&log, "processed").context("the verifier gives no number")?,
            stack: frames(&log),
            translated: info.size_translated().unwrap_or(0),
            jited: info.size_jitted(),
        })
    });
    costs.collect()
}

/// An object with its maps' file descriptors written into its instructions.
struct Linked(aya_obj::Object);

impl Linked {
    fn program(&self, name: &str) -> Result<(&[bpf_insn], &CStr, Kind)> {
        let program = self.0.programs.get(name);
        let program = program.with_context(|| format!("the object has no program {name}"))?;
        let function = self.0.functions.get(&program.function_key());
        let function = function.with_context(|| format!("program {name} has no code"))?;
        let kind = kind(&program.section);
        let kind = kind.with_context(|| format!("{name} is of no kind of ours"))?;
        Ok((&function.instructions, &program.license, kind))
    }
}

fn info(programs: &mut Ebpf, name: &str) -> Result<ProgramInfo> {
    if HOOKS.contains(&name) {
        return Ok(cgroup::load(programs, name)?.info()?);
    }
    Ok(named(programs, name)?.info()?)
}

/// What the kernel must know of a program besides its code.
fn kind(section: &ProgramSection) -> Option<Kind> {
    let (program, hook) = match section {
        ProgramSection::SchedClassifier => (bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, None),
        ProgramSection::CgroupSockAddr { attach_type } => (
            bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            Some((*attach_type).into()),
        ),
        ProgramSection::CgroupSock { attach_type } => (
            bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK,
            Some((*attach_type).into()),
        ),
        _ => return None,
    };
    Some(Kind { program, hook })
}

/// aya keeps the verifier's words to itself when a program loads, and its own copy of the
/// instructions always: they are linked once more, to the same maps.
fn linked(programs: &Ebpf) -> Result<Linked> {
    let mut object = object::parse()?;
    let maps = object.maps.clone();
    let maps = programs.maps().filter_map(|(name, map)| {
        let definition = maps.get(name)?;
        Some((name, file_of(map)?, definition))
    });
    let code = object.functions.keys().map(|(section, _)| *section);
    let code = code.collect();
    object.relocate_maps(maps, &code)?;
    object.relocate_calls(&code)?;
    Ok(Linked(object))
}

fn file_of(map: &Map) -> Option<RawFd> {
    let data: &MapData = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::SkStorage(data)
        | Map::RingBuf(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd().as_raw_fd())
}

fn word_after<'a>(log: &'a str, words: &str) -> Option<&'a str> {
    let (_, rest) = log.split_once(words)?;
    rest.split_whitespace().next()
}

fn frames(log: &str) -> Vec<u32> {
    let frames = word_after(log, "stack depth").unwrap_or_default();
    frames.split('+').flat_map(str::parse).collect()
}

fn number_after(log: &str, words: &str) -> Option<u64> {
    word_after(log, words)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_totals_are_read() {
        let log = "verification time 5210 usec\nstack depth 96+312+8\n\
                   processed 14107 insns (limit 1000000) max_states_per_insn 4 total_states 820\n";
        assert_eq!(number_after(log, "processed"), Some(14107));
        assert_eq!(frames(log), [96, 312, 8]);
        assert_eq!(number_after("", "processed"), None);
    }
}
