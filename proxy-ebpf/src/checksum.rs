//! The Internet checksum, updated incrementally (RFC 1071, RFC 1624).
//!
//! One's complement sums don't depend on byte order, so words are summed as they lie in memory.

/// What replacing `old` by `new` adds to a one's complement sum; 0 when nothing changes.
#[inline(always)]
pub fn delta<const N: usize>(old: [u32; N], new: [u32; N]) -> u32 {
    let mut sum = 0u64;
    for index in 0..N {
        sum += u64::from(!old[index]) + u64::from(new[index]);
    }
    // N is at most 8: two folds suffice.
    let folded = fold64(fold64(sum)) as u32;
    if folded == u32::MAX { 0 } else { folded }
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
        assert_eq!(delta([1, 2, 3], [1, 2, 3]), 0);
        assert_eq!(delta([0], [0]), 0);
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
            let old = [words[4], words[5], words[6], words[7]];
            let incremental = adjusted(before, delta(old, new));
            // The two zeros of one's complement are one sum.
            prop_assert_eq!(incremental % 0xffff, after % 0xffff);
        }
    }
}
