//! What the kernel tells us: maps, routes, sockets, time and randomness.

use crate::Fate;
use crate::lane::Lane;
use crate::open::Plan;
use bytemuck::{Pod, Zeroable};
use core::cell::Cell;
use proxy_common::{
    Affinity, AffinityKey, Backend, Device, Flow, FragmentKey, FragmentPorts, Frontend,
    FrontendKey, Hook, Mac, NodeConfig, Refusals, ServiceWord, Table, Ticks, Tuple,
};

/// Why a row was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotInserted {
    /// There is one under this key.
    Exists,
    /// No room, or no memory.
    Full,
}

/// Rows of `SNAT_CURSORS`; a power of two.
pub const CURSORS: u32 = 4096;

/// What routing answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<A> {
    /// Kind of answer.
    pub way: Way,
    /// The device by which the packet leaves, if it does.
    pub device: u32,
    /// The source that this node would choose; zero if the kernel does not tell.
    pub src: A,
}

/// Kinds of answers of routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Way {
    /// By a device.
    Out,
    /// To this node itself.
    Here,
    /// Nowhere.
    Nowhere,
}

/// A packet in search of its next hop.
#[derive(Clone, Copy, Debug)]
pub struct Journey<'a, A> {
    /// Its source.
    pub src: &'a A,
    /// Its destination.
    pub dst: &'a A,
    /// The device by which it has come in.
    pub device: u32,
    /// Its length in bytes from the network header on; 0: the one that it has.
    pub length: u32,
}

/// Whether and by which device a packet can pass the stack by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Whether.
    pub onward: Onward,
    /// By which.
    pub device: u32,
}

/// Where it goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NextHop {
    /// The device by which it leaves.
    pub device: u32,
    /// Who is next there.
    pub gateway: Gateway,
    /// Destination and source of the frame, if the neighbour is known.
    pub macs: [Mac; 2],
}

/// Whether a packet can pass the stack by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Onward {
    /// To a neighbour that is known.
    Known,
    /// To one that has to be asked for its link-layer address.
    Unknown,
    /// It is longer than the way takes.
    TooLong,
    /// There is no such way, or only the stack can go it.
    No,
}

/// A next hop, as bpf_redirect_neigh takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Gateway {
    /// AF_INET or AF_INET6.
    pub family: u32,
    /// Its address, in network order; of IPv4 in the first word.
    pub address: [u32; 4],
}

/// The service maps of one IP family, and what both families share.
///
/// Look-ups return references into the map: another CPU may change the row meanwhile, so what
/// matters beyond one comparison is copied first.
pub trait Services<A> {
    /// The row of `FRONTENDS` for what a client dials.
    fn frontend(&self, key: &FrontendKey<A>) -> Option<&Frontend>;

    /// Whether an address may be a frontend's. Never no where it is.
    fn may_be_dialled(&self, address: &A) -> bool;

    /// The row of `BACKENDS` under this id.
    fn backend(&self, id: u32) -> Option<&Backend<A>>;

    /// The word of `SERVICES` under this id, read by one load.
    fn service(&self, id: u32) -> ServiceWord;

    /// The word of `SLOTS` at this index.
    fn slot(&self, index: u32) -> Option<u32>;

    /// The row of `CONFIG`.
    fn config(&self) -> Option<&NodeConfig>;

    /// The row of `DEVICES` for an interface.
    fn device(&self, index: u32) -> Option<&Device>;

    /// Whether an address is in a set of `SOURCE_RANGES`.
    fn is_in_set(&self, set: u32, address: &A) -> bool;

    /// The backend that a client's connections lead to.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;

    /// Remembers it; without room nothing is remembered.
    fn put_affinity(&self, key: &AffinityKey, affinity: &Affinity);

    /// The time.
    fn now(&self) -> Ticks;

    /// Thirty-two random bits.
    fn random(&self) -> u32;

    /// A number in `0..bound`, as good as uniform: by multiplication and shift, which needs no
    /// division and can't leave the bound.
    #[inline(always)]
    fn random_below(&self, bound: u32) -> u32 {
        ((u64::from(self.random()) * u64::from(bound)) >> 32) as u32
    }
}

/// What the programs at devices know besides.
pub trait Kernel<A>: Services<A> {
    /// Whether there may be a row in a flow table for packets between the addresses of `tuple` at a hook. Never no
    /// where there is one.
    fn may_have_flow(&self, hook: Hook, tuple: &Tuple<A>) -> bool;

    /// The row of a flow table for a packet's tuple.
    fn flow(&self, table: Table, tuple: &Tuple<A>) -> Option<&Flow<A>>;

    /// The same, to be written to in place.
    fn flow_mut(&mut self, table: Table, tuple: &Tuple<A>) -> Option<&mut Flow<A>>;

    /// Adds a row to a flow table if its key is free.
    fn insert_flow(
        &mut self,
        table: Table,
        tuple: &Tuple<A>,
        flow: &Flow<A>,
    ) -> Result<(), NotInserted>;

    /// Adds a row to a flow table or overwrites the one under its key.
    fn replace_flow(
        &mut self,
        table: Table,
        tuple: &Tuple<A>,
        flow: &Flow<A>,
    ) -> Result<(), NotInserted>;

    /// Adds the half-open row of a tuple to the confirmed ones; one that is there already stays, and so
    /// does the half-open one. An error also if it is in neither table, as when it was evicted just now: its
    /// twin must not be confirmed alone.
    fn confirm_flow(&mut self, tuple: &Tuple<A>) -> Result<(), NotInserted>;

    /// Removes a row of a flow table, if it is there.
    fn remove_flow(&mut self, table: Table, tuple: &Tuple<A>);

    /// The ports of a datagram whose first fragment has been seen.
    fn fragment(&self, key: &FragmentKey<A>) -> Option<FragmentPorts>;

    /// Remembers them; without room nothing is remembered.
    fn put_fragment(&mut self, key: &FragmentKey<A>, ports: &FragmentPorts);

    /// How often a client has been refused lately.
    fn refusals(&self, client: A) -> Option<Refusals>;

    /// Remembers it; without room nothing is remembered.
    fn put_refusals(&mut self, client: A, refusals: &Refusals);

    /// The word of `SNAT_CURSORS` at this index.
    fn cursor(&self, index: u32) -> u32;

    /// Replaces it; other CPUs may do so at the same time.
    fn put_cursor(&mut self, index: u32, cursor: u32);

    /// Does something with a plan that lies beside the stack, whose content is that of an earlier one.
    /// `None` without memory; not to be nested.
    fn with_plan<R>(&mut self, work: impl FnOnce(&mut Self, &mut Plan<A>) -> R) -> Option<R>;

    /// Where a packet from `src` (`None`: still to be chosen) to `dst` goes next that is at a hook of this
    /// device, as far as routing tells.
    fn route(&self, src: Option<&A>, dst: &A, device: u32) -> Route<A>;

    /// Whether flows may pass the stack by.
    fn has_fast_lane(&self) -> bool;

    /// Looks for the next hop of a packet.
    fn find_hop(&self, journey: &Journey<'_, A>) -> Hop;

    /// What was found last. `None` without memory.
    fn found_hop(&self) -> Option<NextHop>;

    /// A place for which way a packet takes. `None` without memory.
    fn lane(&self) -> Option<&Cell<Lane>>;

    /// Whether a socket of this node sends from the source of `tuple` to its destination, or is bound
    /// to that source.
    fn has_socket(&self, tuple: &Tuple<A>) -> bool;

    /// Told of every packet that has a tuple and of what became of it, for the debug log.
    fn decided(&self, tuple: &Tuple<A>, fate: Fate);
}
