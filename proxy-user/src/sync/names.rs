//! What kube-proxy calls what is dialled: `namespace/name:port`.

use super::Sync;
use crate::frontend::{Protocol, ServicePort, service_ports};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// What is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Address, port and protocol.
    Port(SocketAddr, Protocol),
    /// Any port of an address that belongs to a Service.
    Address(IpAddr),
}

/// The text is neither `ADDR:PORT/PROTOCOL` nor an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is nothing that can be dialled")]
pub struct NotAPlace(String);

impl<D> Sync<D> {
    /// The name of the service port that is dialled there, of an address that of its Service.
    pub fn name_at(&self, at: &At) -> Option<String> {
        let (at, protocol) = match *at {
            At::Port(at, protocol) => (at, Some(protocol)),
            At::Address(address) => (SocketAddr::new(address, 0), None),
        };
        let name = self.ids.holder((at.ip(), at.port(), protocol))?;
        let Some(protocol) = protocol else {
            return Some(name.to_string());
        };
        let view = self.cluster.view(name)?;
        let ports = service_ports(&view, &self.node);
        let is_there = |port: &&ServicePort| {
            let mut frontends = port.frontends.iter();
            frontends.any(|it| (it.address, it.port, it.protocol) == (at.ip(), at.port(), protocol))
        };
        let port = ports.iter().find(is_there)?;
        Some(match port.name.as_str() {
            "" => name.to_string(),
            port => format!("{name}:{port}"),
        })
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(at, protocol) => write!(f, "{at}/{}", protocol.name()),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for At {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let error = || NotAPlace(text.to_owned());
        let Some((at, protocol)) = text.split_once('/') else {
            return text.parse().map(Self::Address).map_err(|_| error());
        };
        let protocol = Protocol::ALL.into_iter().find(|it| it.name() == protocol);
        let at = at.parse().map_err(|_| error())?;
        Ok(Self::Port(at, protocol.ok_or_else(error)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dialled_can_be_written_and_read() {
        for text in [
            "10.96.0.10:53/UDP",
            "[fd00:10:96::a]:80/TCP",
            "192.0.2.1:9/SCTP",
            "10.96.0.10",
            "fd00:10:96::a",
        ] {
            assert_eq!(text.parse::<At>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "10.96.0.10:53",
            "10.96.0.10/UDP",
            "10.96.0.10:53/udp",
            "a:1/TCP",
        ] {
            assert!(wrong.parse::<At>().is_err(), "{wrong}");
        }
    }
}
