//! How a test server is to be.

use std::net::IpAddr;
use std::time::Duration;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether connections are encrypted, as those of a real server are.
    pub tls: bool,
    /// The bearer token that clients need; `None` lets everybody in.
    pub token: Option<String>,
    /// Whether watches may ask for `sendInitialEvents` (on by default since Kubernetes 1.34).
    pub streaming_lists: bool,
    /// The time between two bookmarks of a watch; a real server takes about a minute.
    pub bookmark_interval: Duration,
    /// How long a watch lasts that does not say it; a real server takes 30 to 60 minutes.
    pub watch_timeout: Duration,
    /// Changes that are kept for each kind: who resumes before them gets 410.
    pub history: usize,
    /// Whether objects get `metadata.managedFields` as several owners leave them.
    pub managed_fields: bool,
    /// Addresses by which clients reach the server; the first one is in its URL. With none it is the
    /// listener's address.
    pub addresses: Vec<IpAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: true,
            token: Some("test-token".to_owned()),
            streaming_lists: true,
            bookmark_interval: Duration::from_secs(60),
            watch_timeout: Duration::from_secs(45 * 60),
            history: 100_000,
            managed_fields: false,
            addresses: Vec::new(),
        }
    }
}

impl Options {
    /// Neither encryption nor token: what is left is easy to read in a trace.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            tls: false,
            token: None,
            ..Self::default()
        }
    }
}
