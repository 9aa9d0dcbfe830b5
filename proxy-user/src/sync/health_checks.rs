//! What is told of health checks: of which Services load balancers ask, and how many endpoints are here.

use super::{Entry, Sync};
use crate::cluster::{ServiceName, ServiceView};
use crate::datapath::Datapath;
use crate::frontend::{HealthCheck, health_check, health_check_addresses};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio::sync::watch;

/// The health checks of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthChecks {
    /// By Service, as of the rows that have been written.
    pub services: BTreeMap<ServiceName, HealthCheck>,
    /// Where they are answered; the unspecified address of a family stands for all of it.
    pub addresses: Vec<IpAddr>,
}

impl HealthChecks {
    /// Takes in what has become of a Service's; returns whether ports have to be opened or closed.
    pub fn set(&mut self, name: &ServiceName, check: Option<&HealthCheck>) -> bool {
        let before = match check {
            Some(check) => self.services.insert(name.clone(), check.clone()),
            None => self.services.remove(name),
        };
        ports(before.as_ref()) != ports(check)
    }
}

/// The port, and in which families it is open.
fn ports(check: Option<&HealthCheck>) -> Option<(u16, [bool; 2])> {
    check.map(|it| (it.port, it.local_endpoints.map(|local| local.is_some())))
}

impl<D: Datapath> Sync<D> {
    /// The health checks, from now on. Numbers of endpoints that change are there to be read, but no change that
    /// [`watch::Receiver::changed`] tells of.
    pub fn health_checks(&self) -> watch::Receiver<HealthChecks> {
        self.health_checks.subscribe()
    }

    pub(super) fn health_check(&self, view: &ServiceView) -> Option<Box<HealthCheck>> {
        view.health_check.as_ref()?;
        let local_ready = self.cluster.local_ready(&view.name);
        health_check(view, local_ready).map(Box::new)
    }

    /// The rows of a Service have been written: what is told of it follows. Nobody is to be sent here for one that
    /// there was no room for.
    pub(super) fn tell_of_health_check(&self, name: &ServiceName) {
        let is_served = |entry: &Entry| !entry.lacks_room || !entry.actual.is_empty();
        let entry = self.services.get(name).filter(|entry| is_served(entry));
        let check = entry.and_then(|entry| entry.health_check.as_deref());
        self.health_checks
            .send_if_modified(|told| told.services.get(name) != check && told.set(name, check));
    }

    pub(super) fn tell_of_health_check_addresses(&self) {
        let now = health_check_addresses(&self.node, &self.settings.followed.node_ports);
        self.health_checks.send_if_modified(|told| {
            let is_other = told.addresses != now;
            told.addresses = now;
            is_other
        });
    }
}
