//! `ferrule cleanup`: everything that Ferrule has set up on this node, removed.

use super::say;
use crate::agent::stop;
use crate::config::Place;
use crate::datapath::leftovers::{Leftover, find};
use crate::datapath::pins::Pins;
use anyhow::{Result, bail};
use clap::Args;

/// Flags of `ferrule cleanup`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  ferrule cleanup --dry-run
  ferrule cleanup

A running agent is stopped first, or it would put everything back.")]
pub struct Cleanup {
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub place: Place,
}

/// Stops the agent and removes programs from devices, qdiscs, maps and files. What is not there is
/// no error: it can be run again.
///
/// # Errors
/// How much could not be removed, after everything else is gone.
pub fn run(cleanup: &Cleanup) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let Cleanup { dry_run, place } = cleanup;
    // Held until the end: no agent may start while things are removed.
    let stopped = (!dry_run).then(|| stop(&place.run_dir)).transpose()?;
    if let Some(pid) = stopped.as_ref().and_then(|stopped| stopped.pid) {
        say(&format!("stopped the agent (process {pid})\n"));
    }
    let found = runtime.block_on(find(&Pins::new(&place.bpffs), &place.run_dir))?;
    if found.is_empty() {
        say("nothing to remove\n");
    }
    if *dry_run {
        found
            .iter()
            .for_each(|leftover| say(&format!("would remove {leftover}\n")));
        return Ok(());
    }
    let failed = runtime.block_on(remove(&found));
    if failed > 0 {
        bail!("{failed} of {} could not be removed", found.len());
    }
    Ok(())
}

async fn remove(found: &[Leftover]) -> usize {
    let mut failed = 0;
    for leftover in found {
        match leftover.remove().await {
            Ok(()) => say(&format!("removed {leftover}\n")),
            Err(error) => {
                eprintln!("ferrule: {leftover}: {error:#}");
                failed += 1;
            }
        }
    }
    failed
}
