//! Desired content of the maps, as plain values; every row belongs to one Service.

mod claims;
mod content;
mod diff;
mod encode;
mod ids;
mod map;
mod node;
mod op;
mod regions;
mod restore;
mod rows;
mod text;

pub use content::{FamilyTables, Freed, ServiceTables};
pub use diff::{diff, sort};
pub use encode::{Conflict, Encoded, encode};
pub use ids::{Batch, Ids, TableFull};
pub use map::{Capacity, Family, Map};
pub use node::{NodeFacts, Pods, Sockets, node_config};
pub use op::{FamilyOp, Op, RangeKey};
pub use restore::{Dump, Orphans};

#[cfg(test)]
mod tests;
