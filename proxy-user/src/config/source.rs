//! Flags that say where objects come from.

use clap::Args;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where objects come from: a folder, or the API server.
#[derive(Clone, Debug, Args)]
pub struct SourceFlags {
    /// Folder with Service, EndpointSlice, Node and Pod objects as YAML or JSON, instead of an API server; it is
    /// watched.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "master", "api_servers"])]
    pub manifests: Option<PathBuf>,
    /// How to reach the API server, and as whom; the service account of the pod if not given.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server, instead of the one in the kubeconfig or of the service account.
    #[arg(long, value_name = "URL")]
    pub master: Option<http::Uri>,
    /// The API servers' own addresses. Without kube-proxy, an agent that runs as a pod needs them at its first start:
    /// KUBERNETES_SERVICE_HOST is a Service's address, which is served on the node only when the agent has been told
    /// of it.
    #[arg(
        long,
        value_name = "HOST[:PORT],..",
        value_delimiter = ',',
        env = "FERRULE_API_SERVERS"
    )]
    pub api_servers: Vec<ApiServer>,
    /// A watch that brings nothing for so long, not even a bookmark, is made anew.
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = silence)]
    pub watch_silence: Duration,
}

/// Host and port of an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer(http::uri::Authority);

/// The port where none is given: that of kubeadm and most others.
const DEFAULT_PORT: u16 = 6443;

impl ApiServer {
    /// `host:port`, as a URL has it.
    pub fn authority(&self) -> &http::uri::Authority {
        &self.0
    }
}

impl fmt::Display for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ApiServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let wrong = |why: &str| format!("'{text}' is not an API server's HOST[:PORT]: {why}");
        if text.contains("://") || text.contains(['/', '@']) {
            return Err(wrong("a URL is given with --master"));
        }
        // An IPv6 address may stand without its brackets.
        let host = match text.parse::<std::net::Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => text.to_owned(),
        };
        let parsed: http::uri::Authority =
            host.parse().map_err(|error| wrong(&format!("{error}")))?;
        match (parsed.port_u16(), parsed.host().is_empty()) {
            (_, true) => Err(wrong("no host")),
            (Some(0), _) => Err(wrong("port 0")),
            (Some(_), _) => Ok(Self(parsed)),
            (None, _) if has_port(&host) => Err(wrong("no such port")),
            (None, _) => format!("{host}:{DEFAULT_PORT}")
                .parse()
                .map(Self)
                .map_err(|error| wrong(&format!("{error}"))),
        }
    }
}

fn has_port(authority: &str) -> bool {
    let after_address = authority.rsplit(']').next();
    after_address.is_some_and(|rest| rest.contains(':'))
}

/// Bookmarks come once in a minute.
fn silence(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if parsed < Duration::from_secs(1) {
        return Err("less than a second".to_owned());
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_servers_are_hosts_with_ports() {
        let read = |text: &str| text.parse::<ApiServer>().map(|it| it.to_string());
        assert_eq!(read("192.0.2.1").unwrap(), "192.0.2.1:6443");
        assert_eq!(read(" 192.0.2.1:443").unwrap(), "192.0.2.1:443");
        assert_eq!(read("fd00::1").unwrap(), "[fd00::1]:6443");
        assert_eq!(read("[fd00::1]:443").unwrap(), "[fd00::1]:443");
        assert_eq!(read("[fd00::1]").unwrap(), "[fd00::1]:6443");
        assert_eq!(read("api.example").unwrap(), "api.example:6443");
        for wrong in [
            "",
            "https://192.0.2.1",
            "192.0.2.1:0",
            "192.0.2.1:x",
            "192.0.2.1:70000",
            "a b",
            "REPLACE/ME",
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(&format!("'{wrong}'")), "{error}");
        }
    }
}
