//! `ferrule cleanup`: everything that Ferrule has set up on this node, removed.

use super::say;
use crate::agent::{stop, told_to_stop};
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
  ferrule cleanup --check && echo nothing is left

A running agent is stopped first, or it would put everything back.")]
pub struct Cleanup {
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Remove nothing, and fail if there is something to remove.
    #[arg(long, conflicts_with = "dry_run")]
    pub check: bool,
    /// When all is removed, go on running until told to stop: for the pods of a DaemonSet, whose containers
    /// are started again when they end.
    #[arg(long, conflicts_with_all = ["dry_run", "check"])]
    pub stay: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub place: Place,
}

/// Stops the agent and removes programs from devices, qdiscs, maps and files. What is not there is
/// no error: it can be run again.
///
/// # Errors
/// How much could not be removed, after everything else is gone; how much is left, where that is the question.
pub fn run(cleanup: &Cleanup) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if cleanup.dry_run || cleanup.check {
            return look(cleanup).await;
        }
        clean(&cleanup.place).await?;
        if cleanup.stay {
            say("staying until told to stop\n");
            told_to_stop().await?;
        }
        Ok(())
    })
}

async fn look(cleanup: &Cleanup) -> Result<()> {
    let found = find_all(&cleanup.place).await?;
    for leftover in &found {
        say(&format!("would remove {leftover}\n"));
    }
    if cleanup.check && !found.is_empty() {
        bail!("{} left", found.len());
    }
    Ok(())
}

async fn clean(place: &Place) -> Result<()> {
    // Held until the end: no agent may start while things are removed.
    let stopped = stop(&place.run_dir)?;
    if let Some(pid) = stopped.pid {
        say(&format!("stopped the agent (process {pid})\n"));
    }
    let found = find_all(place).await?;
    let failed = remove(&found).await;
    if failed > 0 {
        bail!("{failed} of {} could not be removed", found.len());
    }
    Ok(())
}

async fn find_all(place: &Place) -> Result<Vec<Leftover>> {
    let found = find(&Pins::new(&place.bpffs), &place.run_dir).await?;
    if found.is_empty() {
        say("nothing to remove\n");
    }
    Ok(found)
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
