//! Settings of this thread's network namespace (/proc/sys/net).

mod conntrack;
mod ports;

pub use conntrack::{Conntrack, processors};
pub use ports::Ports;

use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::Read as _;
use std::ops::RangeInclusive;

/// A setting, and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, as sysctl(8) knows it.
    pub name: &'static str,
    /// What it should be.
    pub value: String,
    /// Why it is not.
    pub problem: Option<String>,
}

/// Ports that no socket gets unless it asks for them.
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";
/// Packets that a process of this node sends to a NodePort of this node come back to it from an address
/// of its own.
const ACCEPT_LOCAL: &str = "net.ipv4.conf.lo.accept_local";

/// Reserves ports beside those that are reserved already.
pub fn reserve(ports: &[RangeInclusive<u16>]) -> Setting {
    let ours: Ports = ports.iter().cloned().collect();
    let before = read(RESERVED).and_then(|text| Ok(text.parse::<Ports>()?));
    let (value, outcome) = match before {
        Ok(before) => {
            let value = before.union(&ours).to_string();
            let is_new = value != before.to_string();
            let outcome = is_new.then(|| write(RESERVED, &value));
            (value, outcome.unwrap_or(Ok(())))
        }
        Err(error) => (ours.to_string(), Err(error)),
    };
    Setting::new(RESERVED, value, outcome)
}

/// Lets packets with an address of this node come in by loopback.
pub fn accept_local() -> Setting {
    let value = "1";
    let outcome = match read(ACCEPT_LOCAL) {
        Ok(before) if before.trim() == value => Ok(()),
        Ok(_) => write(ACCEPT_LOCAL, value),
        Err(error) => Err(error),
    };
    Setting::new(ACCEPT_LOCAL, value.to_owned(), outcome)
}

impl Setting {
    fn new(name: &'static str, value: String, outcome: Result<()>) -> Self {
        let problem = outcome.err().map(|error| format!("{error:#}"));
        Self {
            name,
            value,
            problem,
        }
    }

    /// What the operator has to be told, if anything.
    pub fn warning(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        let Self { name, value, .. } = self;
        Some(format!("{name} is not set to {value}: {problem}"))
    }
}

/// All of it has to be read by one call: the kernel returns nothing to a second one.
fn read(name: &str) -> Result<String> {
    const ROOM: usize = 1 << 16;
    let path = path(name);
    let mut text = vec![0; ROOM];
    let length = File::open(&path).and_then(|mut file| file.read(&mut text));
    text.truncate(length.with_context(|| format!("reading {path}"))?);
    Ok(String::from_utf8(text)?)
}

fn write(name: &str, value: &str) -> Result<()> {
    let path = path(name);
    std::fs::write(&path, value).with_context(|| format!("writing {path}"))
}

fn path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}
