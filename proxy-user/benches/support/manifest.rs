//! From a changed manifest to the map row that follows.

use super::stats::Samples;
use super::{LIMIT, POLL};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use proxy_common::{AddrV4, Address as _, Frontend, FrontendKey, Port, Proto};
use proxy_user::datapath::bpf::Row;
use proxy_user::datapath::pins::Pins;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};
use xtask::cluster::{Cluster, Manifests, Pod, Protocol, Service, ServicePort};

/// The service whose endpoint moves.
const MOVING: u16 = 0;
/// Where it moves between.
const PLACES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 1, 2), Ipv4Addr::new(10, 244, 1, 3)];

/// Writes so many services.
pub(crate) fn write(cluster: &Cluster, services: u16) -> Result<()> {
    let manifests = cluster.manifests()?;
    (0..services).try_for_each(|number| manifests.write(&service(cluster, number)))
}

/// Moves the endpoint so many times; milliseconds until the service's word has changed.
pub(crate) fn measure(cluster: &Cluster, runs: u32) -> Result<Samples> {
    let manifests = cluster.manifests()?;
    let file = format!("endpointslice-{}-ipv4", service(cluster, MOVING).name);
    let here = std::fs::read_to_string(manifests.folder().join(format!("{file}.yaml")))?;
    let there = here.replace(&PLACES[0].to_string(), &PLACES[1].to_string());
    ensure!(here != there, "{file} does not name {}", PLACES[0]);
    let word = ServiceWord::open(&cluster.node(1).paths().bpffs)?;
    let mut samples = Samples::default();
    for run in 0..runs {
        let slice = if run % 2 == 0 { &there } else { &here };
        samples.0.push(one(&manifests, &file, slice, &word)?);
        // Not in step with anything that the agent does from time to time.
        std::thread::sleep(Duration::from_millis(u64::from(15 + run % 7)));
    }
    Ok(samples)
}

fn one(manifests: &Manifests, file: &str, slice: &str, word: &ServiceWord) -> Result<f64> {
    let before = word.read()?;
    let start = Instant::now();
    manifests.replace(file, slice)?;
    while word.read()? == before {
        ensure!(start.elapsed() < LIMIT, "no change in {LIMIT:?}");
        std::thread::sleep(POLL);
    }
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

/// The row of the moving service in `SERVICES`.
struct ServiceWord {
    services: Array<MapData, u64>,
    id: u32,
}

impl ServiceWord {
    fn open(bpffs: &Path) -> Result<Self> {
        let pins = Pins::new(bpffs);
        let open =
            |name| -> Result<Map> { Ok(Map::from_map_data(MapData::from_pin(pins.map(name))?)?) };
        let frontends: HashMap<_, Row<FrontendKey<AddrV4>>, Row<Frontend>> =
            open("FRONTENDS_V4")?.try_into()?;
        let key = FrontendKey::new(AddrV4::new(address(MOVING)), Port::new(80), Proto::Tcp);
        let row = frontends
            .get(&Row(key), 0)
            .context("the service is not in the maps")?;
        Ok(Self {
            services: open("SERVICES")?.try_into()?,
            id: row.0.service,
        })
    }

    fn read(&self) -> Result<u64> {
        Ok(self.services.get(&self.id, 0)?)
    }
}

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(10, 96, high, low)
}

fn service(cluster: &Cluster, number: u16) -> Service {
    let place = cluster.node(1).namespace().clone();
    let pod = Pod::outside("pod", place, PLACES[0], Ipv6Addr::LOCALHOST);
    Service {
        name: format!("bench-{number}"),
        cluster_ips: vec![address(number).into()],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            target_port: 8080,
            node_port: None,
        }],
        pods: vec![pod],
        spec_lines: Vec::new(),
    }
}
