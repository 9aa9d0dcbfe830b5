//! The product in this process: its maps filled by the agent's own code, its programs on a node's devices or cgroup.

use crate::memory;
use crate::services::Services;
use anyhow::{Context as _, Result, ensure};
use proxy_user::datapath::attach::{Attacher, Method};
use proxy_user::datapath::cgroup;
use proxy_user::datapath::devices::{self, DeviceEvent, Marked};
use proxy_user::datapath::features::Features;
use proxy_user::datapath::filter::{FILTERS, FilterMap};
use proxy_user::datapath::kernel::Kernel;
use proxy_user::datapath::object::{self, Options, Sizes};
use proxy_user::datapath::pins::Pins;
use proxy_user::source::{Event, Object};
use proxy_user::sync::{Followed, Settings, Sync};
use proxy_user::tables::Sockets;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use xtask::cluster::Node;

/// Where programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// All devices of the node.
    Devices,
    /// The same, between which traffic passes the stack by.
    FastDevices,
    /// The node's cgroup.
    Cgroup,
}

impl At {
    fn marked(self) -> Marked {
        let devices = match self {
            Self::FastDevices => "*",
            Self::Devices | Self::Cgroup => "off",
        };
        Marked {
            fast_lane: devices.parse().expect("the flag's value"),
            ..Marked::default()
        }
    }
}

/// Programs that are in force, and what fills their maps.
pub(crate) struct Ferrule {
    sync: Sync<Kernel>,
    pins: Pins,
    _attacher: Option<Attacher>,
}

impl Ferrule {
    /// Attaches the programs to a node.
    pub(crate) fn start(node: &Node, at: At) -> Result<Self> {
        let pins = Pins::new(&node.paths().bpffs);
        let features = Features::probe_used()?;
        let mut loaded = object::load(&Options {
            pins: pins.clone(),
            sizes: Sizes::DEFAULT,
            log_decisions: false,
            has_fast_lane: at == At::FastDevices,
            has_random_in_packet: false,
            features: features.clone(),
        })?;
        let mut sync = Sync::new(settings(node), loaded.kernel)?;
        sync.apply(vec![Event::Synced]);
        // There are no rows yet that they would have to know of.
        for name in FILTERS {
            FilterMap::open(&pins, name)?.begin_epoch();
        }
        let attacher = match at {
            At::Cgroup => {
                let cgroup = node.paths().cgroup.clone().context("no cgroup v2")?;
                cgroup::attach(&mut loaded.programs, &pins, &cgroup, false)?;
                None
            }
            At::Devices | At::FastDevices => {
                let method = Method::best(&features);
                let attacher = Attacher::new(loaded.programs, pins.clone(), method)?;
                let lane = at.marked();
                Some(node.namespace().run(|| attach(attacher, lane))??)
            }
        };
        Ok(Self {
            sync,
            pins,
            _attacher: attacher,
        })
    }

    /// Fills the maps; returns the time from objects in memory to the last row.
    pub(crate) fn program(
        &mut self,
        services: Services,
        endpoints: &[Ipv4Addr],
    ) -> Result<Duration> {
        let objects = services.numbers().flat_map(|number| {
            [
                Object::Service(Box::new(Services::service(number))),
                Object::EndpointSlice(Box::new(Services::slice(number, endpoints))),
            ]
        });
        let events: Vec<Event> = objects.map(Event::Apply).collect();
        let start = Instant::now();
        self.sync.apply(events);
        let time = start.elapsed();
        ensure!(!self.sync.needs_retry(), "not all could be written");
        Ok(time)
    }

    /// Bytes of its maps.
    pub(crate) fn maps(&self) -> Result<u64> {
        memory::of_maps(&self.pins)
    }
}

/// On all devices of the thread's network namespace.
fn attach(mut attacher: Attacher, marked: Marked) -> Result<Attacher> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        attacher
            .apply(DeviceEvent::All(devices::current(marked).await?))
            .await;
        let failed = attacher
            .report()
            .into_iter()
            .find(|it| it.is_suitable && it.attached.is_none());
        ensure!(failed.is_none(), "not attached: {failed:?}");
        Ok(attacher)
    })
}

fn settings(node: &Node) -> Settings {
    let [v4, _] = node.addresses();
    let cidr = "10.244.0.0/16".parse().expect("a range");
    Settings {
        node_name: node.name(),
        node_addresses: vec![IpAddr::V4(match v4 {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        })],
        followed: Followed {
            cluster_cidrs: vec![cidr],
            ..Followed::default()
        },
        snat_ports: 1024..=29_999,
        sockets: Sockets::default(),
        first_generation: 1,
    }
}
