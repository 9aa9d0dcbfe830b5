//! The life of a packet.
//!
//! ```text
//! tc ingress, before routing and netfilter            tc egress, after routing and netfilter
//!
//!   parse     bytes -> Headers, once                    parse
//!   flow      known? take its translation               flow     known? take its translation
//!   service   a frontend? choose its backend            host     of a process, to a frontend? choose all
//!   open      reserve the reply, remember both ways     snat     masked, but no port yet? reserve one
//!   nat       rewrite destination, fix checksums        nat      rewrite source, fix checksums
//! ```
//!
//! Between the two edges routing, netfilter and everything else on the node see one tuple in both
//! directions: client to backend, and backend to client. Of what processes of the node send they see
//! what was sent.
//!
//! This library is the program: the same source is compiled for the BPF target (`main.rs` adds the
//! entry points, `bpf/` the maps and packet access) and for the host, where it runs under
//! `cargo test` on byte vectors. It decides through two traits: [`packet::Packet`] is what a packet
//! lets us do, [`kernel::Kernel`] what the kernel tells us.
//!
//! Three outcomes, and no others: `Ok(Verdict)` is let through, `Err(DropReason)` is dropped, and
//! both are counted by what they say.
#![cfg_attr(not(any(test, feature = "testing")), no_std)]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod expiry;
pub mod extension;
pub mod family;
pub mod flow;
pub mod host;
pub mod icmp;
pub mod kernel;
pub mod known;
pub mod lane;
pub mod nat;
pub mod network;
pub mod open;
pub mod packet;
pub mod parse;
pub mod peers;
pub mod pipeline;
pub mod refuse;
pub mod service;
pub mod snat;
pub mod socket;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod unusual;

pub use proxy_common::{DropReason, Verdict};

/// What becomes of a packet.
pub type Fate = Result<Verdict, DropReason>;
