//! Real connections through a cluster: servers that say whom they saw, clients that check it.
//!
//! A server answers a connection, or a datagram, with one line `name address:port`: its own name and
//! the source it saw. Then it echoes. Nothing here waits for ever.

mod client;
mod server;

pub use client::{Answer, Conversation, Transfer, tcp_ask, tcp_open, tcp_transfer, udp_ask};
pub use server::Server;

use std::time::Duration;

/// How often a waiting thread looks whether it has to stop.
const TICK: Duration = Duration::from_millis(100);
