//! Agent.

pub mod cluster;
pub mod datapath;
pub mod frontend;
pub mod source;
pub mod sync;
pub mod tables;
