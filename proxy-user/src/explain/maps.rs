//! The maps in memory, as the programs' decision looks at them.

use crate::datapath::content::Content;
use crate::tables::RangeKey;
use proxy_common::{
    AddrV4, AddrV6, Address, Affinity, AffinityKey, Backend, Device, Frontend, FrontendKey,
    NodeConfig, ServiceWord, Ticks,
};
use proxy_ebpf::kernel::Services;
use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;

/// A copy of the maps; nothing is written to it. Numbers that the programs draw are not random here: who asks says
/// which they are.
#[derive(Clone, Debug)]
pub struct Maps {
    v4: FamilyMaps<AddrV4>,
    v6: FamilyMaps<AddrV6>,
    services: HashMap<u32, ServiceWord>,
    slots: Vec<u32>,
    config: Option<NodeConfig>,
    devices: HashMap<u32, Device>,
    affinities: HashMap<AffinityKey, Affinity>,
    now: Ticks,
    drawn: Cell<u32>,
}

#[derive(Clone, Debug)]
struct FamilyMaps<A> {
    frontends: HashMap<FrontendKey<A>, Frontend>,
    backends: HashMap<u32, Backend<A>>,
    /// By their sets.
    ranges: HashMap<u32, Vec<Range<A>>>,
}

#[derive(Clone, Copy, Debug)]
struct Range<A> {
    address: A,
    prefix: u8,
}

impl Maps {
    /// Of what was read.
    pub fn new(content: Content) -> Self {
        let dump = content.dump;
        Self {
            v4: FamilyMaps::new(dump.frontends_v4, dump.backends_v4, dump.ranges_v4),
            v6: FamilyMaps::new(dump.frontends_v6, dump.backends_v6, dump.ranges_v6),
            services: dump.services.into_iter().collect(),
            slots: dump.slots,
            config: content.config,
            devices: content.devices,
            affinities: content.affinities,
            now: content.now,
            drawn: Cell::new(0),
        }
    }

    /// The next draw of one of so many gives this one.
    pub(super) fn will_draw(&self, nth: u32, of: u32) {
        let word = (u64::from(nth) << 32).div_ceil(u64::from(of.max(1)));
        self.drawn.set(word as u32);
    }
}

impl<A: Address + std::hash::Hash> FamilyMaps<A> {
    fn new(
        frontends: Vec<(FrontendKey<A>, Frontend)>,
        backends: Vec<(u32, Backend<A>)>,
        ranges: Vec<RangeKey<A>>,
    ) -> Self {
        let mut by_set: HashMap<u32, Vec<Range<A>>> = HashMap::new();
        for RangeKey { range, prefix } in ranges {
            let address = range.address;
            by_set
                .entry(range.set)
                .or_default()
                .push(Range { address, prefix });
        }
        Self {
            frontends: frontends.into_iter().collect(),
            backends: backends.into_iter().collect(),
            ranges: by_set,
        }
    }

    fn is_in_set(&self, set: u32, address: &A) -> bool {
        let mut ranges = self.ranges.get(&set).into_iter().flatten();
        ranges.any(|range| have_same_start(range.address.ip(), address.ip(), range.prefix))
    }
}

fn have_same_start(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let (differs, length) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => ((one.to_bits() ^ other.to_bits()).into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits(), 128),
        _ => return false,
    };
    let rest = u32::from(length - bits.min(length));
    u128::checked_shr(differs, rest).unwrap_or(0) == 0
}

macro_rules! services_in_memory {
    ($address:ty, $family:ident) => {
        impl Services<$address> for Maps {
            fn frontend(&self, key: &FrontendKey<$address>) -> Option<&Frontend> {
                self.$family.frontends.get(key)
            }

            fn may_be_dialled(&self, _address: &$address) -> bool {
                true
            }

            fn backend(&self, id: u32) -> Option<&Backend<$address>> {
                self.$family.backends.get(&id)
            }

            fn service(&self, id: u32) -> ServiceWord {
                self.services.get(&id).copied().unwrap_or(ServiceWord::NONE)
            }

            fn slot(&self, index: u32) -> Option<u32> {
                self.slots.get(index as usize).copied()
            }

            fn config(&self) -> Option<&NodeConfig> {
                self.config.as_ref()
            }

            fn device(&self, index: u32) -> Option<&Device> {
                self.devices.get(&index)
            }

            fn is_in_set(&self, set: u32, address: &$address) -> bool {
                self.$family.is_in_set(set, address)
            }

            fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
                self.affinities.get(key).copied()
            }

            fn put_affinity(&self, _key: &AffinityKey, _affinity: &Affinity) {}

            fn now(&self) -> Ticks {
                self.now
            }

            fn random(&self) -> u32 {
                self.drawn.get()
            }
        }
    };
}

services_in_memory!(AddrV4, v4);
services_in_memory!(AddrV6, v6);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_one_of_several_can_be_drawn() {
        let maps = Maps::new(Content::default());
        for of in [1, 2, 3, 7, 250, 5000] {
            for nth in 0..of {
                maps.will_draw(nth, of);
                assert_eq!(Services::<AddrV4>::random_below(&maps, of), nth);
            }
        }
    }

    #[test]
    fn addresses_are_in_a_range_if_they_start_as_it_does() {
        let same = |one: &str, other: &str, bits| {
            have_same_start(one.parse().unwrap(), other.parse().unwrap(), bits)
        };
        assert!(same("10.1.0.0", "10.1.255.255", 16) && !same("10.1.0.0", "10.2.0.0", 16));
        assert!(same("0.0.0.0", "255.0.0.0", 0) && same("1.2.3.4", "1.2.3.4", 32));
        assert!(!same("1.2.3.4", "1.2.3.5", 32));
        assert!(same("fd00::", "fd00::1", 127) && !same("fd00::", "fd00::1", 128));
    }
}
