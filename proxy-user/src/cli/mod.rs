//! One file for each subcommand that is not the agent.

pub mod cleanup;
pub mod status;
mod table;
