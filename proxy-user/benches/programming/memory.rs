//! What is taken of the machine's memory.

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use proxy_user::datapath::pins::{PINNED_MAPS, Pins};
use std::os::fd::{AsFd as _, AsRawFd as _};

const MIB: f64 = 1024.0 * 1024.0;

/// MiB of one map, as the kernel counts it.
pub(crate) fn of_map(pins: &Pins, name: &str) -> Result<f64> {
    let map = MapData::from_pin(pins.map(name))?;
    let number = map.fd().as_fd().as_raw_fd();
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    Ok(field(&text, "memlock:")? / MIB)
}

/// MiB of all maps that are pinned.
pub(crate) fn of_maps(pins: &Pins) -> Result<f64> {
    PINNED_MAPS.iter().map(|name| of_map(pins, name)).sum()
}

/// MiB of this process: its own, and of files and maps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    /// Belongs to nobody else.
    pub(crate) anonymous: f64,
    /// Files, and maps whose memory it shares with the kernel.
    pub(crate) file: f64,
}

/// What this process has in memory.
pub(crate) fn resident() -> Result<Resident> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let mib = |name| Ok::<_, anyhow::Error>(field(&text, name)? / 1024.0);
    Ok(Resident {
        anonymous: mib("RssAnon:")?,
        file: mib("RssFile:")?,
    })
}

fn field(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .with_context(|| format!("no {name}"))?
        .parse()
        .with_context(|| name.to_owned())
}
