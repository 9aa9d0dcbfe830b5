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
    /// What differs by family: IPv4.
    pub v4: NodeFamilyV4,
    /// What differs by family: IPv6.
    pub v6: NodeFamilyV6,
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
