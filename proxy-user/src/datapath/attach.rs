//! The programs on the hooks of devices: first at ingress, last at egress.

mod clsact;
mod filters;
mod settling;
mod tcx;

pub use clsact::{detach as detach_filter, has_qdisc, remove_qdisc};
pub use filters::Filters;

use crate::datapath::devices::DeviceEvent;
use crate::datapath::features::{Feature, Features};
use crate::datapath::hook::{Device, Framing, Hook};
use crate::datapath::object::program;
use crate::datapath::pins::Pins;
use crate::datapath::rows::{DeviceRows, State};
use anyhow::Result;
use aya::Ebpf;
use serde::{Deserialize, Serialize};
use settling::Settling;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tracing::{info, warn};

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// As links of their own, with an order among them (Linux 6.6).
    Tcx,
    /// As filters of a clsact qdisc.
    Clsact,
}

impl Method {
    /// The best that a kernel with these features has.
    pub fn best(features: &Features) -> Self {
        if features.has(Feature::Tcx) {
            Self::Tcx
        } else {
            Self::Clsact
        }
    }
}

/// Owner of the loaded programs, and of what is attached where.
pub struct Attacher {
    programs: Ebpf,
    pins: Pins,
    method: Method,
    rows: DeviceRows,
    devices: BTreeMap<u32, Attached>,
    settling: Settling,
    /// Whether all devices have been listed once: those that come later are new.
    has_list: bool,
}

/// A device, and what stood in the way of its hooks.
struct Attached {
    device: Device,
    problem: Option<String>,
}

/// A device in `ferrule status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Whether programs belong there.
    pub is_suitable: bool,
    /// How its programs are attached; `None`: not at all.
    pub attached: Option<Method>,
    /// Why not.
    pub why_not: Option<String>,
    /// The addresses that mask flows which leave by it, if routing does not say others.
    pub sources: Vec<IpAddr>,
    /// Whether it belongs to the fast lane.
    pub is_fast: bool,
}

impl Attacher {
    /// Of a loaded object's programs.
    ///
    /// # Errors
    /// The map of devices can't be read.
    pub fn new(programs: Ebpf, pins: Pins, method: Method) -> Result<Self> {
        Ok(Self {
            programs,
            method,
            rows: DeviceRows::open(&pins)?,
            pins,
            devices: BTreeMap::new(),
            settling: Settling::default(),
            has_list: false,
        })
    }

    /// The programs, also those of other hooks.
    pub const fn programs(&mut self) -> &mut Ebpf {
        &mut self.programs
    }

    /// Follows what happens to the devices.
    pub async fn apply(&mut self, event: DeviceEvent) {
        match event {
            DeviceEvent::Present(device) => {
                let index = device.index;
                self.present(device).await;
                self.settling.heard_of(index);
            }
            DeviceEvent::Gone(index) => self.gone(index),
            DeviceEvent::All(devices) => {
                let there: BTreeSet<u32> = devices.iter().map(|device| device.index).collect();
                for index in self.known().difference(&there) {
                    self.gone(*index);
                }
                for device in devices {
                    self.present(device).await;
                }
                self.has_list = true;
            }
        }
    }

    /// Every device that something is there of.
    fn known(&self) -> BTreeSet<u32> {
        let known = self.devices.keys().copied().chain(self.rows.indices());
        let pinned = self.pins.linked_devices().into_iter();
        known.chain(pinned).chain(self.pins.own_qdiscs()).collect()
    }

    /// Completes when a new device has settled; never while there is none.
    pub async fn settled(&self) {
        match self.settling.next() {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the devices that have settled.
    pub async fn take_settled(&mut self) {
        for device in self.settling.take() {
            self.take(device).await;
        }
    }

    /// The devices, by index.
    pub fn report(&self) -> Vec<DeviceReport> {
        self.devices
            .values()
            .map(|attached| self.report_of(attached))
            .collect()
    }

    fn report_of(&self, Attached { device, problem }: &Attached) -> DeviceReport {
        let objection = device.suitability.objection().map(str::to_owned);
        let why_not = objection.or_else(|| problem.clone());
        DeviceReport {
            index: device.index,
            name: device.name.clone(),
            is_suitable: device.suitability.framing().is_some(),
            attached: why_not.is_none().then_some(self.method),
            why_not,
            sources: self.rows.sources(device.index),
            is_fast: device.traits.is_fast,
        }
    }

    async fn present(&mut self, device: Device) {
        // First of all: a program must find the row of its device.
        let is_described = self.rows.put(&device, self.state(&device));
        if is_described.is_ok() && self.is_settled(&device).await {
            if let Some(known) = self.devices.get_mut(&device.index) {
                known.device = device;
            }
            return;
        }
        if self.must_settle(&device) {
            self.settling.hold(&device);
            let problem = Some("new: left alone until its set-up is done".to_owned());
            self.devices
                .insert(device.index, Attached { device, problem });
            return;
        }
        self.take(device).await;
    }

    /// Whether programs are where they belong, and nothing has happened that could move them.
    async fn is_settled(&mut self, device: &Device) -> bool {
        let Some(known) = self.devices.get(&device.index) else {
            return false;
        };
        let is_same = known.device.name == device.name
            && known.device.suitability == device.suitability
            && known.problem.is_none();
        is_same && self.is_as_left(device).await
    }

    /// Links leave room for whatever others add to a device.
    fn must_settle(&self, device: &Device) -> bool {
        let is_new = self.has_list && !self.devices.contains_key(&device.index);
        let is_suitable = device.suitability.framing().is_some();
        self.method == Method::Clsact
            && is_suitable
            && (is_new || self.settling.holds(device.index))
    }

    /// Attaches the programs to a device, or detaches them from one that has become unsuitable.
    async fn take(&mut self, device: Device) {
        self.settling.forget(device.index);
        let problem = match device.suitability.framing() {
            Some(framing) => {
                let failed = self.attach(&device, framing).await.err();
                failed.map(|error| match self.rows.put(&device, State::Bare) {
                    Ok(()) => error,
                    Err(second) => error.context(second),
                })
            }
            None => {
                self.detach(&device);
                self.rows.put(&device, State::Bare).err()
            }
        };
        let problem = problem.map(|error| format!("{error:#}"));
        let before = self.devices.get(&device.index);
        let is_known = before.is_some_and(|before| before.problem == problem);
        match &problem {
            Some(_) if is_known => {}
            Some(problem) => warn!("device {}: {problem}", device.name),
            None if device.suitability.framing().is_some() => {
                info!("device {}: attached", device.name);
            }
            None => {}
        }
        self.devices
            .insert(device.index, Attached { device, problem });
    }

    /// Whether nobody has taken our programs off a device. Unknown counts as yes: a device that is
    /// gone or renamed has an event of its own.
    async fn is_as_left(&mut self, device: &Device) -> bool {
        let Some(framing) = device.suitability.framing() else {
            return true;
        };
        match self.method {
            Method::Tcx => Hook::ALL.into_iter().all(|hook| {
                let program = program(&mut self.programs, hook, framing);
                program
                    .and_then(|program| tcx::is_attached(program, device, hook))
                    .unwrap_or(true)
            }),
            Method::Clsact => Filters::of(device.index).await.map_or(true, |filters| {
                Hook::ALL
                    .into_iter()
                    .all(|hook| filters.ours().any(|ours| ours == hook))
            }),
        }
    }

    /// Egress first: what ingress translates, egress must be able to undo. Then whatever an earlier
    /// agent has attached by the other method goes, or packets would meet both.
    async fn attach(&mut self, device: &Device, framing: Framing) -> Result<()> {
        self.rows.put(device, self.state(device))?;
        if self.method == Method::Clsact {
            // Without room for filters the links of an earlier agent must not stay behind either.
            let made = clsact::make_qdisc(&self.pins, device).await;
            made.inspect_err(|_| self.pins.unlink(device.index))?;
        }
        for hook in [Hook::Egress, Hook::Ingress] {
            let program = program(&mut self.programs, hook, framing)?;
            match self.method {
                Method::Tcx => tcx::attach(program, &self.pins, device, hook)?,
                Method::Clsact => clsact::attach(program, device, hook)?,
            }
        }
        match self.method {
            Method::Tcx => clsact::detach_all(device),
            Method::Clsact => self.pins.unlink(device.index),
        }
        self.rows.put(device, State::Ready)
    }

    /// By what is known; of a device that is not known yet by what an earlier agent has left, whose programs are in
    /// force.
    fn state(&self, device: &Device) -> State {
        let is_ready = match self.devices.get(&device.index) {
            Some(known) => {
                known.problem.is_none() && known.device.suitability == device.suitability
            }
            None => self.rows.is_fast(device.index),
        };
        if is_ready { State::Ready } else { State::Bare }
    }

    /// A device may have been suitable before.
    fn detach(&self, device: &Device) {
        self.pins.unlink(device.index);
        clsact::detach_all(device);
    }

    fn gone(&mut self, index: u32) {
        if let Err(error) = self.rows.remove(index) {
            // Tried again with the next list.
            warn!("device {index}, which is gone: {error:#}");
        }
        self.pins.forget(index);
        self.settling.forget(index);
        self.devices.remove(&index);
    }
}
