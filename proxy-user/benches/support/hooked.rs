//! A cgroup with the programs, and maps with as many services as are wanted.

use anyhow::{Result, anyhow};
use proxy_common::{
    ABI_VERSION, AddrV4, Address as _, Backend, Frontend, FrontendKey, FrontendKind, Locality,
    NodeConfig, Port, Proto, RegionHeader, ServiceWord,
};
use proxy_user::datapath::features::Features;
use proxy_user::datapath::object::{self, Loaded, Options, Sizes};
use proxy_user::datapath::pins::Pins;
use proxy_user::datapath::{Datapath as _, FamilyOp, Op, cgroup};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

/// Where services are; the node has no route to them that leads anywhere.
const FRONTENDS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
/// Port of all services.
const PORT: u16 = 80;

pub(crate) struct Hooked {
    loaded: Loaded,
    services: u32,
}

/// What is dialled for a service, from 1 on.
pub(crate) fn frontend(number: u32) -> SocketAddrV4 {
    let address = Ipv4Addr::from(u32::from(FRONTENDS) + number);
    SocketAddrV4::new(address, PORT)
}

impl Hooked {
    pub(crate) fn load(bpffs: &Path, cgroup: &Path) -> Result<Self> {
        let pins = Pins::new(bpffs);
        let mut loaded = object::load(&Options {
            pins: pins.clone(),
            sizes: Sizes {
                max_flows: 1024,
                ..Sizes::DEFAULT
            },
            log_decisions: false,
            has_fast_lane: false,
            has_random_in_packet: false,
            features: Features::probe_used()?,
        })?;
        let config = NodeConfig {
            abi_version: ABI_VERSION,
            ..bytemuck::Zeroable::zeroed()
        };
        loaded.kernel.configure(&config)?;
        cgroup::attach(&mut loaded.programs, &pins, cgroup, false)?;
        Ok(Self {
            loaded,
            services: 0,
        })
    }

    /// Adds services until there are so many; each has this backend, and a frontend of each protocol.
    pub(crate) fn fill(&mut self, services: u32, server: Ipv4Addr, port: u16) -> Result<()> {
        let backend = Backend::new(AddrV4::new(server), Port::new(port), Locality::Local, 1);
        let new = self.services + 1..=services;
        let ops: Vec<Op> = new.flat_map(|number| ops(number, backend)).collect();
        let (_, outcome) = self.loaded.kernel.apply(&ops);
        outcome.map_err(|error| anyhow!("filling the maps: {error}"))?;
        self.services = services;
        Ok(())
    }
}

fn ops(number: u32, backend: Backend<AddrV4>) -> Vec<Op> {
    let region = number * (RegionHeader::WORDS + 1);
    let mut ops = vec![
        Op::V4(FamilyOp::PutBackend {
            id: number,
            row: backend,
        }),
        Op::PutRegion {
            start: region,
            words: [&RegionHeader::of_remote(1, 1).words()[..], &[number]].concat(),
        },
        Op::PutService {
            id: number,
            word: ServiceWord::new(region, 1),
        },
    ];
    let address = AddrV4::new(*frontend(number).ip());
    ops.extend([Proto::Tcp, Proto::Udp].map(|proto| {
        Op::V4(FamilyOp::PutFrontend {
            key: FrontendKey::new(address, Port::new(PORT), proto),
            row: Frontend::new(number, FrontendKind::ClusterIp),
        })
    }));
    ops
}
