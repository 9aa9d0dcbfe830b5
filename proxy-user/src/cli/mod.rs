//! One file for each subcommand that is not the agent.

pub mod check;
pub mod cleanup;
pub mod configuration;
pub mod explain;
pub mod init;
pub mod status;
mod table;

use std::io::Write as _;

/// Prints, even if nobody reads: what is being done goes on without a witness.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
