//! What the agent asks of `ferrule_expire`, the program that removes flows nobody uses any more: bytes in
//! the form of a packet that never was one.
//!
//! ```text
//! offset  0   zeros, in the place of an Ethernet header: a test run takes no packet without
//!        16   Request
//!        20   Unused, as often as the request says
//! ```

use crate::{Address, Table, Ticks, Tuple};
use bytemuck::{Pod, Zeroable};

/// What the entries are that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Request {
    /// Bytes of an address: which family.
    address: u8,
    table: u8,
    count: u16,
}

impl Request {
    /// Where it lies.
    pub const OFFSET: usize = 16;
    /// Where the first entry lies.
    pub const ENTRIES: usize = Self::OFFSET + size_of::<Self>();
    /// So many entries at most: the verifier walks over each of them anew, in both families and tables.
    pub const MOST: usize = 4;

    /// For so many rows of a table; no more than [`Request::MOST`].
    pub fn new<A: Address>(table: Table, count: usize) -> Self {
        Self {
            address: size_of::<A>() as u8,
            table: table as u8,
            count: count.min(Self::MOST) as u16,
        }
    }

    /// Whether it is about flows of this family.
    #[inline(always)]
    pub const fn is_of<A: Address>(&self) -> bool {
        self.address as usize == size_of::<A>()
    }

    /// The table, if it is one.
    #[inline(always)]
    pub const fn table(&self) -> Option<Table> {
        const CONFIRMED: u8 = Table::Confirmed as u8;
        const HALF_OPEN: u8 = Table::HalfOpen as u8;
        match self.table {
            CONFIRMED => Some(Table::Confirmed),
            HALF_OPEN => Some(Table::HalfOpen),
            _ => None,
        }
    }

    /// How many entries follow.
    #[inline(always)]
    pub const fn count(&self) -> usize {
        self.count as usize
    }
}

/// A flow that nobody has used for long, as its rows were read: a way there and its way back, or a row
/// that has lost the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Unused<A> {
    /// Key of the way there; of the row, if it is alone.
    pub key: Tuple<A>,
    /// When a packet last found that row.
    pub seen: Ticks,
    /// When one last found the other; of no meaning if there is none.
    pub twin_seen: Ticks,
}
