//! The agent's loop over maps of its own, and a clock on what it writes.

use anyhow::{Result, bail, ensure};
use nix::time::{ClockId, clock_gettime};
use proxy_common::NodeConfig;
use proxy_user::datapath::features::Features;
use proxy_user::datapath::kernel::Kernel;
use proxy_user::datapath::object::{self, Options, Sizes};
use proxy_user::datapath::pins::Pins;
use proxy_user::datapath::{Capacity, Datapath, Dump, Error, Grace, Op};
use proxy_user::source::Event;
use proxy_user::sync::{Followed, Settings, Sync};
use proxy_user::tables::Sockets;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The loop, its maps, and where they are pinned.
pub(crate) struct Stage {
    sync: Sync<Timed>,
    folder: PathBuf,
}

/// What a batch of events has cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// From events in memory to the last row.
    pub(crate) total: Duration,
    /// The part of it in which maps were written.
    pub(crate) write: Duration,
    /// What the CPU has spent on all of it, and not on others.
    pub(crate) cpu: Duration,
}

impl Cost {
    /// From objects to ops, and what the loop remembers.
    pub(crate) fn translate(self) -> Duration {
        self.total - self.write
    }
}

impl Stage {
    /// New maps, empty; the loop knows that there are no objects yet.
    pub(crate) fn new(bpffs: &Path) -> Result<Self> {
        let folder = bpffs.join("programming");
        std::fs::create_dir_all(&folder)?;
        let loaded = object::load(&Options {
            pins: Pins::new(&folder),
            sizes: Sizes::DEFAULT,
            log_decisions: false,
            has_fast_lane: false,
            has_random_in_packet: false,
            features: Features::probe_used()?,
        })?;
        ensure!(!loaded.adopted, "maps of an earlier run are there");
        let datapath = Timed {
            inner: loaded.kernel,
            spent: Duration::ZERO,
        };
        let mut sync = Sync::new(settings(), datapath)?;
        sync.apply(vec![Event::Synced]);
        Ok(Self { sync, folder })
    }

    /// Where the maps are pinned.
    pub(crate) fn pins(&self) -> Pins {
        Pins::new(&self.folder)
    }

    /// Applies events that are in memory.
    pub(crate) fn apply(&mut self, events: Vec<Event>) -> Result<Cost> {
        self.sync.datapath().spent = Duration::ZERO;
        let (start, cpu) = (Instant::now(), cpu_time()?);
        self.sync.apply(events);
        let (total, cpu) = (start.elapsed(), cpu_time()? - cpu);
        if self.sync.needs_retry() {
            let error = self.sync.report().last_error;
            bail!("not all could be written: {}", error.unwrap_or_default());
        }
        // No program runs, so nothing has to be waited for.
        if let Some(freed) = self.sync.take_freed() {
            self.sync.release(freed);
        }
        Ok(Cost {
            total,
            write: self.sync.datapath().spent,
            cpu,
        })
    }

    /// Fails unless the maps hold so many Services of one port, and backends. A cluster address has a row of its
    /// own besides, which refuses other ports.
    pub(crate) fn check(&mut self, services: u32, backends: u32) -> Result<()> {
        let dump = self.sync.datapath().dump()?;
        let found = (dump.frontends_v4.len(), dump.backends_v4.len());
        let wanted = (2 * services as usize, backends as usize);
        ensure!(
            found == wanted,
            "frontends and backends in the maps: {found:?}, not {wanted:?}"
        );
        Ok(())
    }

    /// Lets go of the maps.
    pub(crate) fn end(self) -> Result<()> {
        let Self { sync, folder } = self;
        drop(sync);
        Ok(std::fs::remove_dir_all(folder)?)
    }
}

/// The kernel's maps, and how long it took to write them.
struct Timed {
    inner: Kernel,
    spent: Duration,
}

impl Datapath for Timed {
    fn capacity(&self) -> Capacity {
        self.inner.capacity()
    }

    fn dump(&mut self) -> Result<Dump, Error> {
        self.inner.dump()
    }

    fn apply(&mut self, ops: &[Op]) -> (usize, Result<(), Error>) {
        let start = Instant::now();
        let outcome = self.inner.apply(ops);
        self.spent += start.elapsed();
        outcome
    }

    fn configure(&mut self, config: &NodeConfig) -> Result<(), Error> {
        self.inner.configure(config)
    }

    fn grace(&self) -> Grace {
        self.inner.grace()
    }
}

/// Of this thread.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn settings() -> Settings {
    Settings {
        node_name: "node-0".to_owned(),
        node_addresses: vec![IpAddr::V4(Ipv4Addr::new(172, 31, 0, 1))],
        followed: Followed::default(),
        snat_ports: 1024..=29_999,
        sockets: Sockets::default(),
        first_generation: 1,
    }
}
