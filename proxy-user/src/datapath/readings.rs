//! What the programs have left in the maps for people to read.

use crate::datapath::bpf::Row;
use crate::datapath::pins::Pins;
use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use proxy_common::{AddrV4, AddrV6, Counter, Flow, Tuple};
use serde::Serialize;
use std::collections::BTreeMap;

/// Counters and flow tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readings {
    /// Packets let through, by what was done to them.
    pub passed: BTreeMap<String, u64>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Calls of sockets that named a frontend, by what became of them.
    pub sockets: BTreeMap<String, u64>,
    /// The flow tables.
    pub flows: Vec<FlowFill>,
}

/// How full a flow table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowFill {
    /// Its name in the kernel.
    pub map: String,
    /// Rows in it, two or four for a connection.
    pub used: usize,
    /// Rows that fit.
    pub capacity: u32,
}

/// Kernel names of the flow tables: of each family those of confirmed, then those of half-open flows.
const FLOW_TABLES: [&str; 4] = ["FLOWS_V4", "FLOWS_V6", "HALF_OPEN_V4", "HALF_OPEN_V6"];

/// Reads them; `None` if no maps are pinned.
///
/// # Errors
/// The map that can't be read.
pub fn read(pins: &Pins) -> Result<Option<Readings>> {
    if !pins.map("COUNTERS").exists() {
        return Ok(None);
    }
    let counters = counters(pins)?;
    let named = |wanted: fn(&Counter) -> bool| {
        let counters = counters.iter().filter(|(counter, _)| wanted(counter));
        counters
            .map(|(counter, count)| (counter.name().to_owned(), *count))
            .collect()
    };
    Ok(Some(Readings {
        passed: named(|counter| matches!(counter, Counter::Passed(_))),
        sockets: named(|counter| matches!(counter, Counter::Socket(_))),
        drops: named(|counter| matches!(counter, Counter::Dropped(_))),
        flows: vec![
            fill::<AddrV4>(pins, FLOW_TABLES[0])?,
            fill::<AddrV6>(pins, FLOW_TABLES[1])?,
            fill::<AddrV4>(pins, FLOW_TABLES[2])?,
            fill::<AddrV6>(pins, FLOW_TABLES[3])?,
        ],
    }))
}

/// Rows that fit into each of the flow tables that are there.
pub fn flow_capacities(pins: &Pins) -> Vec<(&'static str, u32)> {
    let capacity = |name| capacity(pins, name).ok().map(|rows| (name, rows));
    FLOW_TABLES.into_iter().filter_map(capacity).collect()
}

fn capacity(pins: &Pins, name: &str) -> Result<u32> {
    Ok(MapData::from_pin(pins.map(name))?.info()?.max_entries())
}

/// Every counter, summed over the CPUs.
///
/// # Errors
/// `COUNTERS` can't be read.
pub fn counters(pins: &Pins) -> Result<Vec<(Counter, u64)>> {
    let counters: PerCpuArray<_, u64> = open(pins, "COUNTERS")?.try_into()?;
    Counter::all()
        .map(|counter| Ok((counter, counters.get(&counter.index(), 0)?.iter().sum())))
        .collect()
}

fn fill<A: 'static>(pins: &Pins, name: &str) -> Result<FlowFill>
where
    Row<Tuple<A>>: Pod,
    Row<Flow<A>>: Pod,
{
    let map = open(pins, name)?;
    let capacity = capacity(pins, name)?;
    let flows: HashMap<_, Row<Tuple<A>>, Row<Flow<A>>> = map.try_into()?;
    // A row that goes away under the walk starts it again, so it may count rows twice and has to be
    // bounded: an estimate is all this is.
    let keys = flows.keys().take_while(Result::is_ok);
    let used = keys.take(capacity as usize).count();
    Ok(FlowFill {
        map: name.into(),
        used,
        capacity,
    })
}

fn open(pins: &Pins, name: &str) -> Result<Map> {
    let path = pins.map(name);
    let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
    Ok(Map::from_map_data(data)?)
}
