//! One family's tables, one after the other and then from the start again.

use super::Settings;
use super::table::FlowTable;
use crate::datapath::filter::FilterMap;
use crate::datapath::pins::Pins;
use crate::flows::{Busiest, Census, Measure, Neighbours, Room, TableReport};
use anyhow::Result;
use aya::programs::ProgramFd;
use bytemuck::Pod;
use proxy_common::{Address, Flow, Table, Ticks, Tuple, Unused};
use std::hash::Hash;
use std::sync::atomic::Ordering;
use tracing::warn;

/// A pass over full tables takes so many slices.
const SLICES: u32 = 10;
/// Rows that a slice has at least.
const FEWEST: usize = 8192;

/// The tables, and how far they have been read.
pub(super) struct FamilySweep<A>
where
    Tuple<A>: Pod,
    Flow<A>: Pod,
{
    tables: [FlowTable<A>; 2],
    filter: FilterMap,
    /// Which of them is being read.
    turn: usize,
    cursor: Option<u32>,
    census: Census<A>,
    found: Found,
    is_warned: bool,
    /// Whether all that was there when the pass began, or came since, is known to the filter after it.
    is_complete: bool,
}

/// What the last whole pass has found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) tables: Vec<TableReport>,
    pub(super) busiest: Option<Busiest>,
}

impl<A: Address + Hash> FamilySweep<A>
where
    Tuple<A>: Pod,
    Flow<A>: Pod,
    Unused<A>: Pod,
{
    pub(super) fn open(
        pins: &Pins,
        [confirmed, half_open]: [&'static str; 2],
        filter: &str,
    ) -> Result<Self> {
        let filter = FilterMap::open(pins, filter)?;
        filter.distrust();
        Ok(Self {
            filter,
            tables: [
                FlowTable::open(pins, Table::Confirmed, confirmed)?,
                FlowTable::open(pins, Table::HalfOpen, half_open)?,
            ],
            turn: 0,
            cursor: None,
            census: Census::default(),
            found: Found::default(),
            is_warned: false,
            is_complete: false,
        })
    }

    pub(super) const fn found(&self) -> &Found {
        &self.found
    }

    /// Goes on where the last slice ended, to the end of the pass at most; returns how many flows are
    /// gone.
    pub(super) fn slice(
        &mut self,
        program: &ProgramFd,
        settings: &Settings,
        now: Ticks,
    ) -> Result<u64> {
        let rows: u32 = self
            .tables
            .iter()
            .map(|table| table.capacity / SLICES)
            .sum();
        let mut left = FEWEST.max(rows as usize);
        let mut removed = 0;
        while left > 0 {
            let batch = self.tables[self.turn].read(self.cursor)?;
            let unused = self.judge(batch.rows, settings, now)?;
            removed += self.tables[self.turn].remove(program, &unused)?;
            left = left.saturating_sub(batch.rows);
            self.cursor = batch.next;
            if batch.next.is_none() && self.turn_over(settings) {
                break;
            }
        }
        Ok(removed)
    }

    /// Goes on to the next table; whether that was the last.
    fn turn_over(&mut self, settings: &Settings) -> bool {
        self.turn += 1;
        let is_last = self.turn == self.tables.len();
        if is_last {
            self.turn = 0;
            self.finish(settings);
        }
        is_last
    }

    /// Counts the rows that were just read, and says which flows have ended.
    fn judge(&mut self, rows: usize, settings: &Settings, now: Ticks) -> Result<Vec<Unused<A>>> {
        let table = &self.tables[self.turn];
        let measure = Measure {
            table: table.table,
            now,
            timeouts: &settings.timeouts,
            room: self.room(),
        };
        let mut ended = Vec::new();
        for index in 0..rows {
            let (key, row) = table.row(index);
            self.filter.note(&key, &row);
            self.census
                .count(table.table, &key, &row, &settings.snat_ports);
            if measure.is_due(&key, &row) {
                let neighbours = self.neighbours(&key, &row)?;
                ended.extend(measure.ended(&key, &row, &neighbours));
            }
        }
        Ok(ended)
    }

    /// By the last pass, or by this one if it has found more already.
    fn room(&self) -> Room {
        let table = &self.tables[self.turn];
        let before = self.found.tables.get(self.turn);
        let before = before.map_or(0, |report| report.counts.rows);
        let rows = before.max(self.census.counts(table.table).rows);
        Room::of(usize::try_from(rows).unwrap_or(usize::MAX), table.capacity)
    }

    fn neighbours(&self, key: &Tuple<A>, row: &Flow<A>) -> Result<Neighbours<A>> {
        let answer = if row.masks() {
            let [confirmed, half_open] = &self.tables;
            let answer = key.reversed();
            confirmed.get(&answer)?.or(half_open.get(&answer)?)
        } else {
            None
        };
        Ok(Neighbours {
            twin: self.tables[self.turn].get(&row.twin(key))?,
            answer,
        })
    }

    /// The end of a pass.
    fn finish(&mut self, settings: &Settings) {
        if self.is_complete {
            self.filter.begin_epoch();
        }
        self.is_complete = settings.owns_devices.load(Ordering::Relaxed);
        let census = std::mem::take(&mut self.census);
        let reports = self.tables.iter().map(|table| TableReport {
            map: table.name.to_owned(),
            counts: census.counts(table.table),
        });
        self.found = Found {
            tables: reports.collect(),
            busiest: census.busiest(settings.snat_ports.len() as u32),
        };
        self.warn_of_scarce_ports();
    }

    fn warn_of_scarce_ports(&mut self) {
        let scarce = self.found.busiest.as_ref().filter(|it| it.is_scarce());
        if let Some(busiest) = scarce
            && !self.is_warned
        {
            let Busiest {
                address,
                port,
                protocol,
                used,
                of,
                ..
            } = busiest;
            warn!(
                "{used} of {of} source ports are in use towards {protocol} {address} port {port}: \
                 when there is none left new flows are dropped; see --snat-ports"
            );
        }
        self.is_warned = scarce.is_some();
    }
}
