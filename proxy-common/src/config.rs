//! `CONFIG`: what the programs must know about their node.

use crate::{AddrV4, AddrV6, Port};
use bytemuck::{Pod, Zeroable};

/// The only row of `CONFIG`, written by the agent before the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NodeConfig {
    /// [`crate::ABI_VERSION`] of the agent that wrote the maps.
    pub abi_version: u32,
    /// First port that masked flows may use as their source.
    pub snat_port_min: Port,
    /// Last port that masked flows may use as their source, not below the first.
    pub snat_port_max: Port,
    /// The kernel's cookie of the node's own network namespace; 0: not known, the machine's first one is meant.
    pub host_netns: u64,
    /// What the programs at cgroups do, besides what they always do.
    pub socket_options: SocketOptions,
    /// What differs by family: IPv4.
    pub v4: NodeFamilyV4,
    /// What differs by family: IPv6.
    pub v6: NodeFamilyV6,
}

impl NodeConfig {
    /// Whether a network namespace is the node's own.
    #[inline(always)]
    pub fn is_host_netns(&self, cookie: u64, first: impl FnOnce() -> u64) -> bool {
        match self.host_netns {
            0 => cookie == first(),
            known => cookie == known,
        }
    }
}

/// Something that the programs at cgroups may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SocketOption {
    /// Only sockets of the node's own network namespace are translated.
    HostOnly = 1 << 0,
    /// NodePorts answer on loopback addresses, for sockets of the node's own network namespace.
    LoopbackNodePorts = 1 << 1,
    /// TCP sockets are closed when their backend goes, whatever their Service says.
    CloseTcp = 1 << 2,
}

/// Those that are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct SocketOptions {
    bits: u32,
}

impl SocketOptions {
    /// Whether an option is on.
    #[inline(always)]
    pub const fn has(self, option: SocketOption) -> bool {
        self.bits & option as u32 != 0
    }

    /// These, and another one if it is wanted.
    #[must_use]
    pub const fn with(self, option: SocketOption, is_wanted: bool) -> Self {
        let bit = if is_wanted { option as u32 } else { 0 };
        Self {
            bits: self.bits | bit,
        }
    }
}

/// The IPv4 part of [`NodeConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NodeFamilyV4 {
    /// Source address of masked flows; all zero: flows of this family cannot be masked.
    pub masquerade: AddrV4,
    /// Address of `--cluster-cidr`.
    pub cluster_cidr: AddrV4,
    /// Its mask; all zero: not configured, every source counts as inside.
    pub cluster_mask: AddrV4,
}

/// The IPv6 part of [`NodeConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NodeFamilyV6 {
    /// Source address of masked flows; all zero: flows of this family cannot be masked.
    pub masquerade: AddrV6,
    /// Address of `--cluster-cidr`.
    pub cluster_cidr: AddrV6,
    /// Its mask; all zero: not configured, every source counts as inside.
    pub cluster_mask: AddrV6,
}
