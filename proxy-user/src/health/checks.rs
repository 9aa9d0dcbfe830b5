//! The servers at health check node ports: one for each Service, family and address.

use super::{Doctor, check_routes};
use crate::cluster::{IpFamily, ServiceName};
use crate::frontend::HealthCheck;
use crate::http::{answer_all, listen_in_family};
use crate::source::{Notice, Notices};
use crate::sync::HealthChecks;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Between two tries to get a port.
const RETRY: Duration = Duration::from_secs(5);
/// Clients at once of one server. Hundreds of servers must not take all of the agent's files.
const CONNECTIONS: usize = 32;

/// Opens and closes servers as Services and addresses come and go.
#[derive(Debug)]
pub struct HealthCheckServers {
    checks: watch::Receiver<HealthChecks>,
    doctor: Doctor,
    node_name: String,
    notices: Notices,
    open: BTreeMap<Place, Open>,
    /// What could not be opened, and why.
    unbound: BTreeMap<Place, String>,
    complaints: watch::Sender<Vec<String>>,
}

/// Where one Service's health check is answered. In this order the first one gets an address that several want.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    address: SocketAddr,
    service: ServiceName,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, service } = self;
        write!(f, "the health check of Service {service} on {address}")
    }
}

/// Places, each with the `metadata.uid` of its Service.
type Wanted = BTreeMap<Place, Box<str>>;

/// A server, until it is dropped.
#[derive(Debug)]
struct Open(JoinHandle<()>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Open {
    /// The port is free afterwards.
    async fn close(mut self) {
        self.0.abort();
        // It ends by being aborted.
        let _ = (&mut self.0).await;
    }
}

impl HealthCheckServers {
    /// None is open yet. Services hear by `notices` what goes wrong on the node of this name.
    pub fn new(
        checks: watch::Receiver<HealthChecks>,
        doctor: Doctor,
        node_name: impl Into<String>,
        notices: Notices,
    ) -> Self {
        Self {
            checks,
            doctor,
            node_name: node_name.into(),
            notices,
            open: BTreeMap::new(),
            unbound: BTreeMap::new(),
            complaints: watch::Sender::default(),
        }
    }

    /// What could not be opened, and why, from now on.
    pub fn complaints(&self) -> watch::Receiver<Vec<String>> {
        self.complaints.subscribe()
    }

    /// Follows the health checks until nobody tells of them any more; all servers are closed then.
    pub async fn run(mut self) {
        loop {
            let wanted = wanted(&self.checks.borrow_and_update());
            self.close_others(&wanted).await;
            self.open_all(&wanted);
            self.complain();
            let has_failed = !self.unbound.is_empty();
            tokio::select! {
                changed = self.checks.changed() => if changed.is_err() { return },
                () = sleep(RETRY), if has_failed => {}
            }
        }
    }

    /// Before others are opened: they may want the same port.
    async fn close_others(&mut self, wanted: &Wanted) {
        let is_other = |place: &Place, _: &mut Open| !wanted.contains_key(place);
        let others: Vec<_> = self.open.extract_if(.., is_other).collect();
        for (place, open) in others {
            open.close().await;
            debug!("{place} is closed");
        }
        self.unbound.retain(|place, _| wanted.contains_key(place));
    }

    fn open_all(&mut self, wanted: &Wanted) {
        for (place, uid) in wanted {
            if self.open.contains_key(place) {
                continue;
            }
            match self.open(place) {
                Ok(open) => self.opened(place, open),
                Err(why) => self.failed(place, uid, why),
            }
        }
    }

    fn open(&self, place: &Place) -> Result<Open, String> {
        if let Some(holder) = self.holder(place.address) {
            return Err(format!("Service {holder} has this port"));
        }
        let listener = listen_in_family(place.address).map_err(|error| error.to_string())?;
        let router = check_routes(
            place.service.clone(),
            IpFamily::of(place.address.ip()),
            self.checks.clone(),
            self.doctor.clone(),
        );
        Ok(Open(tokio::spawn(async move {
            answer_all(&listener, router, CONNECTIONS).await;
        })))
    }

    fn holder(&self, address: SocketAddr) -> Option<&ServiceName> {
        let first = Place {
            address,
            service: ServiceName::new("", ""),
        };
        let (place, _) = self.open.range(first..).next()?;
        (place.address == address).then_some(&place.service)
    }

    fn opened(&mut self, place: &Place, open: Open) {
        match self.unbound.remove(place) {
            Some(_) => info!("{place} is served after all"),
            None => debug!("{place} is served"),
        }
        self.open.insert(place.clone(), open);
    }

    /// Says so once as long as it is the same.
    fn failed(&mut self, place: &Place, uid: &str, why: String) {
        if self.unbound.get(place) == Some(&why) {
            return;
        }
        warn!("{}", complaint(place, &why));
        self.notices.tell(Notice {
            object: place.service.key(),
            uid: uid.to_owned(),
            reason: "FailedToStartServiceHealthcheck",
            action: "Listen",
            note: format!("node {}: {}", self.node_name, complaint(place, &why)),
        });
        self.unbound.insert(place.clone(), why);
    }

    fn complain(&self) {
        let complaints = self.unbound.iter();
        let complaints = complaints.map(|(place, why)| complaint(place, why));
        let complaints: Vec<String> = complaints.collect();
        self.complaints.send_if_modified(|told| {
            let is_other = *told != complaints;
            *told = complaints;
            is_other
        });
    }
}

fn complaint(place: &Place, why: &str) -> String {
    let seconds = RETRY.as_secs();
    format!("{place} can't be served: {why}; tried again every {seconds} s")
}

fn wanted(checks: &HealthChecks) -> Wanted {
    let mut wanted = Wanted::new();
    for (service, check) in &checks.services {
        let addresses = checks.addresses.iter();
        for address in addresses.filter(|address| is_asked(check, **address)) {
            let place = Place {
                address: (*address, check.port).into(),
                service: service.clone(),
            };
            wanted.insert(place, check.uid.clone());
        }
    }
    wanted
}

fn is_asked(check: &HealthCheck, address: IpAddr) -> bool {
    check.local_endpoints[IpFamily::of(address) as usize].is_some()
}

#[cfg(test)]
mod tests;
