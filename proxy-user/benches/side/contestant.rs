//! Who takes part, and what each puts on a node.

use crate::empty::Empty;
use crate::ferrule::{At, Ferrule};
use crate::load::Targets;
use crate::netfilter::Writer;
use crate::server::serve;
use crate::services::Services;
use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use xtask::cluster::{Cluster, Masquerade, Node, Pod, Shape};

/// A way from a client to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
pub(crate) enum Contestant {
    /// To the pod's address, with nothing on the nodes.
    Direct,
    /// The same, with programs that do nothing.
    Empty,
    /// The same, with the product's programs: traffic of no Service.
    Bystander,
    /// To a Service: rules of kube-proxy, nftables.
    Nftables,
    /// Rules of kube-proxy, iptables as it was before nf_tables.
    IptablesLegacy,
    /// Rules of kube-proxy, iptables over nf_tables.
    IptablesNft,
    /// Ferrule at devices, packets through the stack.
    Stack,
    /// Ferrule at devices, packets past the stack.
    Fast,
    /// Ferrule at sockets.
    Sockets,
}

/// What else is on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
pub(crate) enum Environment {
    /// Nothing.
    Bare,
    /// A CNI plugin's conntrack and masquerading.
    Tracking,
}

/// Where it takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) environment: Environment,
    /// 1: client and server on one; 2: each on its own, with a router between.
    pub(crate) nodes: u8,
    pub(crate) services: u32,
}

impl Contestant {
    pub(crate) const ALL: [Self; 9] = [
        Self::Direct,
        Self::Empty,
        Self::Bystander,
        Self::Nftables,
        Self::IptablesLegacy,
        Self::IptablesNft,
        Self::Stack,
        Self::Fast,
        Self::Sockets,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Empty => "direct, empty programs",
            Self::Bystander => "direct, beside Ferrule",
            Self::Nftables => "nftables",
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
            Self::Stack => "Ferrule tc",
            Self::Fast => "Ferrule fast lane",
            Self::Sockets => "Ferrule sockets",
        }
    }

    fn is_direct(self) -> bool {
        matches!(self, Self::Direct | Self::Empty | Self::Bystander)
    }

    fn writer(self) -> Option<Writer> {
        match self {
            Self::Nftables => Some(Writer::Nftables),
            Self::IptablesLegacy => Some(Writer::Legacy),
            Self::IptablesNft => Some(Writer::OverNftables),
            Self::Direct
            | Self::Empty
            | Self::Bystander
            | Self::Stack
            | Self::Fast
            | Self::Sockets => None,
        }
    }
}

impl Environment {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Tracking => "conntrack on",
        }
    }
}

/// What has to live as long as a contestant takes part.
enum Machinery {
    Nothing,
    Empty { _programs: Vec<Empty> },
    Ferrule { _programs: Vec<Ferrule> },
}

/// A contestant in a network of its own.
pub(crate) struct Stage {
    pub(crate) contestant: Contestant,
    client: Pod,
    targets: Targets,
    /// Seconds that the last node took to be told of all Services.
    pub(crate) programming: Option<f64>,
    /// Bytes of the maps on the last node.
    pub(crate) maps: Option<u64>,
    _machinery: Machinery,
    cluster: Cluster,
}

impl Stage {
    /// Lays it out; fails also if the rules can't be loaded in this time.
    pub(crate) fn new(contestant: Contestant, setting: Setting, limit: Duration) -> Result<Self> {
        let masquerade = match setting.environment {
            Environment::Bare => Masquerade::Never,
            Environment::Tracking => Masquerade::Outside,
        };
        let shape = Shape {
            masquerade,
            ..Shape::default()
        };
        let mut cluster = Cluster::shaped(setting.nodes, shape)?;
        let client = cluster.add_pod(1, "app")?;
        let server = cluster.add_pod(setting.nodes, "server")?;
        serve(server.namespace())?;
        let services = Services {
            count: setting.services,
            server: server.v4(),
        };
        let mut stage = Self {
            contestant,
            client,
            targets: Targets::new(services, contestant.is_direct()),
            programming: None,
            maps: None,
            _machinery: Machinery::Nothing,
            cluster,
        };
        stage._machinery = stage.equip(services, limit)?;
        Ok(stage)
    }

    fn equip(&mut self, services: Services, limit: Duration) -> Result<Machinery> {
        if let Some(writer) = self.contestant.writer() {
            let rules = writer.rules(services, &[services.server.to_string()]);
            for node in self.cluster.nodes() {
                let time = writer.load(node.namespace(), &rules, limit)?;
                self.programming = Some(time.as_secs_f64());
            }
            return Ok(Machinery::Nothing);
        }
        let nodes = self.cluster.nodes();
        Ok(match self.contestant {
            Contestant::Empty => {
                let programs = nodes.iter().map(|node| Empty::start(node.namespace()));
                let _programs = programs.collect::<Result<_>>()?;
                Machinery::Empty { _programs }
            }
            Contestant::Bystander | Contestant::Stack => self.start(At::Devices, services)?,
            Contestant::Fast => self.start(At::FastDevices, services)?,
            Contestant::Sockets => {
                let cgroup = nodes[0].paths().cgroup.clone();
                let cgroup = anyhow::Context::context(cgroup, "no cgroup v2")?;
                self.client = self.client.within(&cgroup);
                self.start(At::Cgroup, services)?
            }
            _ => Machinery::Nothing,
        })
    }

    fn start(&mut self, at: At, services: Services) -> Result<Machinery> {
        let mut programs = Vec::new();
        for node in self.cluster.nodes() {
            let mut ferrule = Ferrule::start(node, at)?;
            let time = ferrule.program(services, &[services.server])?;
            self.programming = Some(time.as_secs_f64());
            self.maps = Some(ferrule.maps()?);
            programs.push(ferrule);
        }
        Ok(Machinery::Ferrule {
            _programs: programs,
        })
    }

    pub(crate) fn client(&self) -> &Pod {
        &self.client
    }

    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Forgets all connections that netfilter knows: its table would fill, and stall.
    pub(crate) fn forget(&self) -> Result<()> {
        let mut nodes = self.cluster.nodes().iter();
        nodes.try_for_each(Node::forget_tracked)
    }
}
