//! Whose an address, port and protocol is: the first Service that asks, until it lets go.

use super::content::Dialled;
use super::{Capacity, Map, TableFull};
use crate::frontend::ServiceName;
use std::collections::HashMap;
use std::net::IpAddr;

#[derive(Debug)]
pub(super) struct Claims {
    by_frontend: HashMap<Dialled, Claim>,
    v4: Room,
    v6: Room,
}

#[derive(Debug)]
struct Claim {
    holder: ServiceName,
    waiting: Vec<ServiceName>,
}

#[derive(Debug)]
struct Room {
    map: Map,
    used: u32,
    capacity: u32,
}

/// What came of a claim.
pub(super) enum Claimed {
    /// It was free and is the asker's now.
    New,
    /// It was the asker's already.
    Held,
    /// It is someone else's; the asker is on its waiting list.
    By(ServiceName),
}

impl Claims {
    pub(super) fn new(capacity: &Capacity) -> Self {
        let room = |map| Room {
            map,
            used: 0,
            capacity: capacity.of(map),
        };
        Self {
            by_frontend: HashMap::new(),
            v4: room(Map::FrontendsV4),
            v6: room(Map::FrontendsV6),
        }
    }

    pub(super) fn claim(&mut self, at: Dialled, name: &ServiceName) -> Result<Claimed, TableFull> {
        if let Some(claim) = self.by_frontend.get_mut(&at) {
            return Ok(claim.ask(name));
        }
        let room = self.room(at.0);
        if room.used >= room.capacity {
            return Err(TableFull {
                map: room.map,
                needed: room.used.saturating_add(1),
                capacity: room.capacity,
            });
        }
        self.insert(at, name);
        Ok(Claimed::New)
    }

    pub(super) fn holder(&self, at: Dialled) -> Option<&ServiceName> {
        Some(&self.by_frontend.get(&at)?.holder)
    }

    /// Claims what is in the maps already, so that there is no question of room.
    pub(super) fn insert(&mut self, at: Dialled, name: &ServiceName) {
        let claim = Claim {
            holder: name.clone(),
            waiting: Vec::new(),
        };
        if self.by_frontend.insert(at, claim).is_none() {
            self.room(at.0).used += 1;
        }
    }

    /// Returns who has been waiting for it.
    pub(super) fn release(&mut self, at: Dialled) -> Vec<ServiceName> {
        let Some(claim) = self.by_frontend.remove(&at) else {
            return Vec::new();
        };
        self.room(at.0).used -= 1;
        claim.waiting
    }

    pub(super) fn used(&self, map: Map) -> u32 {
        let rooms = [&self.v4, &self.v6];
        let room = rooms.into_iter().find(|room| room.map == map);
        room.map_or(0, |room| room.used)
    }

    fn room(&mut self, address: IpAddr) -> &mut Room {
        match address {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        }
    }
}

impl Claim {
    fn ask(&mut self, name: &ServiceName) -> Claimed {
        if self.holder == *name {
            return Claimed::Held;
        }
        if !self.waiting.contains(name) {
            self.waiting.push(name.clone());
        }
        Claimed::By(self.holder.clone())
    }
}
