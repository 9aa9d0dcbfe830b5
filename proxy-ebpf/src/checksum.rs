//! The Internet checksum, updated incrementally (RFC 1071, RFC 1624).
//!
//! One's complement sums don't depend on byte order, so words are summed as they lie in memory.

/// What replacing words adds to a one's complement sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta {
    sum: u64,
}

impl Delta {
    /// Also replaces `old` by `new`.
    #[inline(always)]
    #[must_use]
    pub const fn replace(self, old: u32, new: u32) -> Self {
        Self {
            sum: self.sum + !old as u64 + new as u64,
        }
    }

    /// Also changes by what another delta does.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, delta: u32) -> Self {
        Self {
            sum: self.sum + delta as u64,
        }
    }

    /// The sum in 32 bits.
    #[inline(always)]
    pub const fn folded(self) -> u32 {
        // Two folds suffice for less than 2^31 words.
        fold64(fold64(self.sum)) as u32
    }
}

/// What undoes a delta.
#[inline(always)]
pub const fn negated(delta: u32) -> u32 {
    !delta
}

/// Whether a delta changes a sum: one's complement has two zeros.
#[inline(always)]
pub const fn is_change(delta: u32) -> bool {
    delta.wrapping_add(1) > 1
}

/// The checksum of data that this has been summed of.
#[inline(always)]
pub const fn of(sum: Delta) -> u16 {
    adjusted(!0, sum.folded())
}

/// The checksum field that was `checksum` after its data changed by `delta`.
#[inline(always)]
pub const fn adjusted(checksum: u16, delta: u32) -> u16 {
    let sum = !checksum as u64 & 0xffff;
    let folded = fold32(fold32(fold64(sum + delta as u64) as u32));
    !(folded as u16)
}

const fn fold64(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

const fn fold32(sum: u32) -> u32 {
    (sum & 0xffff) + (sum >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::internet_checksum;
    use proptest::prelude::*;

    #[test]
    fn no_change_is_no_delta() {
        let unchanged = Delta::default().replace(1, 1).replace(2, 2).folded();
        assert!(!is_change(unchanged) && !is_change(negated(unchanged)));
        assert!(is_change(Delta::default().replace(1, 2).folded()));
    }

    proptest! {
        #[test]
        fn incremental_equals_full(
            words in prop::collection::vec(any::<u32>(), 8..20),
            new in any::<[u32; 4]>(),
        ) {
            let bytes = |words: &[u32]| bytemuck::cast_slice::<u32, u8>(words).to_vec();
            let before = internet_checksum(&bytes(&words), 0);
            let mut changed = words.clone();
            changed[4..8].copy_from_slice(&new);
            let after = internet_checksum(&bytes(&changed), 0);
            let replaced = words[4..8].iter().zip(new);
            let delta = replaced.fold(Delta::default(), |delta, (old, new)| delta.replace(*old, new));
            let incremental = adjusted(before, delta.folded());
            // The two zeros of one's complement are one sum.
            prop_assert_eq!(incremental % 0xffff, after % 0xffff);
        }
    }
}
