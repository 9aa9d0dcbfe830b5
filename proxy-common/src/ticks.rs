//! The time, as rows keep it.

use bytemuck::{Pod, Zeroable};

/// A time in steps of 2^30 nanoseconds (1.07 s) of CLOCK_MONOTONIC; wraps after 146 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ticks(u32);

impl Ticks {
    /// The step that a time of CLOCK_MONOTONIC, in nanoseconds, lies in.
    #[inline(always)]
    pub const fn of_nanoseconds(nanoseconds: u64) -> Self {
        Self((nanoseconds >> 30) as u32)
    }

    /// From the number that is in a row.
    pub const fn new(ticks: u32) -> Self {
        Self(ticks)
    }

    /// The number that is in a row.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Steps since `earlier`; 0 if that is later.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u32 {
        let steps = self.0.wrapping_sub(earlier.0);
        if steps > u32::MAX / 2 { 0 } else { steps }
    }
}
