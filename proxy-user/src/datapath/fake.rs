//! The in-memory twin of the maps, which fails on demand.

use super::{Capacity, Datapath, Dump, Error, FamilyOp, Grace, Map, Op, RangeKey};
use proxy_common::{AddrV4, AddrV6, Backend, Frontend, FrontendKey, NodeConfig, ServiceWord};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Maps in memory.
#[derive(Clone, Debug)]
pub struct Fake {
    capacity: Capacity,
    failing: Option<Failing>,
    calls: u64,
    config: Option<NodeConfig>,
    v4: FamilyMaps<AddrV4>,
    v6: FamilyMaps<AddrV6>,
    services: BTreeMap<u32, ServiceWord>,
    slots: Vec<u32>,
}

/// Which writes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Every n-th write fails, counting from 1; 1: all of them.
    pub every: u64,
}

#[derive(Clone, Debug)]
struct FamilyMaps<A> {
    frontends: BTreeMap<FrontendKey<A>, Frontend>,
    backends: BTreeMap<u32, Backend<A>>,
    ranges: BTreeSet<RangeKey<A>>,
}

impl<A> Default for FamilyMaps<A> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            ranges: BTreeSet::new(),
        }
    }
}

impl Fake {
    /// Empty maps of the given sizes.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            failing: None,
            calls: 0,
            config: None,
            v4: FamilyMaps::default(),
            v6: FamilyMaps::default(),
            services: BTreeMap::new(),
            slots: Vec::new(),
        }
    }

    /// From now on some writes fail, or none.
    pub fn fail(&mut self, failing: Option<Failing>) {
        self.failing = failing;
    }

    /// The configuration written last.
    pub fn config(&self) -> Option<&NodeConfig> {
        self.config.as_ref()
    }

    /// Content of all maps.
    pub fn content(&self) -> Dump {
        Dump {
            frontends_v4: rows(&self.v4.frontends),
            frontends_v6: rows(&self.v6.frontends),
            services: rows(&self.services),
            slots: self.slots.clone(),
            backends_v4: rows(&self.v4.backends),
            backends_v6: rows(&self.v6.backends),
            ranges_v4: self.v4.ranges.iter().copied().collect(),
            ranges_v6: self.v6.ranges.iter().copied().collect(),
        }
    }

    fn chance_to_fail(&mut self, what: &str) -> Result<(), Error> {
        self.calls += 1;
        match self.failing {
            Some(failing) if self.calls.is_multiple_of(failing.every) => Err(Error::Syscall {
                what: what.to_owned(),
                source: io::Error::other("failed on demand"),
            }),
            _ => Ok(()),
        }
    }

    fn apply_one(&mut self, op: &Op) -> Result<(), Error> {
        self.chance_to_fail(op.map().name())?;
        let capacity = self.capacity;
        match op {
            Op::V4(op) => self.v4.apply(op, capacity.frontends_v4, Map::FrontendsV4)?,
            Op::V6(op) => self.v6.apply(op, capacity.frontends_v6, Map::FrontendsV6)?,
            Op::PutRegion { start, words } => self.put_region(*start as usize, words),
            Op::PutService { id, word } => {
                self.services.insert(*id, *word);
            }
            Op::ClearService { id } => {
                self.services.remove(id);
            }
        }
        Ok(())
    }

    fn put_region(&mut self, start: usize, words: &[u32]) {
        let end = start + words.len();
        assert!(end <= self.capacity.slots as usize, "beyond SLOTS: {end}");
        if self.slots.len() < end {
            self.slots.resize(end, 0);
        }
        self.slots[start..end].copy_from_slice(words);
    }
}

impl<A: Copy + Ord> FamilyMaps<A> {
    fn apply(&mut self, op: &FamilyOp<A>, capacity: u32, map: Map) -> Result<(), Error> {
        match op {
            FamilyOp::PutBackend { id, row } => {
                self.backends.insert(*id, *row);
            }
            FamilyOp::PutFrontend { key, row } => {
                let full = self.frontends.len() >= capacity as usize;
                if full && !self.frontends.contains_key(key) {
                    return Err(Error::Full { map });
                }
                self.frontends.insert(*key, *row);
            }
            FamilyOp::DeleteFrontend { key } => {
                self.frontends.remove(key);
            }
            FamilyOp::ClearBackend { id } => {
                self.backends.remove(id);
            }
            FamilyOp::PutRange { key } => {
                self.ranges.insert(*key);
            }
            FamilyOp::DeleteRange { key } => {
                self.ranges.remove(key);
            }
        }
        Ok(())
    }
}

impl Datapath for Fake {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn dump(&mut self) -> Result<Dump, Error> {
        Ok(self.content())
    }

    fn apply(&mut self, ops: &[Op]) -> (usize, Result<(), Error>) {
        for (applied, op) in ops.iter().enumerate() {
            if let Err(error) = self.apply_one(op) {
                return (applied, Err(error));
            }
        }
        (ops.len(), Ok(()))
    }

    fn configure(&mut self, config: &NodeConfig) -> Result<(), Error> {
        self.chance_to_fail("CONFIG")?;
        self.config = Some(*config);
        Ok(())
    }

    fn grace(&self) -> Grace {
        Box::pin(std::future::ready(()))
    }
}

fn rows<K: Copy, V: Copy>(map: &BTreeMap<K, V>) -> Vec<(K, V)> {
    map.iter().map(|(&key, &row)| (key, row)).collect()
}
