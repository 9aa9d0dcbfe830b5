//! The kernel as the sync loop sees it: maps that can be read once and written op by op.

mod array;
pub mod attach;
pub mod bpf;
pub mod bpffs;
pub mod cgroup;
pub mod closing;
pub mod content;
pub mod cost;
pub mod devices;
pub mod exempt;
pub mod fake;
pub mod features;
pub mod filter;
pub mod firewall;
pub mod hook;
pub mod kernel;
pub mod leftovers;
mod netns;
pub mod object;
pub mod others;
pub mod pins;
pub mod readings;
mod rows;
pub mod sweep;
pub mod sysctl;

pub use crate::tables::{Capacity, Dump, FamilyOp, Map, Op, RangeKey};

use proxy_common::NodeConfig;
use std::io;
use std::pin::Pin;

/// The maps. The only implementations are the kernel's and, for tests, [`fake::Fake`].
pub trait Datapath {
    /// `max_entries` of each map; constant.
    fn capacity(&self) -> Capacity;

    /// Reads all maps; called once, before the first write.
    ///
    /// # Errors
    /// The read that failed.
    fn dump(&mut self) -> Result<Dump, Error>;

    /// Applies ops in order, stopping at the first that fails. Returns how many are in force, and
    /// the error of the one after them; an op that failed has changed nothing.
    fn apply(&mut self, ops: &[Op]) -> (usize, Result<(), Error>);

    /// Replaces the node's configuration.
    ///
    /// # Errors
    /// The write that failed; nothing has changed.
    fn configure(&mut self, config: &NodeConfig) -> Result<(), Error>;

    /// Completes when no program is running any more that may have seen map content from before
    /// this call (an RCU grace period).
    fn grace(&self) -> Grace;
}

/// A grace period under way.
pub type Grace = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why the kernel did not take a write.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The map has no room for another row.
    #[error("map {map} is full")]
    Full {
        /// Which map.
        map: Map,
    },
    /// Everything else.
    #[error("{what}: {source}")]
    Syscall {
        /// What was tried, for the operator: the map and the operation.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}
