//! Maps that are pinned: which of them this object can use, and how many rows they have.

use super::{Options, parse};
use crate::datapath::bpf::Row;
use crate::datapath::pins::{PINNED_MAPS, Pins};
use anyhow::{Context as _, Result, anyhow};
use aya::maps::{Array, MapData, MapError, MapInfo};
use proxy_common::{ABI_VERSION, NodeConfig};
use std::collections::BTreeSet;
use tracing::{info, warn};

/// How many rows maps have, where that is not fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows in each of the two maps of confirmed flows; half as many are half open.
    pub max_flows: u32,
    /// Rows in each of the two maps of backends; the first is never used.
    pub max_backends: u32,
    /// Rows of the map of affinities, of both families.
    pub max_affinities: u32,
}

impl Sizes {
    /// Room for what kube-proxy lets netfilter track at least, in both families together, for 262,143 backends of
    /// each, and for all maps in 100 MB.
    pub const DEFAULT: Self = Self {
        max_flows: 131_072,
        max_backends: 262_144,
        max_affinities: 65_536,
    };

    /// Rows of a map, if they are among these.
    pub(super) fn rows(self, name: &str) -> Option<u32> {
        match name {
            "FLOWS_V4" | "FLOWS_V6" => Some(self.max_flows),
            "HALF_OPEN_V4" | "HALF_OPEN_V6" => Some((self.max_flows / 2).max(FEWEST_HALF_OPEN)),
            "BACKENDS_V4" | "BACKENDS_V6" => Some(self.max_backends),
            "AFFINITIES" => Some(self.max_affinities),
            _ => None,
        }
    }
}

/// The maps that say where a flow is.
const FLOW_TABLES: &[&str] = &[
    "FLOWS_V4",
    "FLOWS_V6",
    "HALF_OPEN_V4",
    "HALF_OPEN_V6",
    "FILTER_V4",
    "FILTER_V6",
];
/// The maps that lead from a frontend to its backends, by ids.
const SERVICE_TABLES: &[&str] = &[
    "FRONTENDS_V4",
    "FRONTENDS_V6",
    "SERVICES",
    "SLOTS",
    "BACKENDS_V4",
    "BACKENDS_V6",
    "SOURCE_RANGES_V4",
    "SOURCE_RANGES_V6",
];
/// Its rows name backends.
const AFFINITIES: &str = "AFFINITIES";
/// Each CPU sets some rows aside.
const FEWEST_HALF_OPEN: u32 = 1024;
/// Unpins the maps that this object can't use: aya takes whatever is pinned under a map's path,
/// unchecked. Returns whether all that were there fit.
///
/// Programs that are attached keep the old maps and go on with them until they are replaced.
pub(super) fn discard_misfits(options: &Options) -> Result<bool> {
    let wanted = parse()?;
    let pins = &options.pins;
    let found: Vec<&str> = PINNED_MAPS
        .into_iter()
        .filter(|name| pins.map(name).exists())
        .collect();
    let same_version = pinned_version(pins) == Some(ABI_VERSION);
    let mut misfits = BTreeSet::new();
    for &name in &found {
        let map = wanted.maps.get(name);
        let map = map.ok_or_else(|| anyhow!("the object has no map {name}"))?;
        let pinned = MapInfo::from_pin(pins.map(name))
            .and_then(|pinned| shape_of(&pinned))
            .ok();
        if !same_version || pinned != Some(wanted_shape(map, name, options.sizes)) {
            misfits.insert(name);
        }
    }
    // Programs that are still attached keep all of what belongs together.
    for group in [FLOW_TABLES, SERVICE_TABLES] {
        if misfits.iter().any(|name| group.contains(name)) {
            misfits.extend(found.iter().filter(|name| group.contains(name)));
        }
    }
    // Not the other way round: whose backend was whose says nothing about these.
    if misfits.contains("SERVICES") && found.contains(&AFFINITIES) {
        misfits.insert(AFFINITIES);
    }
    for name in &misfits {
        warn!("map {name} of an earlier version does not fit and is replaced");
        std::fs::remove_file(pins.map(name)).with_context(|| format!("unpinning {name}"))?;
    }
    let adopted = misfits.is_empty() && found.len() == PINNED_MAPS.len();
    if adopted {
        info!("adopting the maps in {}", pins.root().display());
    }
    Ok(adopted)
}

/// Type, key size, value size, entries and flags.
type Shape = (u32, u32, u32, u32, u32);

fn shape_of(map: &MapInfo) -> Result<Shape, MapError> {
    Ok((
        map.map_type()? as u32,
        map.key_size(),
        map.value_size(),
        map.max_entries(),
        map.map_flags(),
    ))
}

fn wanted_shape(map: &aya_obj::Map, name: &str, sizes: Sizes) -> Shape {
    let entries = sizes.rows(name).unwrap_or(map.max_entries());
    (
        map.map_type(),
        map.key_size(),
        map.value_size(),
        entries,
        map.map_flags(),
    )
}

/// The version of the layouts in the pinned maps; 0 was never written.
fn pinned_version(pins: &Pins) -> Option<u32> {
    let data = MapData::from_pin(pins.map("CONFIG")).ok()?;
    let config: Array<_, Row<NodeConfig>> =
        aya::maps::Map::from_map_data(data).ok()?.try_into().ok()?;
    config.get(&0, 0).ok().map(|row| row.0.abi_version)
}
