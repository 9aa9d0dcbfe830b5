//! A flow table: read in batches, asked for single rows, and rid of what has ended.

use crate::datapath::bpf::{self, Batch, Row, read_batch};
use crate::datapath::pins::Pins;
use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData, MapError};
use aya::programs::ProgramFd;
use bytemuck::{Pod, Zeroable as _};
use proxy_common::{Address, Flow, Request, Table, Tuple, Unused};
use std::os::fd::AsFd as _;

/// Rows that one call reads; more where a bucket holds more.
const BATCH: usize = 4096;

/// The map, opened.
pub(super) struct FlowTable<A>
where
    Tuple<A>: Pod,
    Flow<A>: Pod,
{
    pub(super) table: Table,
    pub(super) name: &'static str,
    pub(super) capacity: u32,
    data: MapData,
    rows: HashMap<MapData, Row<Tuple<A>>, Row<Flow<A>>>,
    keys: Vec<Tuple<A>>,
    values: Vec<Flow<A>>,
}

impl<A: Address> FlowTable<A>
where
    Tuple<A>: Pod,
    Flow<A>: Pod,
    Unused<A>: Pod,
{
    pub(super) fn open(pins: &Pins, table: Table, name: &'static str) -> Result<Self> {
        let open = || MapData::from_pin(pins.map(name)).with_context(|| format!("opening {name}"));
        let data = open()?;
        // Checks the sizes of rows, for both.
        let rows = Map::from_map_data(open()?)?.try_into();
        Ok(Self {
            table,
            name,
            capacity: data.info()?.max_entries(),
            rows: rows.with_context(|| format!("map {name}"))?,
            data,
            keys: vec![Tuple::zeroed(); BATCH],
            values: vec![Flow::zeroed(); BATCH],
        })
    }

    /// Reads rows from `cursor` on.
    pub(super) fn read(&mut self, cursor: Option<u32>) -> Result<Batch> {
        loop {
            let file = self.data.fd().as_fd();
            match read_batch(file, cursor, &mut self.keys, &mut self.values) {
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    let room = self.keys.len() * 2;
                    self.keys.resize(room, Tuple::zeroed());
                    self.values.resize(room, Flow::zeroed());
                }
                outcome => return outcome.with_context(|| format!("reading {}", self.name)),
            }
        }
    }

    /// One of the rows that were read last.
    pub(super) fn row(&self, index: usize) -> (Tuple<A>, Flow<A>) {
        (self.keys[index], self.values[index])
    }

    /// The row under a key, as it is now.
    pub(super) fn get(&self, key: &Tuple<A>) -> Result<Option<Flow<A>>> {
        match self.rows.get(&Row(*key), 0) {
            Ok(row) => Ok(Some(row.0)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("asking {}", self.name)),
        }
    }

    /// Removes flows if they are still unused, and returns how many are gone.
    pub(super) fn remove(&self, program: &ProgramFd, unused: &[Unused<A>]) -> Result<u64> {
        let mut removed = 0;
        for some in unused.chunks(Request::MOST) {
            let packet = request(self.table, some);
            let count = bpf::run(program.as_fd(), &packet);
            removed += u64::from(count.with_context(|| format!("removing of {}", self.name))?);
        }
        Ok(removed)
    }
}

/// What the program is asked, at most [`Request::MOST`] flows at a time.
pub fn request<A: Address>(table: Table, unused: &[Unused<A>]) -> Vec<u8>
where
    Unused<A>: Pod,
{
    let mut packet = vec![0; Request::OFFSET];
    let request = Request::new::<A>(table, unused.len());
    packet.extend_from_slice(bytemuck::bytes_of(&request));
    packet.extend_from_slice(bytemuck::cast_slice(unused));
    packet
}
