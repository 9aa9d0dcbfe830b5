//! The flow tables, read as they are.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use aya::maps::{HashMap, Map, MapData};
use proxy_common::{AddrV4, AddrV6, Address, Device, Flow, FlowRole, Tuple};
use proxy_user::datapath::bpf::Row;
use proxy_user::datapath::pins::Pins;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

/// Who sends to whom by which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ends {
    pub(crate) protocol: u32,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

impl Ends {
    pub(crate) fn reversed(self) -> Self {
        let (from, to) = (self.to, self.from);
        Self { from, to, ..self }
    }
}

/// What packets become, and by a row of which role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    pub(crate) role: FlowRole,
    pub(crate) target: Ends,
}

/// All rows of a node; none may be in both of a family's tables.
pub(crate) fn rows(bpffs: &Path) -> BTreeMap<Ends, Translation> {
    let pins = Pins::new(bpffs);
    let mut all = table_rows::<AddrV4>(&pins, "FLOWS_V4");
    for more in [
        table_rows::<AddrV4>(&pins, "HALF_OPEN_V4"),
        table_rows::<AddrV6>(&pins, "FLOWS_V6"),
        table_rows::<AddrV6>(&pins, "HALF_OPEN_V6"),
    ] {
        for (key, row) in more {
            assert_eq!(all.insert(key, row), None, "{key:?} is in two tables");
        }
    }
    all
}

fn table_rows<A: Address>(pins: &Pins, name: &str) -> BTreeMap<Ends, Translation>
where
    Row<Tuple<A>>: aya::Pod,
    Row<Flow<A>>: aya::Pod,
{
    let data = MapData::from_pin(pins.map(name)).unwrap();
    let map = Map::from_map_data(data).unwrap();
    let map: HashMap<_, Row<Tuple<A>>, Row<Flow<A>>> = map.try_into().unwrap();
    let rows = map.iter().map(Result::unwrap);
    rows.map(|(Row(key), Row(flow))| {
        let translation = Translation {
            role: flow.role().expect("a role"),
            target: ends(&flow.target(&key)),
        };
        (ends(&key), translation)
    })
    .collect()
}

fn ends<A: Address>(tuple: &Tuple<A>) -> Ends {
    Ends {
        protocol: tuple.proto_number(),
        from: SocketAddr::new(tuple.src.ip(), tuple.sport.number()),
        to: SocketAddr::new(tuple.dst.ip(), tuple.dport.number()),
    }
}

/// What the programs of a node know of its devices, by interface index.
pub(crate) fn devices(bpffs: &Path) -> BTreeMap<u32, Device> {
    let data = MapData::from_pin(Pins::new(bpffs).map("DEVICES")).unwrap();
    let map = Map::from_map_data(data).unwrap();
    let map: HashMap<_, u32, Row<Device>> = map.try_into().unwrap();
    let rows = map.iter().map(Result::unwrap);
    rows.map(|(index, row)| (index, row.0)).collect()
}
