//! The filter in front of the tables of a family, shared with the programs through memory.

use crate::datapath::bpf::Memory;
use crate::datapath::kernel::open_map;
use crate::datapath::pins::Pins;
use anyhow::{Context as _, Result, ensure};
use proxy_common::{Address, Filter, Flow, Hook, Tuple};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU8, Ordering};

/// The maps, IPv4 first.
pub const FILTERS: [&str; 2] = ["FILTER_V4", "FILTER_V6"];

/// The map's only row.
#[derive(Debug)]
pub struct FilterMap {
    memory: Memory<AtomicU8>,
}

impl FilterMap {
    /// Maps the memory of a pinned filter.
    ///
    /// # Errors
    /// It is not there, or of another size.
    pub fn open(pins: &Pins, name: &str) -> Result<Self> {
        let map = open_map(pins, name)?;
        let size = map.info()?.value_size() as usize;
        ensure!(
            size == size_of::<Filter>(),
            "{name} has rows of {size} bytes"
        );
        let memory = Memory::map(map.fd().as_fd(), size);
        Ok(Self {
            memory: memory.with_context(|| format!("mapping {name}"))?,
        })
    }

    /// Says that an address is dialled.
    pub fn add_frontend<A: Address>(&self, address: &A) {
        let (byte, bit) = Filter::frontend(address);
        let byte = self.byte(Filter::FRONTENDS_OFFSET + byte);
        byte.fetch_or(bit, Ordering::Relaxed);
    }

    /// Says that there is a row.
    pub fn note<A: Address>(&self, key: &Tuple<A>, row: &Flow<A>) {
        let epoch = self.byte(0).load(Ordering::Relaxed);
        let hooks = [Hook::Ingress, Hook::Egress].into_iter();
        for hook in hooks.filter(|hook| row.is_found_at(*hook)) {
            let pair = Filter::pair(hook, &key.src, &key.dst);
            let byte = self.byte(Filter::PAIRS_OFFSET + pair);
            byte.store(Filter::mark(epoch), Ordering::Relaxed);
        }
    }

    /// What was said may not be all: programs look for everything until the next epoch.
    pub fn distrust(&self) {
        self.byte(0).store(0, Ordering::Relaxed);
    }

    /// All rows that there are have been said.
    pub fn begin_epoch(&self) {
        let epoch = self.byte(0);
        let next = Filter::next(epoch.load(Ordering::Relaxed));
        // Whatever was said comes before.
        epoch.store(next, Ordering::Release);
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        self.memory.cell(offset)
    }
}
