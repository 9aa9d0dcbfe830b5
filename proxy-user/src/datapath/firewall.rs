//! Firewalls that drop what the node forwards unless a rule accepts it, as far as they can be read.
//!
//! Translated packets pass them as client -> pod, not as client -> service, so an operator who let a
//! Service in may have let in nothing.

mod nftables;

pub use nftables::{Chain, Family, Name};

use anyhow::{Context as _, Result};
use nftables::{Reply, chains, last_rule_refuses, names};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use serde::Serialize;
use std::io::{self, ErrorKind};

/// What the firewalls of this network namespace do to forwarded packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Forwarding {
    /// Chains that drop what they have no rule for.
    pub obstacles: Vec<Obstacle>,
    /// What may be there, and could not be read.
    pub unread: Vec<String>,
}

/// A chain of nftables that drops what it has no rule for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// What does it.
    pub by: Refusal,
}

/// What drops packets that no rule accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The policy of the chain.
    Policy,
    /// Its last rule, which is for all packets.
    LastRule,
}

/// Looks at the firewalls.
pub fn forwarding() -> Forwarding {
    let mut found = Forwarding::default();
    match obstacles() {
        Ok(obstacles) => found.obstacles = obstacles,
        Err(error) => found.unread.push(format!("nftables: {error:#}")),
    }
    found
        .unread
        .extend(["ip", "ip6"].into_iter().filter_map(legacy));
    found
}

/// The names of all chains of nftables, also of those that no hook leads to.
///
/// # Errors
/// They can't be listed.
pub fn named_chains() -> Result<Vec<Name>> {
    let datagrams = ask(&nftables::ask_chains()).context("listing chains")?;
    Ok(datagrams.iter().flat_map(|it| names(it)).collect())
}

fn obstacles() -> Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    for chain in ask(&nftables::ask_chains()).context("listing chains")? {
        let forwards = chains(&chain).filter(|chain| chain.forwards);
        for chain in forwards {
            if let Some(by) = refusal(&chain)? {
                found.push(Obstacle {
                    family: chain.family,
                    table: chain.table,
                    chain: chain.name,
                    by,
                });
            }
        }
    }
    Ok(found)
}

fn refusal(chain: &Chain) -> Result<Option<Refusal>> {
    if chain.drops {
        return Ok(Some(Refusal::Policy));
    }
    let rules = ask(&nftables::ask_rules(chain)).context("listing rules")?;
    Ok(last_rule_refuses(&rules).then_some(Refusal::LastRule))
}

/// Sends a request for a list; returns the datagrams of the answer. A kernel without nftables has nothing
/// to list.
fn ask(request: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut socket = match Socket::new(NETLINK_NETFILTER) {
        Ok(socket) => socket,
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    socket.bind_auto()?;
    socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
    let mut datagrams = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        match nftables::end(&datagram) {
            Reply::More => datagrams.push(datagram),
            Reply::End => {
                datagrams.push(datagram);
                return Ok(datagrams);
            }
            // No such subsystem; no such chain any more.
            Reply::Error(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT) => return Ok(Vec::new()),
            Reply::Error(code) => return Err(io::Error::from_raw_os_error(code)),
            Reply::Broken => return Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// Tables of the old iptables can't be listed without its own system calls.
fn legacy(family: &str) -> Option<String> {
    let names = std::fs::read_to_string(format!("/proc/net/{family}_tables_names")).ok()?;
    let has_filter = names.lines().any(|name| name == "filter");
    has_filter.then(|| {
        format!("{family}tables-legacy has a table filter: see {family}tables-legacy -S FORWARD")
    })
}
