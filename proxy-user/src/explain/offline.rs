//! A node that need not exist: objects go the agent's own way, into maps in memory.

use super::{Answer, Maps, Name, Names, Query, explain};
use crate::agent::of_pods;
use crate::cluster::Cluster;
use crate::datapath::content::Content;
use crate::datapath::devices::DeviceNames;
use crate::datapath::fake::Fake;
use crate::datapath::{Capacity, Error};
use crate::source::{Event, Object};
use crate::sync::{At, Followed, Settings, Sync};
use crate::tables::Sockets;
use proxy_common::{AddrV4, AddrV6, Device, DeviceTrait, DeviceTraits, Mac};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// What objects do not tell of the node.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Name of its object.
    pub node_name: String,
    /// Its addresses, besides those of its object; the first of each family is the primary one.
    pub node_addresses: Vec<IpAddr>,
    /// Settings of the agent.
    pub followed: Followed,
    /// Whether NodePorts answer on loopback.
    pub localhost_node_ports: bool,
}

impl Facts {
    /// For a loop that follows objects on such a node.
    pub fn settings(&self) -> Settings {
        Settings {
            node_name: self.node_name.clone(),
            node_addresses: self.node_addresses.clone(),
            followed: self.followed.clone(),
            snat_ports: 1024..=u16::MAX,
            sockets: Sockets {
                loopback: self.localhost_node_ports,
                ..Sockets::default()
            },
            first_generation: 1,
        }
    }
}

/// The node.
#[derive(Debug)]
pub struct Offline {
    sync: Sync<Fake>,
    maps: Maps,
    own: BTreeSet<IpAddr>,
    pods: DeviceNames,
    names: HashMap<At, Name>,
}

/// The device by which pods' packets come in, and another one.
const OF_PODS: u32 = 2;
const OTHER: u32 = 3;

/// Room for more than any cluster has.
const ROOM: Capacity = Capacity {
    frontends_v4: u32::MAX,
    frontends_v6: u32::MAX,
    services: u32::MAX,
    slots: u32::MAX,
    backends_v4: u32::MAX,
    backends_v6: u32::MAX,
    source_ranges: u32::MAX,
};

impl Offline {
    /// With these objects.
    ///
    /// # Errors
    /// Maps in memory have none.
    pub fn new(facts: &Facts, objects: Vec<Object>) -> Result<Self, Error> {
        let own = addresses(facts, &objects);
        let pods = of_pods(&facts.followed.detect_local);
        let mut sync = Sync::new(facts.settings(), Fake::new(ROOM))?;
        sync.set_local_addresses(own.iter().map(|ip| (*ip, DEVICE.to_owned())).collect());
        let mut events: Vec<Event> = objects.into_iter().map(Event::Apply).collect();
        events.push(Event::Synced);
        sync.apply(events);
        let fake = sync.datapath();
        let maps = Maps::new(Content {
            dump: fake.content(),
            config: fake.config().copied(),
            devices: devices(),
            ..Content::default()
        });
        Ok(Self {
            sync,
            maps,
            own,
            pods,
            names: HashMap::new(),
        })
    }

    /// Answers a query.
    pub fn explain(&mut self, query: &Query) -> Answer {
        let device = match &query.device {
            None => 0,
            Some(name) if self.pods.has(name) => OF_PODS,
            Some(_) => OTHER,
        };
        let from = query.from.ip();
        let is_own = from.is_loopback() || self.own.contains(&from);
        let mut names = Known {
            sync: &self.sync,
            names: &mut self.names,
        };
        explain(query, &self.maps, device, is_own, &mut names)
    }

    /// What of the objects can't be used: object, field and why.
    pub fn skipped(&self) -> Vec<String> {
        let skipped = self.sync.report().skipped.into_iter();
        let skipped = skipped.map(|it| format!("{}: {}: {}", it.object, it.field, it.why));
        skipped.collect()
    }
}

/// All that the node has.
fn addresses(facts: &Facts, objects: &[Object]) -> BTreeSet<IpAddr> {
    let mut cluster = Cluster::new(&facts.node_name);
    let nodes = objects.iter();
    for node in nodes.filter(|object| matches!(object, Object::Node(_))) {
        cluster.apply(node);
    }
    let listed = cluster.node().into_iter().flat_map(|node| &node.addresses);
    listed.chain(&facts.node_addresses).copied().collect()
}

/// Stands for all of the node's devices.
const DEVICE: &str = "node";

fn devices() -> HashMap<u32, Device> {
    let device = |is_of_pods| Device {
        v4: AddrV4::from_be(0),
        v6: AddrV6::from_be([0; 4]),
        mac: Mac::default(),
        bridge: Mac::default(),
        routed_as: 0,
        mtu: 0,
        traits: DeviceTraits::default().with(DeviceTrait::OfPods, is_of_pods),
    };
    HashMap::from([(OF_PODS, device(true)), (OTHER, device(false))])
}

/// Names, once they have been found.
struct Known<'a> {
    sync: &'a Sync<Fake>,
    names: &'a mut HashMap<At, Name>,
}

impl Names for Known<'_> {
    fn name_at(&mut self, at: &At) -> Name {
        let found = self.names.entry(*at).or_insert_with(|| {
            let found = self.sync.name_at(at);
            found.map_or(Name::Unnamed, Name::Known)
        });
        found.clone()
    }
}
