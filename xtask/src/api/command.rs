//! The hidden command that serves the API in a process of its own: it outlives a demo that stays up.

use super::{ApiServer, Options};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;

/// Flags of the hidden command.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The kubeconfig to write once objects can be read.
    pub kubeconfig: PathBuf,
    /// A file with objects to begin with: a JSON array.
    #[arg(long, value_name = "FILE")]
    pub objects: Option<PathBuf>,
    /// Addresses by which clients reach the server, the one of its URL first.
    #[arg(long = "address", value_name = "IP")]
    pub addresses: Vec<IpAddr>,
}

/// Serves until it is killed.
///
/// # Errors
/// When the address can't be had, an object can't be used or the kubeconfig can't be written.
pub fn serve(options: &Serve) -> Result<()> {
    let listener = TcpListener::bind(options.listen)
        .with_context(|| format!("can't listen on {}", options.listen))?;
    let server = ApiServer::start(
        listener,
        Options {
            addresses: options.addresses.clone(),
            ..Options::default()
        },
    )?;
    if let Some(path) = &options.objects {
        let text = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        let objects: Vec<Value> = serde_json::from_slice(&text)?;
        server.apply_all(objects)?;
    }
    server.write_kubeconfig(&options.kubeconfig)?;
    loop {
        thread::park();
    }
}
