//! What tests need: a kernel and packets in memory, and the fixture table that runs both here and
//! in the real kernel.

mod builder;
mod fixtures;
mod icmp;
mod memory;
mod packet;
mod socket;
mod world;

pub use builder::{PacketBuilder, internet_checksum, sctp, tcp, udp};
pub use fixtures::{Fixture, fixtures};
pub use icmp::{ErrorBuilder, unreachable};
pub use memory::{run_fixture, run_hook};
pub use packet::MemoryPacket;
pub use socket::{FIRST_NETNS, MemorySocket};
pub use world::{FamilyTables, Step, World, at, change};
