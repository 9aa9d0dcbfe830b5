//! The maps in memory, and the steps that a fixture takes through them.

mod with;

use crate::kernel::{NextHop, Onward};
use crate::lane::Lane;
use crate::testing::PacketBuilder;
use crate::{DropReason, Fate, Verdict};
use proxy_common::{
    ABI_VERSION, AddrV4, AddrV6, Address, Affinity, AffinityKey, Backend, Detection, Device, Flow,
    FragmentKey, FragmentPorts, Frontend, FrontendKey, FrontendKind, Hook, Locality, NodeConfig,
    NodeFamily, NodeOptions, Port, Proto, Range, Refusals, RegionHeader, ServiceWord, SourceRange,
    Table, Ticks, Tuple,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The cookie of the node's own network namespace.
pub(super) const HOST_NETNS: u64 = 1;

/// The maps of one family.
#[derive(Clone, Debug, Default)]
pub struct FamilyTables<A: Ord> {
    /// `FRONTENDS`.
    pub frontends: BTreeMap<FrontendKey<A>, Frontend>,
    /// `BACKENDS`.
    pub backends: BTreeMap<u32, Backend<A>>,
    /// `FLOWS`.
    pub flows: BTreeMap<Tuple<A>, Flow<A>>,
    /// `HALF_OPEN`.
    pub half_open: BTreeMap<Tuple<A>, Flow<A>>,
    /// `FRAGMENTS`.
    pub fragments: BTreeMap<FragmentKey<A>, FragmentPorts>,
    /// `REFUSALS`.
    pub refusals: BTreeMap<A, Refusals>,
    /// `SOURCE_RANGES`: length of the prefix, set and address.
    pub source_ranges: Vec<(u32, SourceRange<A>)>,
    /// Next hops, by destination; in the kernel's test run there are none.
    pub hops: BTreeMap<A, (Onward, NextHop)>,
}

impl<A: Ord> FamilyTables<A> {
    fn new() -> Self {
        Self {
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            flows: BTreeMap::new(),
            half_open: BTreeMap::new(),
            fragments: BTreeMap::new(),
            refusals: BTreeMap::new(),
            source_ranges: Vec::new(),
            hops: BTreeMap::new(),
        }
    }

    /// The rows of one of the flow tables.
    pub const fn rows(&self, table: Table) -> &BTreeMap<Tuple<A>, Flow<A>> {
        match table {
            Table::Confirmed => &self.flows,
            Table::HalfOpen => &self.half_open,
        }
    }

    /// The same, to be changed.
    pub const fn rows_mut(&mut self, table: Table) -> &mut BTreeMap<Tuple<A>, Flow<A>> {
        match table {
            Table::Confirmed => &mut self.flows,
            Table::HalfOpen => &mut self.half_open,
        }
    }
}

/// All maps.
#[derive(Clone, Debug)]
pub struct World {
    /// Maps of IPv4.
    pub v4: FamilyTables<AddrV4>,
    /// Maps of IPv6.
    pub v6: FamilyTables<AddrV6>,
    /// `SERVICES`.
    pub services: BTreeMap<u32, ServiceWord>,
    /// `SLOTS`.
    pub slots: BTreeMap<u32, u32>,
    /// `CONFIG`.
    pub config: NodeConfig,
    /// `DEVICES`.
    pub devices: BTreeMap<u32, Device>,
    /// `AFFINITIES`.
    pub affinities: RefCell<BTreeMap<AffinityKey, Affinity>>,
    /// `SNAT_CURSORS`.
    pub cursors: BTreeMap<u32, u32>,
    /// How many rows each of the flow maps holds.
    pub flow_capacity: usize,
    /// The time.
    pub now: Ticks,
    pub(super) entropy: Cell<u32>,
    pub(super) next_hop: Cell<Option<NextHop>>,
    pub(super) lane: Cell<Lane>,
}

impl Default for World {
    /// A node 172.31.1.2 / fd00:172:31:1::2 of a cluster whose pods are in 10.244.0.0/16 and
    /// fd00:10:244::/48; masked flows use the ports 1024 to 29999.
    fn default() -> Self {
        let v6 = |text: &str| AddrV6::new(text.parse().expect("an IPv6 address"));
        let v4 = |text: &str| AddrV4::new(text.parse().expect("an IPv4 address"));
        Self {
            v4: FamilyTables::new(),
            v6: FamilyTables::new(),
            services: [].into(),
            slots: [].into(),
            config: NodeConfig {
                abi_version: ABI_VERSION,
                snat_port_min: Port::new(1024),
                snat_port_max: Port::new(29999),
                host_netns: HOST_NETNS,
                v4: family(v4("172.31.1.2"), v4("10.244.0.0"), v4("255.255.0.0")),
                v6: family(
                    v6("fd00:172:31:1::2"),
                    v6("fd00:10:244::"),
                    v6("ffff:ffff:ffff::"),
                ),
                options: NodeOptions::default(),
                unused: 0,
            },
            devices: [].into(),
            affinities: RefCell::default(),
            cursors: [].into(),
            flow_capacity: 1 << 16,
            now: Ticks::new(1000),
            entropy: Cell::new(1),
            next_hop: Cell::new(None),
            lane: Cell::new(Lane::Across),
        }
    }
}

/// A node of this address, and pods in this range.
fn family<A: Address>(node: A, address: A, mask: A) -> NodeFamily<A> {
    let pods = Range { address, mask };
    let mut family = NodeFamily::new(node).detecting(Detection::BySource, pods);
    family.cluster = pods;
    family
}

impl World {
    /// Adds a service of its own id with one frontend and these backends, those of this node first.
    pub fn service(
        mut self,
        proto: Proto,
        frontend: &str,
        kind: FrontendKind,
        backends: &[(&str, Locality)],
    ) -> Self {
        let id = self.services.len() as u32 + 1;
        let region = id * 64;
        let ids: Vec<u32> = (0..backends.len() as u32)
            .map(|index| id * 16 + index)
            .collect();
        for (backend, (socket, locality)) in ids.iter().zip(backends) {
            self.put_backend(*backend, socket, *locality, 1);
        }
        let of_service = |backend: &u32| ids.contains(backend);
        self.v4
            .backends
            .iter_mut()
            .filter(|(id, _)| of_service(id))
            .for_each(|(_, row)| row.service = id);
        self.v6
            .backends
            .iter_mut()
            .filter(|(id, _)| of_service(id))
            .for_each(|(_, row)| row.service = id);
        let key = socket(frontend);
        let row = Frontend::new(id, kind);
        match key {
            SocketAddr::V4(at) => {
                let key = FrontendKey::new(AddrV4::new(*at.ip()), Port::new(at.port()), proto);
                self.v4.frontends.insert(key, row);
            }
            SocketAddr::V6(at) => {
                let key = FrontendKey::new(AddrV6::new(*at.ip()), Port::new(at.port()), proto);
                self.v6.frontends.insert(key, row);
            }
        }
        let header = header(id, backends);
        let words = header.words().into_iter().chain(ids);
        self.slots.extend((region..).zip(words));
        self.services.insert(id, ServiceWord::new(region, id));
        self
    }

    /// Puts a backend under an id, in the place of an earlier one.
    pub fn put_backend(&mut self, id: u32, at: &str, locality: Locality, generation: u32) {
        match socket(at) {
            SocketAddr::V4(at) => {
                let (address, port) = (AddrV4::new(*at.ip()), Port::new(at.port()));
                self.v4
                    .backends
                    .insert(id, Backend::new(address, port, locality, generation));
            }
            SocketAddr::V6(at) => {
                let (address, port) = (AddrV6::new(*at.ip()), Port::new(at.port()));
                self.v6
                    .backends
                    .insert(id, Backend::new(address, port, locality, generation));
            }
        }
    }

    /// Leaves masked flows a single port.
    pub fn with_snat_port(mut self, port: u16) -> Self {
        self.config.snat_port_min = Port::new(port);
        self.config.snat_port_max = Port::new(port);
        self
    }
}

/// Of a region whose backends answer wherever they run.
fn header(generation: u32, backends: &[(&str, Locality)]) -> RegionHeader {
    let is_local = |(_, locality): &&(&str, Locality)| *locality == Locality::Local;
    let local = backends.iter().take_while(is_local).count();
    assert_eq!(local, backends.iter().filter(is_local).count(), "in order");
    RegionHeader {
        local: local as u32,
        ..RegionHeader::of_remote(generation, backends.len() as u32)
    }
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("no socket: {text}"))
}

/// One step of a fixture.
#[derive(Clone, Debug)]
pub enum Step {
    /// A packet meets a program.
    Packet {
        /// Where.
        hook: Hook,
        /// As it comes.
        input: Vec<u8>,
        /// What must become of it.
        fate: Fate,
        /// As it must leave; meaningless for a dropped packet.
        output: Vec<u8>,
    },
    /// The agent changes a map.
    Change(fn(&mut World)),
}

/// A packet at a hook, of which something is expected.
pub struct Arrival {
    hook: Hook,
    input: Vec<u8>,
}

/// A packet arrives at a hook.
pub fn at(hook: Hook, packet: impl Into<Vec<u8>>) -> Arrival {
    Arrival {
        hook,
        input: packet.into(),
    }
}

/// The agent changes a map.
pub const fn change(what: fn(&mut World)) -> Step {
    Step::Change(what)
}

impl From<PacketBuilder> for Vec<u8> {
    fn from(packet: PacketBuilder) -> Self {
        packet.build()
    }
}

impl Arrival {
    /// It must be let through as another packet.
    pub fn becomes(self, verdict: Verdict, packet: impl Into<Vec<u8>>) -> Step {
        let Self { hook, input } = self;
        Step::Packet {
            hook,
            input,
            fate: Ok(verdict),
            output: packet.into(),
        }
    }

    /// It must be let through untouched.
    pub fn passes(self, verdict: Verdict) -> Step {
        let Self { hook, input } = self;
        Step::Packet {
            hook,
            output: input.clone(),
            input,
            fate: Ok(verdict),
        }
    }

    /// It must be dropped.
    pub fn drops(self, reason: DropReason) -> Step {
        let Self { hook, input } = self;
        Step::Packet {
            hook,
            output: input.clone(),
            input,
            fate: Err(reason),
        }
    }
}
