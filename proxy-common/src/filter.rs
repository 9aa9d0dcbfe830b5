//! What most packets have nothing to do with, told by one byte: whether there may be a flow between two addresses
//! at a hook, and whether an address may be a frontend's.
//!
//! A Bloom filter of one hash (Bloom 1970) in place of up to three look-ups in tables. It may say yes where
//! there is nothing, but never no where there is something. The byte of a hook and a pair of addresses is the
//! *epoch* in which a row was last known to be there: programs write it when they insert a row, the agent when
//! its pass over the tables comes by one. After a pass the agent begins a new epoch; what is older than that is
//! forgotten, without anybody clearing it.

use crate::{Address, Flow, Hook, Tuple};

/// Value of `FILTER_V4` and `FILTER_V6`, in their only row. What changes the place of anything here, or who has to
/// write it, needs a new [`ABI_VERSION`](crate::ABI_VERSION).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Filter {
    /// The current epoch, from 1 to 255 in turn; 0: not all rows are known, everything may be there.
    pub epoch: u8,
    unused: [u8; 7],
    /// Bits of addresses that are dialled.
    frontends: [u8; Filter::FRONTENDS / 8],
    /// Epochs of hooks and pairs of addresses, those of a packet of a flow.
    pairs: [u8; Filter::PAIRS],
}

impl Filter {
    /// Bits for addresses that are dialled; a power of two.
    pub const FRONTENDS: usize = 1 << 20;
    /// Bytes for pairs of addresses; a power of two.
    pub const PAIRS: usize = 1 << 18;
    /// Where the bits of frontends are in the row.
    pub const FRONTENDS_OFFSET: usize = core::mem::offset_of!(Self, frontends);
    /// Where the bytes of pairs are in the row.
    pub const PAIRS_OFFSET: usize = core::mem::offset_of!(Self, pairs);

    /// The place of a pair at a hook.
    #[inline(always)]
    pub fn pair<A: Address>(hook: Hook, src: &A, dst: &A) -> usize {
        let mixed = src.fold().wrapping_mul(GOLDEN) ^ dst.fold().wrapping_mul(PRIME);
        (mix(mixed ^ hook as u64) as usize) & (Self::PAIRS - 1)
    }

    /// The place of the bit of an address: byte, and which of its bits.
    #[inline(always)]
    pub fn frontend<A: Address>(address: &A) -> (usize, u8) {
        let bit = (mix(address.fold().wrapping_mul(GOLDEN)) as usize) & (Self::FRONTENDS - 1);
        (bit / 8, 1 << (bit % 8))
    }

    /// Whether there may be a row for packets between these addresses at a hook.
    #[inline(always)]
    pub fn may_have_flow<A: Address>(&self, hook: Hook, src: &A, dst: &A) -> bool {
        let known = self.pairs[Self::pair(hook, src, dst)];
        self.epoch == 0 || (known != 0 && is_recent(self.epoch, known))
    }

    /// Whether somebody may dial this address.
    #[inline(always)]
    pub fn may_be_dialled<A: Address>(&self, address: &A) -> bool {
        let (byte, bit) = Self::frontend(address);
        self.epoch == 0 || self.frontends[byte] & bit != 0
    }

    /// What is written for a pair that has a row now.
    #[inline(always)]
    pub const fn mark(epoch: u8) -> u8 {
        if epoch == 0 { 1 } else { epoch }
    }

    /// The epoch that follows.
    pub const fn next(epoch: u8) -> u8 {
        if epoch == u8::MAX { 1 } else { epoch + 1 }
    }

    /// Notes a row.
    #[inline(always)]
    pub fn note<A: Address>(&mut self, key: &Tuple<A>, row: &Flow<A>) {
        for hook in [Hook::Ingress, Hook::Egress] {
            if row.is_found_at(hook) {
                self.pairs[Self::pair(hook, &key.src, &key.dst)] = Self::mark(self.epoch);
            }
        }
    }
}

/// Whether a byte counts: it is of the current epoch or of the two before, of which one is that of the last whole
/// pass and one that of a program that was on its way when it ended. Or it is of the next one: that has begun after
/// the other byte was read. Epochs are on a circle of 255.
#[inline(always)]
const fn is_recent(epoch: u8, known: u8) -> bool {
    const NEXT: u8 = 254;
    let age = epoch
        .wrapping_sub(known)
        .wrapping_sub((epoch < known) as u8);
    age < 3 || age == NEXT
}

/// Odd numbers whose bits look random (Knuth's multiplicative hash; a prime of xxHash's).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const PRIME: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// The upper bits of a product depend on all bits of its factors.
#[inline(always)]
const fn mix(mixed: u64) -> u32 {
    ((mixed ^ (mixed >> 32)).wrapping_mul(GOLDEN) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AddrV4, AddrV6, BackendRef, FlowRole, Mark, Port, Proto, Ticks};
    use core::net::{Ipv4Addr, Ipv6Addr};

    extern crate std;
    use std::boxed::Box;
    use std::collections::BTreeSet;

    fn filter(epoch: u8) -> Box<Filter> {
        Box::new(Filter {
            epoch,
            unused: [0; 7],
            frontends: [0; Filter::FRONTENDS / 8],
            pairs: [0; Filter::PAIRS],
        })
    }

    fn v4(last: u8) -> AddrV4 {
        AddrV4::new(Ipv4Addr::new(10, 244, 1, last))
    }

    fn v6(last: u16) -> AddrV6 {
        AddrV6::new(Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, last))
    }

    fn note(filter: &mut Filter) {
        let [src, dst] = [1, 2].map(|last| (v4(last), Port::new(1)));
        let key = Tuple::new(Proto::Tcp, src, dst);
        let backend = BackendRef {
            id: 1,
            generation: 1,
        };
        let mut row = Flow::new(FlowRole::UnDnat, &key, (0, 0), backend, Ticks::new(1));
        filter.note(&key, &row);
        assert!(!filter.may_have_flow(Hook::Ingress, &v4(1), &v4(2)) || filter.epoch == 0);
        row.mark(Mark::Fast);
        filter.note(&key, &row);
    }

    /// At either hook.
    fn may_have_flow(filter: &Filter) -> bool {
        let [ingress, egress] =
            [Hook::Ingress, Hook::Egress].map(|hook| filter.may_have_flow(hook, &v4(1), &v4(2)));
        assert_eq!(ingress, egress);
        egress
    }

    #[test]
    fn what_was_noted_is_found_until_three_epochs_are_over() {
        for first in [1, 2, 100, 253, 254, 255] {
            let mut filter = filter(first);
            assert!(!may_have_flow(&filter));
            filter.epoch = Filter::next(first);
            note(&mut filter);
            // Of a program that has read the epoch just before the next one began.
            filter.epoch = first;
            for _ in 0..4 {
                assert!(may_have_flow(&filter), "{first}");
                filter.epoch = Filter::next(filter.epoch);
            }
            assert!(!may_have_flow(&filter), "{first}");
        }
    }

    #[test]
    fn nothing_is_denied_before_all_is_known() {
        let mut filter = filter(0);
        assert!(may_have_flow(&filter) && filter.may_be_dialled(&v4(1)));
        note(&mut filter);
        filter.epoch = Filter::next(filter.epoch);
        assert!(may_have_flow(&filter) && !filter.may_be_dialled(&v4(1)));
    }

    #[test]
    fn addresses_that_are_alike_have_places_of_their_own() {
        let v4s = (0..=255).flat_map(|one| {
            (0..=255).map(move |two| Filter::pair(Hook::Ingress, &v4(one), &v4(two)))
        });
        let v6s = (0..256).flat_map(|one| {
            (0..256).map(move |two| Filter::pair(Hook::Egress, &v6(one), &v6(two)))
        });
        // Of 65,536 in 262,144 places at random, 58,000 would be apart.
        assert!(v4s.collect::<BTreeSet<_>>().len() > 55_000);
        assert!(v6s.collect::<BTreeSet<_>>().len() > 55_000);
        let frontends = (0..=255).map(|last| Filter::frontend(&v4(last)));
        assert!(frontends.collect::<BTreeSet<_>>().len() > 250);
    }
}
