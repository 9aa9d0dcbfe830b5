//! How API servers are reached: where they are, as whom, and which of several.

use super::pulse::Pulse;
use super::servers::Servers;
use crate::source::Kind;
use anyhow::{Context as _, Result, anyhow, bail};
use http::Uri;
use http::uri::Authority;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the operator says of the API servers.
#[derive(Clone, Debug, Default)]
pub struct ApiSettings {
    /// Server, certificates and credentials; the pod's service account if not given.
    pub kubeconfig: Option<PathBuf>,
    /// The server, instead of the one that belongs to the credentials.
    pub master: Option<Uri>,
    /// What is dialled instead of the server's host; certificates are still expected to be that host's.
    pub api_servers: Vec<Authority>,
}

/// A way to the API servers.
#[derive(Clone, Debug)]
pub struct Connection {
    settings: Arc<ApiSettings>,
    /// Which of the servers answers, as far as is known.
    current: Arc<AtomicUsize>,
    /// Which kinds have told that they reach none, a bit each.
    missed_by: Arc<AtomicU32>,
    /// The server's URL, as read last.
    url: Uri,
}

impl Connection {
    /// Reads the settings once. Nobody is asked yet.
    ///
    /// # Errors
    /// The kubeconfig or the service account can't be read; names the file.
    pub async fn open(settings: ApiSettings, node_name: &str) -> Result<Self> {
        let url = config(&settings).await?.cluster_url;
        // Not all nodes ask the same server.
        let mut hasher = DefaultHasher::new();
        node_name.hash(&mut hasher);
        Ok(Self {
            settings: Arc::new(settings),
            current: Arc::new(AtomicUsize::new(hasher.finish() as usize)),
            missed_by: Arc::default(),
            url,
        })
    }

    /// Of several servers the next is to be asked from now on.
    pub(super) fn leave(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes whether a kind misses the servers; returns whether any does.
    pub(super) fn set_missed(&self, kind: Kind, is_missed: bool) -> bool {
        let bit = 1 << kind as u32;
        let all = match is_missed {
            true => self.missed_by.fetch_or(bit, Ordering::Relaxed) | bit,
            false => self.missed_by.fetch_and(!bit, Ordering::Relaxed) & !bit,
        };
        all != 0
    }

    /// What to say when no server is reached.
    pub(super) fn hint(&self) -> &'static str {
        let own = &self.settings.api_servers;
        if own.is_empty() && self.settings.kubeconfig.is_none() && self.settings.master.is_none() {
            "; this is the address of the Service kubernetes, which nobody may serve on this node: give the API \
             servers' own addresses with --api-servers (FERRULE_API_SERVERS)"
        } else {
            ""
        }
    }

    /// A client with the credentials as they are now, whose answers are noted.
    ///
    /// # Errors
    /// The settings can't be read any more.
    pub(super) async fn client(&self, pulse: &Arc<Pulse>) -> Result<Client> {
        let clients = self.clients().await?;
        let current = Arc::clone(&self.current);
        let servers = Arc::new(Servers::new(clients, current, Arc::clone(pulse)));
        let service = tower::service_fn(move |request| {
            let servers = Arc::clone(&servers);
            async move { servers.send(request).await }
        });
        Ok(ClientBuilder::new(service, "default").build())
    }

    /// One for each server.
    async fn clients(&self) -> Result<Vec<Client>> {
        let config = config(&self.settings).await?;
        let mut configs = vec![config.clone()];
        if !self.settings.api_servers.is_empty() {
            let servers = self.settings.api_servers.iter();
            configs = servers
                .map(|server| at(&config, server))
                .collect::<Result<_>>()?;
        }
        let clients = configs.into_iter().map(Client::try_from);
        clients
            .collect::<kube::Result<_>>()
            .with_context(|| format!("{self}"))
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = &self.settings.api_servers;
        let url = self.url.to_string();
        write!(f, "API server {}", url.trim_end_matches('/'))?;
        if servers.is_empty() {
            return Ok(());
        }
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        write!(f, " at {}", servers.join(", "))
    }
}

async fn config(settings: &ApiSettings) -> Result<Config> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let context = || format!("kubeconfig {}", path.display());
            // They say what is at the bottom of it themselves.
            let flat = |error: KubeconfigError| anyhow!("{error}");
            let kubeconfig = Kubeconfig::read_from(path)
                .map_err(flat)
                .with_context(context)?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options);
            config.await.map_err(flat).with_context(context)?
        }
        None => of_service_account(settings)?,
    };
    if let Some(master) = &settings.master {
        config.cluster_url = master.clone();
    }
    config.cluster_url = whole(config.cluster_url)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Whoever follows a kind waits as long as it takes.
    config.default_retry = false;
    Ok(config)
}

/// A URL without a scheme is one of https, as for Kubernetes' own clients.
fn whole(url: Uri) -> Result<Uri> {
    let wrong = || format!("'{url}' is not the URL of an API server");
    match (url.scheme(), url.authority()) {
        (Some(_), Some(_)) => Ok(url),
        (None, Some(authority)) => format!("https://{authority}").parse().with_context(wrong),
        _ => bail!(wrong()),
    }
}

/// The pod's, or nobody's if there is none and another server was named.
fn of_service_account(settings: &ApiSettings) -> Result<Config> {
    let own = Config::incluster().or_else(|error| match settings.api_servers.is_empty() {
        true => Err(error),
        // The variables are missing; whom to ask is known all the same.
        false => Config::incluster_dns(),
    });
    match (own, &settings.master) {
        (Err(_), Some(master)) => Ok(Config::new(master.clone())),
        (own, _) => own.map_err(|error| anyhow!("{error}")).context(
            "there is no service account of a pod to reach the API server with: give --kubeconfig FILE, or \
             --manifests DIR",
        ),
    }
}

/// The same, but dialled elsewhere.
fn at(config: &Config, server: &Authority) -> Result<Config> {
    let mut config = config.clone();
    let host = config.cluster_url.host().map(str::to_owned);
    let host = host.map(|host| host.trim_matches(['[', ']']).to_owned());
    config.tls_server_name = config.tls_server_name.or(host);
    let mut parts = config.cluster_url.into_parts();
    parts.authority = Some(server.clone());
    config.cluster_url = Uri::from_parts(parts).with_context(|| format!("API server {server}"))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_address_is_dialled_but_the_certificate_is_the_hosts() {
        let mut config = Config::new("https://10.96.0.1/prefix".parse().unwrap());
        let there = at(&config, &"[fd00::1]:6443".parse().unwrap()).unwrap();
        assert_eq!(there.cluster_url, "https://[fd00::1]:6443/prefix");
        assert_eq!(there.tls_server_name.as_deref(), Some("10.96.0.1"));
        config.tls_server_name = Some("kubernetes".into());
        let there = at(&config, &"192.0.2.1:443".parse().unwrap()).unwrap();
        assert_eq!(there.tls_server_name.as_deref(), Some("kubernetes"));
    }
}
