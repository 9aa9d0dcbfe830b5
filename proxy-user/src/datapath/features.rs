//! What this kernel has, found out by trying: version numbers say little of kernels with back-ports.

use crate::datapath::bpf::tcx_programs;
use crate::datapath::hook::Hook;
use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::MapType;
use aya::programs::{ProgramType, SchedClassifier, TestRun as _, TestRunOptions};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use aya::{Btf, Ebpf};
use aya_obj::btf::BtfKind;
use proxy_common::probe::{CHECKSUM_IPV6, SOURCE_LOOKUP};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The program that calls helpers.
static PROBE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ferrule-probe"));

/// Something that kernels have or lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// A description of the kernel's types.
    Btf,
    /// BPF programs at tc.
    TcPrograms,
    /// Hash maps that forget the least recently used.
    LruHash,
    /// Ring buffers.
    RingBuffer,
    /// tcx links.
    Tcx,
    /// Checksums of IPv6 in bpf_l4_csum_replace.
    ChecksumIpv6,
    /// Source addresses from bpf_fib_lookup.
    SourceLookup,
    /// A clock that is cheap to read.
    CoarseClock,
    /// Walking over a map inside of a program.
    MapIteration,
    /// An error of choice from a cgroup hook.
    ReturnValue,
    /// Paths of MPTCP sockets told from other sockets.
    Multipath,
    /// Walking over sockets with storage.
    SocketIterators,
    /// Closing sockets from an iterator.
    SocketDestroy,
}

/// What is done without a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// Nothing: the agent does not start.
    Refuse,
    /// Something else.
    Instead(&'static str),
    /// Nothing is missing: no part of this version uses it.
    Unused,
}

impl Feature {
    /// All, those that can't be missed first.
    pub const ALL: [Self; 13] = [
        Self::Btf,
        Self::TcPrograms,
        Self::LruHash,
        Self::RingBuffer,
        Self::Tcx,
        Self::ChecksumIpv6,
        Self::SourceLookup,
        Self::CoarseClock,
        Self::MapIteration,
        Self::ReturnValue,
        Self::Multipath,
        Self::SocketIterators,
        Self::SocketDestroy,
    ];

    /// What it is called, in the kernel's words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Btf => "BTF of the kernel",
            Self::TcPrograms => "BPF programs at tc",
            Self::LruHash => "LRU hash maps",
            Self::RingBuffer => "ring buffers",
            Self::Tcx => "tcx links",
            Self::ChecksumIpv6 => "BPF_F_IPV6",
            Self::SourceLookup => "BPF_FIB_LOOKUP_SRC",
            Self::CoarseClock => "bpf_ktime_get_coarse_ns",
            Self::MapIteration => "bpf_for_each_map_elem",
            Self::ReturnValue => "bpf_set_retval",
            Self::Multipath => "bpf_skc_to_mptcp_sock",
            Self::SocketIterators => "socket iterators",
            Self::SocketDestroy => "bpf_sock_destroy",
        }
    }

    /// The first version of Linux that has it, or the option of its configuration.
    pub const fn since(self) -> &'static str {
        match self {
            Self::Btf => "5.2, CONFIG_DEBUG_INFO_BTF",
            Self::TcPrograms => "4.1",
            Self::LruHash => "4.10",
            Self::RingBuffer => "5.8",
            Self::Tcx => "6.6",
            Self::ChecksumIpv6 => "6.16 and back-ports",
            Self::SourceLookup => "6.7 and back-ports",
            Self::CoarseClock => "5.11",
            Self::MapIteration => "5.13",
            Self::ReturnValue => "6.1",
            Self::Multipath => "5.19",
            Self::SocketIterators => "5.9",
            Self::SocketDestroy => "6.5",
        }
    }

    fn is_unused(self) -> bool {
        self.without() == Without::Unused
    }

    /// What is done without it.
    pub const fn without(self) -> Without {
        match self {
            Self::Btf | Self::TcPrograms | Self::LruHash | Self::RingBuffer => Without::Refuse,
            Self::Tcx => Without::Instead("filters of a clsact qdisc"),
            Self::SourceLookup => Without::Instead("the address of the device"),
            Self::CoarseClock => Without::Instead("bpf_ktime_get_ns"),
            Self::ReturnValue => Without::Instead("an ICMP error at the device"),
            Self::Multipath => Without::Instead("MPTCP sockets name the backend"),
            Self::SocketIterators => Without::Instead("nothing: sockets stay open"),
            Self::SocketDestroy => Without::Instead("sock_diag"),
            Self::ChecksumIpv6 | Self::MapIteration => Without::Unused,
        }
    }
}

/// The features of this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    release: String,
    /// Those that were tried, and could be.
    found: BTreeMap<Feature, bool>,
}

impl Features {
    /// Tries all of them. What nothing uses may stay unknown.
    ///
    /// # Errors
    /// A question that could not be asked: privileges are missing.
    pub fn probe() -> Result<Self> {
        let mut features = Self::probe_used()?;
        let unused = Feature::ALL.into_iter().filter(|it| it.is_unused());
        let found = unused.filter_map(|feature| Some((feature, probe(feature).ok()?)));
        features.found.extend(found);
        Ok(features)
    }

    /// Tries only those that make a difference to this version.
    ///
    /// # Errors
    /// As [`Features::probe`].
    pub fn probe_used() -> Result<Self> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("reading the kernel's version")?;
        let used = Feature::ALL.into_iter().filter(|it| !it.is_unused());
        let found = used.map(|feature| {
            let found = probe(feature).map_err(add_hint);
            let found =
                found.with_context(|| format!("asking the kernel for {}", feature.name()))?;
            Ok((feature, found))
        });
        Ok(Self {
            release: release.trim().to_owned(),
            found: found.collect::<Result<_>>()?,
        })
    }

    /// The kernel, as it calls itself.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Whether the kernel has it; what is not known counts as missing.
    pub fn has(&self, feature: Feature) -> bool {
        self.knows(feature) == Some(true)
    }

    /// Whether the kernel has it; `None` if it could not be asked.
    pub fn knows(&self, feature: Feature) -> Option<bool> {
        self.found.get(&feature).copied()
    }

    /// Refuses a kernel that lacks what nothing can stand in for.
    ///
    /// # Errors
    /// Names all that is missing.
    pub fn require(&self) -> Result<()> {
        let missing = Feature::ALL
            .into_iter()
            .filter(|feature| feature.without() == Without::Refuse && !self.has(*feature));
        let missing: Vec<String> = missing
            .map(|feature| format!("{} (Linux {})", feature.name(), feature.since()))
            .collect();
        ensure!(
            missing.is_empty(),
            "this kernel, Linux {}, lacks what Ferrule needs: {}",
            self.release,
            missing.join(", ")
        );
        Ok(())
    }
}

/// Says what a missing privilege may be.
pub fn add_hint(error: anyhow::Error) -> anyhow::Error {
    let is_denied = error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    });
    if is_denied {
        error.context(
            "it takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON \
             and, before Linux 5.11, no limit on locked memory",
        )
    } else {
        error
    }
}

fn probe(feature: Feature) -> Result<bool> {
    let program = ProgramType::SchedClassifier;
    Ok(match feature {
        Feature::Btf => Path::new(BTF).exists(),
        Feature::TcPrograms => is_program_supported(program)?,
        Feature::LruHash => is_map_supported(MapType::LruHash)?,
        Feature::RingBuffer => is_map_supported(MapType::RingBuf)?,
        Feature::Tcx => has_tcx()?,
        Feature::ChecksumIpv6 => helpers()? & CHECKSUM_IPV6 != 0,
        Feature::SourceLookup => helpers()? & SOURCE_LOOKUP != 0,
        Feature::CoarseClock => {
            is_helper_supported(program, BpfHelper::BPF_FUNC_ktime_get_coarse_ns)?
        }
        Feature::MapIteration => {
            is_helper_supported(program, BpfHelper::BPF_FUNC_for_each_map_elem)?
        }
        Feature::ReturnValue => {
            is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval)?
        }
        Feature::Multipath => is_helper_supported(
            ProgramType::CgroupSockAddr,
            BpfHelper::BPF_FUNC_skc_to_mptcp_sock,
        )?,
        Feature::SocketIterators => has_functions(&["bpf_iter_bpf_sk_storage_map"]),
        Feature::SocketDestroy => has_functions(&["bpf_sock_destroy"]),
    })
}

/// Loopback is the first device of every network namespace.
const LOOPBACK: u32 = 1;

fn has_tcx() -> Result<bool> {
    match tcx_programs(LOOPBACK, Hook::Ingress.tcx()) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Where the kernel describes its types.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Whether the kernel describes functions of these names.
fn has_functions(names: &[&str]) -> bool {
    let Ok(btf) = Btf::from_sys_fs() else {
        return false;
    };
    let has = |name| btf.id_by_type_name_kind(name, BtfKind::Func).is_ok();
    names.iter().copied().all(has)
}

/// An IPv4 packet, as far as the probing program looks: zeros after the EtherType.
const PACKET: [u8; 64] = {
    let mut packet = [0; 64];
    packet[12] = 0x08;
    packet
};

/// What the probing program finds, as bits.
fn helpers() -> Result<i32> {
    let mut object = Ebpf::load(PROBE)?;
    let Some(program) = object.program_mut("ferrule_probe") else {
        bail!("the object has no program");
    };
    let program: &mut SchedClassifier = program.try_into()?;
    program.load()?;
    let options = TestRunOptions {
        data_in: Some(&PACKET),
        ..TestRunOptions::new()
    };
    Ok(program.test_run(options)?.return_value.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(missing: &[Feature]) -> Features {
        let found = Feature::ALL.map(|feature| (feature, !missing.contains(&feature)));
        Features {
            release: "4.19.0".into(),
            found: found.into(),
        }
    }

    #[test]
    fn a_kernel_below_the_floor_is_refused_by_the_name_of_what_it_lacks() {
        let error = kernel(&[Feature::RingBuffer, Feature::Tcx]).require();
        assert_eq!(
            error.unwrap_err().to_string(),
            "this kernel, Linux 4.19.0, lacks what Ferrule needs: ring buffers (Linux 5.8)"
        );
    }

    #[test]
    fn a_kernel_that_lacks_what_has_a_substitute_is_accepted() {
        let optional = Feature::ALL
            .into_iter()
            .filter(|feature| feature.without() != Without::Refuse);
        kernel(&optional.collect::<Vec<_>>()).require().unwrap();
    }
}
