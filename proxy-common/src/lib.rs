//! Every type that crosses the boundary between the agent and the BPF programs.
//!
//! Data only: constructors and getters, no behaviour. All multi-byte address and port words are in
//! network byte order in memory, so the datapath copies them between packets and maps as they are;
//! outside this crate they are read through typed getters. Everything else is in host order.
//!
//! A change to any layout here needs a new [`ABI_VERSION`]: the agent refuses to adopt pinned maps
//! of another version.
#![no_std]
#![deny(unsafe_code)]

mod addr;
mod client;
mod config;
mod counter;
mod device;
mod expiry;
mod filter;
mod flow;
mod fragment;
mod frontend;
mod pod;
pub mod probe;
mod service;
mod socket;
mod ticks;

pub use addr::{AddrV4, AddrV6, Address, Port, Proto};
pub use client::{Affinity, AffinityKey, SourceRange};
pub use config::{
    Detection, MOST_SERVICE_RANGES, NodeConfig, NodeFamily, NodeOption, NodeOptions, Range,
    ServiceRanges,
};
pub use counter::{Counter, DropReason, SocketCall, Verdict};
pub use device::{Device, DeviceTrait, DeviceTraits, Mac};
pub use expiry::{Request, Unused};
pub use filter::Filter;
pub use flow::{Flow, FlowRole, Hook, Mark, Table, Tuple};
pub use fragment::{FragmentKey, FragmentPorts, Refusals};
pub use frontend::{Frontend, FrontendKey, FrontendKind, FrontendTrait};
pub use service::{Backend, BackendRef, Lists, Locality, RegionHeader, ServiceWord};
pub use socket::{Connected, ExemptBy, ExemptKey, Peer, Peers, SOCK_DESTROY, SocketAddress};
pub use ticks::Ticks;

/// Version of the layouts in this crate; written to `CONFIG` and checked before maps are adopted.
pub const ABI_VERSION: u32 = 6;
