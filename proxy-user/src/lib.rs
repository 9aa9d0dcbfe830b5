//! Agent.

pub mod datapath;
pub mod tables;
