//! What the rows of the flow tables say: the state of a flow, when it has ended, how many there are.
//!
//! Functions of values. `datapath::sweep` reads the tables and removes what has ended.

mod census;
mod judge;
mod state;

pub use census::{Busiest, Census, Counts, FlowReport, TableReport};
pub use judge::{Measure, Neighbours};
pub use state::{Room, State, Timeouts, ticks};
