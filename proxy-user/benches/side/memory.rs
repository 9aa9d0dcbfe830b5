//! Memory of maps.

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use proxy_user::datapath::pins::{PINNED_MAPS, Pins};
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

/// Bytes of all pinned maps, as the kernel counts them.
pub(crate) fn of_maps(pins: &Pins) -> Result<u64> {
    PINNED_MAPS
        .iter()
        .map(|name| of_map(pins, name).with_context(|| format!("memory of {name}")))
        .sum()
}

fn of_map(pins: &Pins, name: &str) -> Result<u64> {
    let map = MapData::from_pin(pins.map(name))?;
    let file = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(file)?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(bytes.context("the kernel does not tell")?.trim().parse()?)
}
