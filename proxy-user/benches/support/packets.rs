//! The packets that are measured.

use super::lab::Lab;
use super::services::{FIRST_V4, FIRST_V6, PORT};
use anyhow::{Result, ensure};
use proxy_ebpf::testing::tcp;
use proxy_user::datapath::hook::Hook;
use std::net::{IpAddr, SocketAddr};

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

impl Family {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// As it is printed.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Of two things for the two families, this one's.
    pub(crate) const fn of<T: Copy>(self, both: [T; 2]) -> T {
        both[self as usize]
    }

    /// The first packet of a connection to the first service. The low 14 bits of the client's
    /// address are 0.
    pub(crate) fn syn(self, port: u16) -> Vec<u8> {
        tcp(&self.client(port), &self.frontend()).syn().build()
    }

    /// A packet that is none of ours.
    pub(crate) fn foreign(self) -> Vec<u8> {
        let to = self.of(["10.244.2.7:443", "[fd00:10:244:2::7]:443"]);
        tcp(&self.client(5000), to).build()
    }

    fn client(self, port: u16) -> String {
        let address = self.of(["10.244.64.0", "[fd00:10:244:1::]"]);
        format!("{address}:{port}")
    }

    fn frontend(self) -> String {
        let address: IpAddr = self.of([IpAddr::V4(FIRST_V4), IpAddr::V6(FIRST_V6)]);
        SocketAddr::new(address, PORT).to_string()
    }

    /// Source and destination of the packet's TCP.
    fn sockets(self, packet: &[u8]) -> [String; 2] {
        let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        match self {
            Self::V4 => [(26, 34), (30, 36)].map(|(at, port_at)| {
                let bytes: [u8; 4] = std::array::from_fn(|index| packet[at + index]);
                SocketAddr::new(bytes.into(), port(port_at)).to_string()
            }),
            Self::V6 => [(22, 54), (38, 56)].map(|(at, port_at)| {
                let bytes: [u8; 16] = std::array::from_fn(|index| packet[at + index]);
                SocketAddr::new(bytes.into(), port(port_at)).to_string()
            }),
        }
    }
}

/// The packets of a connection that is established.
pub(crate) struct Connection {
    /// From the client, as it meets ingress.
    pub(crate) forward: Vec<u8>,
    /// From the backend, as it meets egress.
    pub(crate) reply: Vec<u8>,
}

impl Connection {
    /// Opens a connection from a client's port that has none, and confirms it.
    pub(crate) fn open(lab: &mut Lab, family: Family, port: u16) -> Result<Self> {
        let translated = lab.pass(Hook::Ingress, &family.syn(port))?;
        let [client, backend] = family.sockets(&translated);
        ensure!(
            client == family.client(port) && backend != family.frontend(),
            "a first packet became {client} to {backend}"
        );
        let connection = Self {
            forward: tcp(&client, &family.frontend()).build(),
            reply: tcp(&backend, &client).build(),
        };
        lab.pass(Hook::Egress, &tcp(&backend, &client).syn_ack().build())?;
        lab.pass(Hook::Ingress, &connection.forward)?;
        Ok(connection)
    }
}
