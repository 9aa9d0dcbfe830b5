//! Whether the agent does its work, and whether load balancers may send this node connections: decided as
//! kube-proxy does.

mod check;
mod checks;
mod server;

pub use check::check_routes;
pub use checks::HealthCheckServers;
pub use server::{health_routes, metrics_routes};

use crate::cluster::IpFamily;
use crate::sync::{NodeState, Vitals};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// How health is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Criteria {
    /// A change that has been queued for longer and is not written is a sign of illness.
    pub patience: Duration,
    /// Whether a node whose object was never seen is not eligible. A folder of manifests may lack it.
    pub needs_node: bool,
}

/// Who answers for the agent's health.
#[derive(Clone, Debug)]
pub struct Doctor {
    vitals: watch::Receiver<Vitals>,
    criteria: Criteria,
}

impl Doctor {
    /// Of the loop with these vitals.
    pub const fn new(vitals: watch::Receiver<Vitals>, criteria: Criteria) -> Self {
        Self { vitals, criteria }
    }

    /// How it is now.
    pub fn judge(&self) -> Health {
        self.criteria.judge(&self.vitals.borrow(), Instant::now())
    }
}

/// A judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether all families are well.
    pub is_healthy: bool,
    /// Whether the node is there to stay.
    pub is_eligible: bool,
    /// Families of which something has been queued, each with whether it is well, and when everything of it was
    /// last written.
    families: BTreeMap<&'static str, (bool, Option<SystemTime>)>,
}

impl Criteria {
    /// Judges by monotonic time: a clock that jumps changes nothing.
    pub fn judge(&self, vitals: &Vitals, now: Instant) -> Health {
        let is_well = |family: IpFamily| {
            let since = vitals.waiting_since[family as usize];
            since.is_none_or(|since| now.saturating_duration_since(since) <= self.patience)
        };
        let has_begun = |family: &IpFamily| {
            let index = *family as usize;
            vitals.waiting_since[index].is_some() || vitals.written[index].is_some()
        };
        let families = IpFamily::ALL.into_iter().filter(has_begun);
        let families = families.map(|it| (it.name(), (is_well(it), vitals.written[it as usize])));
        Health {
            is_healthy: IpFamily::ALL.into_iter().all(is_well),
            is_eligible: self.is_eligible(vitals.node),
            families: families.collect(),
        }
    }

    const fn is_eligible(&self, node: NodeState) -> bool {
        match node {
            NodeState::Present => true,
            NodeState::NeverSeen => !self.needs_node,
            NodeState::Leaving | NodeState::Gone => false,
        }
    }
}

/// What is answered, with kube-proxy's fields.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: Time,
    current_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    status: BTreeMap<&'static str, FamilyBody>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyBody {
    last_updated: Time,
    healthy: bool,
}

impl Health {
    /// The answer of `/livez`: the agent alone.
    fn livez(&self, now: SystemTime) -> (bool, Body) {
        (self.is_healthy, self.body(self.is_healthy, None, now))
    }

    /// The answer of `/healthz`: the node, too.
    fn healthz(&self, now: SystemTime) -> (bool, Body) {
        let is_well = self.is_healthy && self.is_eligible;
        (is_well, self.body(is_well, Some(self.is_eligible), now))
    }

    fn body(&self, is_well: bool, node_eligible: Option<bool>, now: SystemTime) -> Body {
        let families = self.families.iter();
        let status = families.map(|(name, (healthy, written))| {
            let body = FamilyBody {
                last_updated: Time(*written),
                healthy: *healthy,
            };
            (*name, body)
        });
        let newest = self
            .families
            .values()
            .filter_map(|(_, written)| *written)
            .max();
        Body {
            // Who is well is up to date, however long ago there was something to write.
            last_updated: Time(if is_well { Some(now) } else { newest }),
            current_time: Time(Some(now)),
            node_eligible,
            healthy: self.is_healthy,
            status: status.collect(),
        }
    }
}

/// A time as RFC 3339 has it; of one that there was not, what Go writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time(Option<SystemTime>);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.filter(|time| *time >= UNIX_EPOCH) {
            Some(time) => serializer.collect_str(&humantime::format_rfc3339_nanos(time)),
            None => serializer.serialize_str("0001-01-01T00:00:00Z"),
        }
    }
}

#[cfg(test)]
mod tests;
