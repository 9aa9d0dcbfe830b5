//! What the agent logs, and the switch for it.

use anyhow::{Context as _, Result};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// What they say of failures the agent says itself, in one line.
const QUIET: &str = "kube_client=off,kube_runtime=off";

/// Makes the log take another filter.
pub(super) type SetFilter = Box<dyn Fn(&str) -> Result<()> + Send>;

/// Starts the log, to standard error.
pub(super) fn start(filter: &str) -> Result<SetFilter> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(parse(filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    Ok(Box::new(move |filter| {
        handle
            .reload(parse(filter)?)
            .context("changing what is logged")
    }))
}

fn parse(filter: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(format!("{QUIET},{filter}")).context("--log")
}
