//! Agent.

pub mod agent;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod datapath;
pub mod frontend;
pub mod source;
pub mod sync;
pub mod tables;
