//! Settings of netfilter's conntrack, which goes on to track what Ferrule translates, and everything else.

use super::{Setting, path, read, write};
use std::os::unix::fs::PermissionsExt as _;

const MAX: &str = "net.netfilter.nf_conntrack_max";
/// The same number as the module's parameter `hashsize`.
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
const TCP_ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";
const TCP_CLOSE_WAIT: &str = "net.netfilter.nf_conntrack_tcp_timeout_close_wait";
const TCP_BE_LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";
const UDP: &str = "net.netfilter.nf_conntrack_udp_timeout";
const UDP_STREAM: &str = "net.netfilter.nf_conntrack_udp_timeout_stream";

/// kube-proxy's measure: lists of four connections on average in a table that is full.
const CONNECTIONS_PER_BUCKET: u32 = 4;

/// What is asked of netfilter; `None` leaves a setting as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// Connections that are tracked at most.
    pub max: Option<u32>,
    /// Seconds that an open TCP connection lasts without a packet.
    pub tcp_established: Option<u32>,
    /// Seconds for one that one side has closed.
    pub tcp_close_wait: Option<u32>,
    /// Whether packets outside of a TCP connection's window still belong to it.
    pub tcp_be_liberal: bool,
    /// Seconds for UDP flows that were not answered.
    pub udp: Option<u32>,
    /// Seconds for those that were.
    pub udp_stream: Option<u32>,
}

impl Conntrack {
    /// Names, as sysctl(8) knows them, and values.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let settings = [
            (MAX, self.max),
            (TCP_ESTABLISHED, self.tcp_established),
            (TCP_CLOSE_WAIT, self.tcp_close_wait),
            (TCP_BE_LIBERAL, self.tcp_be_liberal.then_some(1)),
            (UDP, self.udp),
            (UDP_STREAM, self.udp_stream),
        ];
        let settings = settings.into_iter();
        settings.filter_map(|(name, value)| Some((name, value?)))
    }

    /// Makes the settings where conntrack is there (nobody is made to load it) and they are this network
    /// namespace's own: some are the first one's, and read-only everywhere else.
    pub fn make(&self) -> Vec<Setting> {
        let exact = self.settings();
        let exact = exact.filter_map(|(name, value)| make(name, value, |before| before == value));
        let buckets = self.max.map(|max| max / CONNECTIONS_PER_BUCKET);
        let buckets = buckets.and_then(|least| make(BUCKETS, least, |before| before >= least));
        exact.chain(buckets).collect()
    }
}

/// Writes a value, if that which is there will not do.
fn make(name: &'static str, value: u32, will_do: impl Fn(u32) -> bool) -> Option<Setting> {
    let mode = std::fs::metadata(path(name)).ok()?.permissions().mode();
    let is_ours = mode & 0o222 != 0;
    let outcome = || match read(name)?.trim().parse() {
        Ok(before) if will_do(before) => Ok(()),
        _ => write(name, &value.to_string()),
    };
    is_ours.then(|| Setting::new(name, value.to_string(), outcome()))
}

/// Processors that are online, by which kube-proxy measures tables: those of the machine, whatever this process
/// may use of them.
pub fn processors() -> usize {
    aya::util::online_cpus().map_or(1, |online| online.len().max(1))
}
