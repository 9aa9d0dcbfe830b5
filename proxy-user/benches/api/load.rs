//! An API server full of Services, and changes of their endpoints.

use super::population::{Member, Population};
use anyhow::{Context as _, Result};
use proxy_user::source::{Event, Object};
use serde_json::Value;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use xtask::api::{ApiServer, Options};
use xtask::cluster::Cluster;

/// The server, and what it serves.
pub(crate) struct Load {
    server: ApiServer,
    kubeconfig: PathBuf,
    population: Population,
    /// Of the ordinary Services.
    members: Vec<Member>,
    many: Member,
    /// How many endpoints it has.
    many_endpoints: u32,
    /// Number of the next endpoint that nobody has yet.
    next: u32,
    /// How often endpoints were changed.
    turn: u32,
}

impl Load {
    /// On the node, where no network slows it down.
    pub(crate) fn prepare(
        cluster: &Cluster,
        population: Population,
        many: u32,
        streams: bool,
    ) -> Result<Self> {
        let node = cluster.node(1).namespace();
        let listener = node.run(|| TcpListener::bind("127.0.0.1:0"))??;
        let options = Options {
            streaming_lists: streams,
            managed_fields: true,
            ..Options::default()
        };
        let server = ApiServer::start(listener, options)?;
        let members: Vec<Member> = population.members().collect();
        let all = population.all_endpoints();
        let many_endpoints = many;
        let many = Member::new(population.services, all, many_endpoints);
        let objects = members.iter().chain([&many]).flat_map(Member::events);
        server.apply_all(objects.map(value).collect::<Result<Vec<_>>>()?)?;
        let kubeconfig = cluster.folder().join("kubeconfig");
        server.write_kubeconfig(&kubeconfig)?;
        Ok(Self {
            server,
            kubeconfig,
            population,
            members,
            next: all + many_endpoints,
            many,
            many_endpoints,
            turn: 0,
        })
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// Changes endpoints at this rate, of ordinary Services or of the one that has many; returns how many.
    pub(crate) fn change(&mut self, rate: u32, seconds: u32, of_many: bool) -> Result<u32> {
        let start = Instant::now();
        let count = rate * seconds;
        for number in 0..count {
            let due = start + Duration::from_secs(1) * number / rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let event = self.replace(of_many);
            self.server.apply(value(event)?)?;
        }
        Ok(count)
    }

    fn replace(&mut self, of_many: bool) -> Event {
        self.turn += 1;
        self.next += 1;
        if of_many {
            let index = self.turn % self.many_endpoints;
            return self.many.replace(index, self.next);
        }
        // A prime: neighbours are far from each other.
        let member = (u64::from(self.turn) * 7_919 % u64::from(self.population.services)) as usize;
        let index = self.turn % self.population.endpoints;
        self.members[member].replace(index, self.next)
    }
}

fn value(event: Event) -> Result<Value> {
    let object = match event {
        Event::Apply(Object::Service(service)) => serde_json::to_value(service),
        Event::Apply(Object::EndpointSlice(slice)) => serde_json::to_value(slice),
        _ => return Ok(Value::Null),
    };
    object.context("an object can't be written")
}
