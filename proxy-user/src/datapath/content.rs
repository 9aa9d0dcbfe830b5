//! What decides about packets, read from the maps as they are now.

use super::bpf::Row;
use super::kernel::{Kernel, open, open_map};
use super::pins::Pins;
use super::sweep::now;
use super::{Datapath as _, Dump};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap as Rows};
use proxy_common::{ABI_VERSION, Affinity, AffinityKey, Device, NodeConfig, Ticks};
use std::collections::HashMap;

const AFFINITIES: &str = "AFFINITIES";

/// What was read of the maps.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// The maps that the agent writes.
    pub dump: Dump,
    /// The row of `CONFIG`; `None`: there is none yet.
    pub config: Option<NodeConfig>,
    /// Rows of `DEVICES`, by index.
    pub devices: HashMap<u32, Device>,
    /// Rows of `AFFINITIES`.
    pub affinities: HashMap<AffinityKey, Affinity>,
    /// The time when they were read.
    pub now: Ticks,
}

impl Content {
    /// Reads the pinned maps.
    ///
    /// # Errors
    /// They are not there, can't be read, or are those of another version.
    pub fn read(pins: &Pins) -> Result<Self> {
        let config = config(pins)?;
        let dump = Kernel::open(pins)?.dump().context("reading the maps")?;
        let devices: Rows<_, u32, Row<Device>> = open(pins, "DEVICES")?;
        let devices = devices
            .iter()
            .map(|row| row.map(|(index, row)| (index, row.0)));
        Ok(Self {
            dump,
            config,
            devices: devices
                .collect::<Result<_, _>>()
                .context("reading DEVICES")?,
            affinities: affinities(pins)?,
            now: now()?,
        })
    }
}

/// A row that goes away under the walk starts it again, so it has to be bounded.
fn affinities(pins: &Pins) -> Result<HashMap<AffinityKey, Affinity>> {
    let map: Rows<_, Row<AffinityKey>, Row<Affinity>> = open(pins, AFFINITIES)?;
    let capacity = open_map(pins, AFFINITIES)?.info()?.max_entries();
    let rows = map.iter().map_while(Result::ok).take(capacity as usize);
    Ok(rows.map(|(key, row)| (key.0, row.0)).collect())
}

fn config(pins: &Pins) -> Result<Option<NodeConfig>> {
    let map: Array<_, Row<NodeConfig>> = open(pins, "CONFIG")?;
    let Row(config) = map.get(&0, 0).context("reading CONFIG")?;
    let version = config.abi_version;
    ensure!(
        version == 0 || version == ABI_VERSION,
        "the maps are those of another version of Ferrule: {version}, not {ABI_VERSION}"
    );
    Ok((version != 0).then_some(config))
}
