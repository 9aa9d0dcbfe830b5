//! Where the agent's objects come from.

use crate::config::{ApiServer, SourceFlags};
use crate::source::kube::{ApiSettings, ApiSource, Connection, Watch};
use crate::source::manifests::Manifests;
use crate::source::{Delivery, Notices};
use anyhow::{Context as _, Result};
use std::path::Path;
use std::pin::Pin;
use tokio::sync::mpsc;

/// A source at work.
pub(super) struct Following {
    /// What it is, for people.
    pub(super) origin: String,
    pub(super) events: mpsc::Receiver<Delivery>,
    /// Of the API server; a folder has none.
    pub(super) watches: Vec<Watch>,
    /// Where Events go; a folder takes none.
    pub(super) notices: Notices,
    /// Has to be polled; ends when the source does.
    pub(super) until: Pin<Box<dyn Future<Output = Result<()>>>>,
}

/// Batches that wait for the loop.
const BATCHES: usize = 32;

/// Begins to follow what the flags name.
pub(super) async fn follow(flags: &SourceFlags, node_name: &str) -> Result<Following> {
    match &flags.manifests {
        Some(folder) => follow_manifests(folder),
        None => follow_api(flags, node_name).await,
    }
}

/// It blocks, so it gets a thread of its own.
fn follow_manifests(folder: &Path) -> Result<Following> {
    let (events_in, events) = mpsc::channel(BATCHES);
    let manifests = Manifests::new(folder);
    std::thread::Builder::new()
        .name("manifests".into())
        .spawn(move || manifests.run(&events_in))
        .context("starting the manifests thread")?;
    Ok(Following {
        origin: folder.display().to_string(),
        events,
        watches: Vec::new(),
        notices: Notices::default(),
        // The loop ends when the thread does.
        until: Box::pin(std::future::pending()),
    })
}

async fn follow_api(flags: &SourceFlags, node_name: &str) -> Result<Following> {
    let (events_in, events) = mpsc::channel(BATCHES);
    let servers = flags.api_servers.iter().map(ApiServer::authority);
    let settings = ApiSettings {
        kubeconfig: flags.kubeconfig.clone(),
        master: flags.master.clone(),
        api_servers: servers.cloned().collect(),
    };
    let connection = Connection::open(settings, node_name).await?;
    let origin = connection.to_string();
    let (notices, waiting) = Notices::channel();
    let source = ApiSource::new(connection, node_name, flags.watch_silence);
    Ok(Following {
        origin,
        events,
        watches: source.watches(),
        notices,
        until: Box::pin(source.run(events_in, waiting)),
    })
}
