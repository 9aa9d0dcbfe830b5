//! What the benchmark tells its programs, and what they tell it.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;

/// As many words as the longest headers take: IPv6 and TCP.
const SAVED_WORDS: usize = 15;

/// The only row of `STATE`.
#[repr(C)]
pub(super) struct State {
    /// The packet's headers from the network header on.
    pub(super) saved: [u32; SAVED_WORDS],
    /// Among how many rows, services or backends the runs are spread; not 0.
    pub(super) spread: u32,
    /// Runs so far.
    pub(super) runs: u32,
    /// Runs so far that found what they looked for.
    pub(super) hits: u32,
    /// Enters the keys that are looked up: another one than in the maps makes all of them miss.
    pub(super) salt: u32,
}

#[btf_map]
static STATE: Array<State, 1> = Array::new();

/// The row.
#[inline(always)]
pub(super) fn state() -> Option<&'static mut State> {
    // SAFETY: non-null, aligned and of this size by the map's definition. The benchmark runs one
    // program at a time, and each asks once.
    STATE.get_ptr_mut(0).map(|state| unsafe { &mut *state })
}

impl State {
    /// Counts this run; returns its number.
    #[inline(always)]
    pub(super) fn next(&mut self) -> u32 {
        self.runs += 1;
        self.runs
    }

    /// One of `spread` rows for this run, all over them.
    #[inline(always)]
    pub(super) fn pick(&self, run: u32) -> u32 {
        // Knuth's multiplicative hash, then multiply and shift into the range.
        let scattered = run.wrapping_mul(2_654_435_761);
        ((u64::from(scattered) * u64::from(self.spread)) >> 32) as u32
    }
}
