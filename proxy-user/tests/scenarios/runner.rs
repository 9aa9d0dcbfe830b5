//! Runs a scenario against any datapath.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use proxy_user::datapath::{Capacity, Datapath};
use proxy_user::source::{Event, Kind, Object, ObjectKey, manifests};
use proxy_user::sync::{Followed, HealthChecks, Settings, Sync};
use proxy_user::tables::Sockets;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Beyond what any scenario needs; what is pending then can't be helped.
const TURNS: usize = 200;

const ROOM: Capacity = Capacity {
    frontends_v4: 64,
    frontends_v6: 64,
    services: 64,
    slots: 256,
    backends_v4: 64,
    backends_v6: 64,
    source_ranges: 64,
};

pub(crate) struct Scenario {
    path: PathBuf,
    title: String,
    steps: Vec<Step>,
}

struct Step {
    what: String,
    body: String,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Trouble {
    None,
    /// Writes fail, and are tried again.
    Failures,
    /// Writes fail, and the agent is killed after each step.
    Crashes,
}

/// A run of a scenario.
pub(crate) struct Run<'a, D> {
    scenario: &'a Scenario,
    trouble: Trouble,
    sync: Option<Sync<D>>,
    objects: BTreeMap<ObjectKey, Object>,
    local: BTreeMap<IpAddr, String>,
}

impl Scenario {
    pub(crate) fn read(name: &str) -> Self {
        let path = folder().join(name).with_extension("txt");
        let text = fs::read_to_string(&path).unwrap();
        let mut parts = text.split("== ");
        let title = parts.next().unwrap().to_owned();
        let steps = parts.map(|part| {
            let (what, body) = part.split_once('\n').unwrap();
            Step {
                what: what.to_owned(),
                body: body.to_owned(),
            }
        });
        Self {
            path,
            title,
            steps: steps.collect(),
        }
    }

    /// Whether the maps' sizes matter to it.
    pub(crate) fn has_capacity(&self) -> bool {
        self.steps.iter().any(|step| step.what == "capacity")
    }

    pub(crate) fn all() -> Vec<String> {
        let files = fs::read_dir(folder()).unwrap().map(|it| it.unwrap().path());
        let texts = files.filter(|path| path.extension().is_some_and(|it| it == "txt"));
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<String> = texts.map(stem).collect();
        names.sort_unstable();
        names
    }

    /// Compares with what came out, expectation by expectation.
    pub(crate) fn assert(&self, outcomes: &[String], weather: &str) {
        let expected = self.steps.iter().filter(|step| step.what == "expect");
        for (number, (step, outcome)) in (1..).zip(expected.zip(outcomes)) {
            let at = format!("{}, {weather}, expectation {number}", self.path.display());
            assert_eq!(step.body.trim(), outcome.trim(), "{at}:\n{outcome}");
        }
    }

    pub(crate) fn rewrite(&self, outcomes: &[String]) {
        let mut outcomes = outcomes.iter();
        let mut text = self.title.clone();
        for step in &self.steps {
            let body = match step.what.as_str() {
                "expect" => outcomes.next().unwrap(),
                _ => &step.body,
            };
            writeln!(text, "== {}\n{}", step.what, body.trim_end()).unwrap();
        }
        fs::write(&self.path, text.replace("\n\n==", "\n==")).unwrap();
    }

    fn capacity(&self) -> Capacity {
        let mut capacity = ROOM;
        let first = self.steps.first().filter(|step| step.what == "capacity");
        for line in first.iter().flat_map(|step| step.body.lines()) {
            let (map, rows) = line.split_once(' ').unwrap();
            let rows = rows.parse().unwrap();
            match map {
                "FRONTENDS_V4" => capacity.frontends_v4 = rows,
                "SERVICES" => capacity.services = rows,
                "SLOTS" => capacity.slots = rows,
                "BACKENDS_V4" => capacity.backends_v4 = rows,
                other => panic!("no such map: {other}"),
            }
        }
        capacity
    }
}

impl<'a, D: Datapath> Run<'a, D> {
    pub(crate) fn new(
        scenario: &'a Scenario,
        trouble: Trouble,
        open: impl FnOnce(Capacity) -> D,
    ) -> Self {
        let mut run = Self {
            scenario,
            trouble,
            sync: None,
            objects: BTreeMap::new(),
            local: BTreeMap::new(),
        };
        run.start(open(scenario.capacity()));
        run
    }

    /// What the scenario's expectations should be.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let mut outcomes = Vec::new();
        for step in &self.scenario.steps {
            match step.what.as_str() {
                "capacity" => {}
                "apply" => self.apply(&step.body),
                "delete" => self.delete(&step.body),
                "local" => self.set_local(&step.body),
                "restart" => self.restart(),
                "expect" => outcomes.push(self.outcome()),
                other => panic!("no such step: {other}"),
            }
        }
        outcomes
    }

    fn apply(&mut self, manifests: &str) {
        let objects = manifests::objects(manifests).unwrap();
        for object in &objects {
            self.objects.insert(object.key(), object.clone());
        }
        self.turn(objects.into_iter().map(Event::Apply).collect());
    }

    fn delete(&mut self, lines: &str) {
        let keys: Vec<ObjectKey> = lines.lines().map(key).collect();
        for key in &keys {
            self.objects.remove(key).unwrap();
        }
        self.turn(keys.into_iter().map(Event::Delete).collect());
    }

    fn set_local(&mut self, lines: &str) {
        let lines = lines.lines().map(|line| line.split_once(' ').unwrap());
        let addresses = lines.map(|(ip, device)| (ip.parse().unwrap(), device.to_owned()));
        self.local = addresses.collect();
        let local = self.local.clone();
        self.sync().set_local_addresses(local);
        self.weather();
    }

    fn turn(&mut self, events: Vec<Event>) {
        self.sync().apply(events);
        self.weather();
    }

    fn weather(&mut self) {
        if self.trouble == Trouble::Crashes {
            self.restart();
        }
        self.settle();
    }

    fn restart(&mut self) {
        let datapath = self.sync.take().unwrap().into_datapath();
        self.start(datapath);
    }

    fn start(&mut self, datapath: D) {
        let settings = Settings {
            node_name: "node-a".to_owned(),
            node_addresses: Vec::new(),
            followed: Followed::default(),
            snat_ports: 40000..=49999,
            sockets: Sockets::default(),
            first_generation: 1000,
        };
        let mut sync = Sync::new(settings, datapath).unwrap();
        sync.set_local_addresses(self.local.clone());
        let known = self.objects.values().cloned().map(Event::Apply);
        sync.apply(known.collect());
        sync.apply(vec![Event::Synced]);
        self.sync = Some(sync);
        self.settle();
    }

    fn settle(&mut self) {
        let sync = self.sync();
        for _ in 0..TURNS {
            if let Some(batch) = sync.take_freed() {
                sync.release(batch);
            }
            if !sync.needs_retry() {
                return;
            }
            sync.retry();
        }
    }

    fn outcome(&mut self) -> String {
        let sync = self.sync();
        let mut text = sync.datapath().dump().unwrap().to_string();
        text.push_str(&health_checks(&sync.health_checks().borrow()));
        let report = sync.report();
        for skipped in report.skipped {
            let (object, field, why) = (skipped.object, skipped.field, skipped.why);
            writeln!(text, "skipped: {object}: {field}: {why}").unwrap();
        }
        if report.pending > 0 {
            let why = report.last_error.unwrap();
            writeln!(text, "pending: {} ({why})", report.pending).unwrap();
        }
        text
    }

    fn sync(&mut self) -> &mut Sync<D> {
        self.sync.as_mut().unwrap()
    }
}

/// A line each: where it is answered, and how many endpoints are here.
fn health_checks(told: &HealthChecks) -> String {
    let mut text = String::new();
    for (service, check) in &told.services {
        write!(text, "health check: {service}").unwrap();
        for address in &told.addresses {
            let at = SocketAddr::new(*address, check.port);
            if let Some(local) = check.local_endpoints[usize::from(address.is_ipv6())] {
                write!(text, ", {local} at {at}").unwrap();
            }
        }
        text.push('\n');
    }
    text
}

fn key(line: &str) -> ObjectKey {
    let (kind, name) = line.split_once(' ').unwrap();
    let kind = match kind {
        "Service" => Kind::Service,
        "EndpointSlice" => Kind::EndpointSlice,
        "Node" => Kind::Node,
        "Pod" => Kind::Pod,
        "ServiceCIDR" => Kind::ServiceCidr,
        other => panic!("no such kind: {other}"),
    };
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    ObjectKey {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// A virtual machine has them elsewhere than where the test was built.
fn folder() -> PathBuf {
    let elsewhere = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = elsewhere.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.join("tests/scenarios")
}
