//! What the datapath would do with a packet on this node, and why: the programs' own decision, run over a copy of
//! the maps that nothing is written to.

mod answer;
mod decision;
mod maps;
mod offline;
mod query;
mod steps;

pub use answer::{Answer, Dialled, Fate, explain};
pub use maps::Maps;
pub use offline::{Facts, Offline};
pub use query::{NotAQuery, Query};

use crate::sync::At;

/// Knows what Services are called.
pub trait Names {
    /// The name of a service port, of an address that of its Service.
    fn name_at(&mut self, at: &At) -> Name;
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// This.
    Known(String),
    /// Nobody has one.
    Unnamed,
    /// There is nobody to ask.
    NobodyToAsk,
}

#[cfg(test)]
mod tests;
