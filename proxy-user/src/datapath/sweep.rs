//! The end of flows: reads the flow tables, a slice each second, and has the programs remove what nobody
//! uses any more.
//!
//! A thread of its own: a slice may take tens of milliseconds, and nothing else waits for it.

mod family;
mod table;

pub use table::request;

use crate::datapath::filter::FILTERS;
use crate::datapath::object::{self, EXPIRE};
use crate::datapath::pins::Pins;
use crate::flows::{FlowReport, Timeouts};
use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::ProgramFd;
use family::FamilySweep;
use nix::time::{ClockId, clock_gettime};
use proxy_common::{AddrV4, AddrV6, Ticks};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// Between two slices.
const PAUSE: Duration = Duration::from_secs(1);

/// What flows are measured by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long they last without a packet.
    pub timeouts: Timeouts,
    /// Source ports of masked ones.
    pub snat_ports: RangeInclusive<u16>,
    /// Whether all programs on devices are of this agent: those of an earlier version may not tell the filters of
    /// the rows that they make.
    pub owns_devices: Arc<AtomicBool>,
}

/// Both families' tables, and how far each has been read.
pub struct Sweep {
    v4: FamilySweep<AddrV4>,
    v6: FamilySweep<AddrV6>,
    settings: Settings,
    program: ProgramFd,
    removed: u64,
    reports: watch::Sender<FlowReport>,
    /// What has been complained of.
    known: BTreeSet<String>,
}

impl Sweep {
    /// Opens the pinned tables and loads the program; returns where reports will be found, too.
    ///
    /// # Errors
    /// What is not there, or what the kernel refused.
    pub fn open(
        pins: &Pins,
        programs: &mut Ebpf,
        settings: Settings,
    ) -> Result<(Self, watch::Receiver<FlowReport>)> {
        let program = object::named(programs, EXPIRE)?.fd()?.try_clone();
        let (reports, receiver) = watch::channel(FlowReport::default());
        let sweep = Self {
            v4: FamilySweep::open(pins, ["FLOWS_V4", "HALF_OPEN_V4"], FILTERS[0])?,
            v6: FamilySweep::open(pins, ["FLOWS_V6", "HALF_OPEN_V6"], FILTERS[1])?,
            settings,
            program: program.context("the program that removes flows")?,
            removed: 0,
            reports,
            known: BTreeSet::new(),
        };
        Ok((sweep, receiver))
    }

    /// Goes on for ever, in a thread of its own.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(mut self) -> Result<()> {
        let thread = std::thread::Builder::new().name("sweep".into());
        let run = move || {
            loop {
                self.step();
                std::thread::sleep(PAUSE);
            }
        };
        thread.spawn(run).context("starting the sweep thread")?;
        Ok(())
    }

    /// A slice of each family: all of small tables.
    pub fn step(&mut self) {
        let outcome = self.slices();
        self.publish();
        if let Err(error) = outcome {
            let text = format!("{error:#}");
            if self.known.insert(text) {
                warn!("flows can't be looked through, this is tried again: {error:#}");
            }
        }
    }

    fn slices(&mut self) -> Result<()> {
        let now = now()?;
        let Self { settings, .. } = self;
        let v4 = self.v4.slice(&self.program, settings, now);
        let v6 = self.v6.slice(&self.program, settings, now);
        for removed in [v4, v6] {
            self.removed += removed?;
        }
        Ok(())
    }

    fn publish(&self) {
        let found = [self.v4.found(), self.v6.found()];
        let report = FlowReport {
            tables: found.iter().flat_map(|it| it.tables.clone()).collect(),
            busiest: found.iter().flat_map(|it| it.busiest.clone()).collect(),
            removed: self.removed,
        };
        self.reports.send_replace(report);
    }
}

/// The time as the programs have it.
pub(super) fn now() -> Result<Ticks> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the clock")?);
    let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    Ok(Ticks::of_nanoseconds(nanoseconds))
}
