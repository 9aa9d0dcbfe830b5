//! Objects from the API server: one watch for each kind.
//!
//! What is known stays in force whatever becomes of a watch. It is resumed where it broke off; where the server does
//! not know that point any more, everything is listed again, and only what differs has an effect.

mod connection;
mod events;
mod failure;
mod follow;
mod known;
mod pulse;
mod recovery;
mod seen;
mod servers;

pub use connection::{ApiSettings, Connection};
pub use pulse::{Watch, WatchReport};

use super::{Delivery, Kind, Notice};
use anyhow::{Result, bail};
use follow::{Follower, Selection, Synced};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use pulse::Pulse;
use seen::Watched;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What is followed of the cluster, as seen from one node.
#[derive(Debug)]
pub struct ApiSource {
    connection: Connection,
    node_name: String,
    silence: Duration,
    pulses: Vec<Arc<Pulse>>,
}

const KINDS: [Kind; 5] = [
    Kind::Node,
    Kind::ServiceCidr,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Pod,
];

/// The kinds that are listed and watched: API group and plural of each.
pub fn watched() -> Vec<(String, String)> {
    fn name<K: Watched>() -> (String, String) {
        (K::group(&()).into(), K::plural(&()).into())
    }
    vec![
        name::<Node>(),
        name::<ServiceCIDR>(),
        name::<Service>(),
        name::<EndpointSlice>(),
        name::<Pod>(),
    ]
}

impl ApiSource {
    /// Nothing is asked before [`ApiSource::run`]. A watch that brings nothing for `silence` is made anew.
    pub fn new(connection: Connection, node_name: impl Into<String>, silence: Duration) -> Self {
        let pulses = KINDS.map(|kind| Arc::new(Pulse::new(kind)));
        Self {
            connection,
            node_name: node_name.into(),
            silence,
            pulses: pulses.into(),
        }
    }

    /// How the watches are doing, from now on.
    pub fn watches(&self) -> Vec<Watch> {
        self.pulses.iter().map(|pulse| pulse.watch()).collect()
    }

    /// Sends what there is and what changes, until nobody listens, and what `notices` brings to the cluster. [`Event::Synced`] comes when all kinds have been
    /// listed.
    ///
    /// # Errors
    /// A task has ended that should not.
    pub async fn run(
        self,
        events: mpsc::Sender<Delivery>,
        notices: mpsc::Receiver<Notice>,
    ) -> Result<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(events::announce(
            self.connection.clone(),
            self.node_name.clone(),
        ));
        tasks.spawn(events::tell(
            self.connection.clone(),
            self.node_name.clone(),
            notices,
        ));
        let synced = Synced::of(KINDS.len());
        for pulse in &self.pulses {
            self.follow(pulse, &synced, &events, &mut tasks);
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                bail!("following the API server: {error}");
            }
        }
        Ok(())
    }

    fn follow(
        &self,
        pulse: &Arc<Pulse>,
        synced: &Synced,
        events: &mpsc::Sender<Delivery>,
        tasks: &mut JoinSet<()>,
    ) {
        let follower = Follower::new(
            self.connection.clone(),
            Arc::clone(pulse),
            self.silence,
            synced.clone(),
            events.clone(),
        );
        match pulse.kind() {
            Kind::Service => tasks.spawn(follower.run::<Service>(Selection {
                labels: Some("!service.kubernetes.io/service-proxy-name".into()),
                fields: Some("spec.clusterIP!=None".into()),
                ..Selection::default()
            })),
            Kind::EndpointSlice => tasks.spawn(follower.run::<EndpointSlice>(Selection {
                labels: Some("!service.kubernetes.io/headless".into()),
                ..Selection::default()
            })),
            Kind::Node => tasks.spawn(follower.run::<Node>(Selection {
                fields: Some(format!("metadata.name={}", self.node_name)),
                ..Selection::default()
            })),
            Kind::Pod => tasks.spawn(follower.run::<Pod>(Selection {
                fields: Some(format!("spec.nodeName={}", self.node_name)),
                ..Selection::default()
            })),
            // Kubernetes has them from 1.33 on.
            Kind::ServiceCidr => tasks.spawn(follower.run::<ServiceCIDR>(Selection {
                may_be_missing: true,
                ..Selection::default()
            })),
        };
    }
}

#[cfg(test)]
mod tests;
