//! What the kernel tells us: maps and randomness.

use crate::Fate;
use proxy_common::{Backend, Flow, Frontend, FrontendKey, NodeConfig, ServiceWord, Tuple};

/// Why a row was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotInserted {
    /// There is one under this key.
    Exists,
    /// No room, or no memory.
    Full,
}

/// The maps of one IP family, and what both families share.
///
/// Look-ups return references into the map: another CPU may change the row meanwhile, so what
/// matters beyond one comparison is copied first.
pub trait Kernel<A> {
    /// The row of `FLOWS` for a packet's tuple.
    fn flow(&self, tuple: &Tuple<A>) -> Option<&Flow<A>>;

    /// Adds a row to `FLOWS` if its key is free.
    fn insert_flow(&mut self, tuple: &Tuple<A>, flow: &Flow<A>) -> Result<(), NotInserted>;

    /// Adds a row to `FLOWS` or overwrites the one under its key.
    fn replace_flow(&mut self, tuple: &Tuple<A>, flow: &Flow<A>) -> Result<(), NotInserted>;

    /// Marks a row of `FLOWS` as closing, if it is there.
    fn close_flow(&mut self, tuple: &Tuple<A>);

    /// Removes a row of `FLOWS`, if it is there.
    fn remove_flow(&mut self, tuple: &Tuple<A>);

    /// The row of `FRONTENDS` for what a client dials.
    fn frontend(&self, key: &FrontendKey<A>) -> Option<&Frontend>;

    /// The row of `BACKENDS` under this id.
    fn backend(&self, id: u32) -> Option<&Backend<A>>;

    /// The word of `SERVICES` under this id, read by one load.
    fn service(&self, id: u32) -> ServiceWord;

    /// The word of `SLOTS` at this index.
    fn slot(&self, index: u32) -> Option<u32>;

    /// The row of `CONFIG`.
    fn config(&self) -> Option<&NodeConfig>;

    /// Told of every packet that has a tuple and of what became of it, for the debug log.
    fn decided(&self, tuple: &Tuple<A>, fate: Fate);

    /// Thirty-two random bits.
    fn random(&self) -> u32;

    /// A number in `0..bound`, as good as uniform: by multiplication and shift, which needs no
    /// division and can't leave the bound.
    #[inline(always)]
    fn random_below(&self, bound: u32) -> u32 {
        ((u64::from(self.random()) * u64::from(bound)) >> 32) as u32
    }
}
