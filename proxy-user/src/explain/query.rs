//! A packet that somebody asks about.

use crate::frontend::{IpFamily, Protocol};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its source; port 0 if that was not said.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// The device that it comes in by, if that was said.
    pub device: Option<String>,
}

/// Which part of a query makes no sense, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAQuery {
    /// The line as a whole.
    #[error("not a query: {0}")]
    Line(String),
    /// The source.
    #[error("from: '{0}' is neither ADDR nor ADDR:PORT")]
    From(String),
    /// The destination.
    #[error("to: '{0}' is not ADDR:PORT (IPv6 in brackets)")]
    To(String),
    /// The protocol.
    #[error("proto: '{0}' is neither tcp, udp nor sctp")]
    Protocol(String),
    /// Source and destination.
    #[error("from: {0} is {from}, but to: {1} is {to}", from = IpFamily::of(*.0).name(), to = IpFamily::of(*.1).name())]
    Families(IpAddr, IpAddr),
}

/// A query as it is written: in a line of JSON, or in flags.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    from: String,
    to: String,
    #[serde(default)]
    proto: Option<String>,
    #[serde(default)]
    iif: Option<String>,
}

impl Query {
    /// From the texts of flags; the protocol is TCP if it was not said.
    ///
    /// # Errors
    /// One of them makes no sense, or they don't go together.
    pub fn new(
        from: &str,
        to: &str,
        protocol: Option<&str>,
        device: Option<&str>,
    ) -> Result<Self, NotAQuery> {
        let query = Self {
            from: source(from)?,
            to: destination(to)?,
            protocol: named(protocol.unwrap_or("tcp"))?,
            device: device.filter(|it| !it.is_empty()).map(str::to_owned),
        };
        let (from, to) = (query.from.ip(), query.to.ip());
        if IpFamily::of(from) == IpFamily::of(to) {
            Ok(query)
        } else {
            Err(NotAQuery::Families(from, to))
        }
    }

    /// From a line of JSON: `{"from": "10.0.0.2", "to": "10.96.0.10:53", "proto": "udp", "iif": "eth0"}`.
    ///
    /// # Errors
    /// As for [`Query::new`].
    pub fn from_json(line: &[u8]) -> Result<Self, NotAQuery> {
        let written: Written =
            serde_json::from_slice(line).map_err(|error| NotAQuery::Line(error.to_string()))?;
        let (protocol, device) = (written.proto.as_deref(), written.iif.as_deref());
        Self::new(&written.from, &written.to, protocol, device)
    }
}

fn source(text: &str) -> Result<SocketAddr, NotAQuery> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    let source = address.map(|address| SocketAddr::new(address, 0));
    let source = source.or_else(|_| text.parse());
    source
        .map(canonical)
        .map_err(|_| NotAQuery::From(text.to_owned()))
}

fn destination(text: &str) -> Result<SocketAddr, NotAQuery> {
    let text = text.trim();
    text.parse()
        .map(canonical)
        .map_err(|_| NotAQuery::To(text.to_owned()))
}

/// An address of IPv4 that is mapped into IPv6 is one of IPv4: that is what sockets send.
fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

fn named(text: &str) -> Result<Protocol, NotAQuery> {
    let mut all = Protocol::ALL.into_iter();
    let found = all.find(|it| it.name().eq_ignore_ascii_case(text.trim()));
    found.ok_or_else(|| NotAQuery::Protocol(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(line: &str) -> Result<Query, String> {
        Query::from_json(line.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn port_protocol_and_device_need_not_be_said() {
        let short = query(r#"{"from": "10.0.0.2", "to": "10.96.0.10:53"}"#).unwrap();
        assert_eq!(short.from, "10.0.0.2:0".parse().unwrap());
        assert_eq!((short.protocol, short.device), (Protocol::Tcp, None));
        let long =
            r#"{"from": "[fd00::2]:7", "to": "[fd00::a]:53", "proto": "UDP", "iif": "eth0"}"#;
        let long = query(long).unwrap();
        assert_eq!(long.from, "[fd00::2]:7".parse().unwrap());
        assert_eq!(
            (long.protocol, long.device),
            (Protocol::Udp, Some("eth0".to_owned()))
        );
        for from in ["fd00::2", "[fd00::2]"] {
            let query = Query::new(from, "[fd00::a]:53", None, None).unwrap();
            assert_eq!(query.from, "[fd00::2]:0".parse().unwrap());
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let error = |line| query(line).unwrap_err();
        let wrong = error(r#"{"from": "10.0.0", "to": "10.96.0.10:53"}"#);
        assert_eq!(wrong, "from: '10.0.0' is neither ADDR nor ADDR:PORT");
        assert!(error(r#"{"from": "10.0.0.1", "to": "10.96.0.10"}"#).starts_with("to: "));
        assert!(error(r#"{"from": "fd00::2", "to": "fd00::a:53"}"#).contains("brackets"));
        let wrong = error(r#"{"from": "10.0.0.1", "to": "10.96.0.10:53", "proto": "icmp"}"#);
        assert!(wrong.starts_with("proto: 'icmp'"));
        let wrong = error(r#"{"from": "10.0.0.1", "to": "[fd00::a]:53"}"#);
        assert_eq!(wrong, "from: 10.0.0.1 is IPv4, but to: fd00::a is IPv6");
        let wrong = error(r#"{"from": "10.0.0.1", "to": "10.96.0.10:53", "prot": "udp"}"#);
        assert!(wrong.contains("unknown field `prot`"));
        assert!(error("").starts_with("not a query: "));
    }
}
