//! What the agent answers over HTTP.

use crate::config::Run;
use crate::health::{Criteria, Doctor, HealthCheckServers, health_routes, metrics_routes};
use crate::http::{Place, serve};
use crate::metrics::{Metrics, Part, ProbeMetrics, ProblemMetrics, Sources};
use crate::sync::Vitals;
use anyhow::Result;
use axum::Router;
use futures_util::FutureExt as _;
use std::net::SocketAddr;
use tokio::sync::watch;
use tokio::try_join;

/// kube-proxy, with its ports.
const OTHER_OWNER: (&str, [u16; 2]) = ("kube-proxy", [10256, 10249]);

/// What can't be bound, and why.
pub(super) struct Unbound {
    /// Of the address of health, and that of metrics.
    pub(super) addresses: [watch::Receiver<Option<String>>; 2],
    /// Of health check node ports.
    pub(super) health_checks: watch::Receiver<Vec<String>>,
}

impl Unbound {
    pub(super) fn complaints(&self) -> Vec<String> {
        let addresses = self.addresses.iter();
        let mut complaints: Vec<_> = addresses.filter_map(|it| it.borrow().clone()).collect();
        complaints.extend(self.health_checks.borrow().iter().cloned());
        complaints
    }
}

/// Who answers for the agent's health, as the flags have it.
pub(super) fn doctor(run: &Run, vitals: watch::Receiver<Vitals>) -> Doctor {
    let criteria = Criteria {
        patience: 2 * run.sync_period(),
        // A folder of manifests may lack the Node.
        needs_node: run.source.manifests.is_none(),
    };
    Doctor::new(vitals, criteria)
}

/// All addresses, and what is served there.
pub(super) struct Listeners {
    health: Listener,
    metrics: Listener,
    health_checks: HealthCheckServers,
    problems: ProblemMetrics,
}

/// What is served, if anything, and who is told that it can't be.
struct Listener {
    served: Option<(Place, Router)>,
    unbound: watch::Sender<Option<String>>,
}

impl Listeners {
    /// As the flags have it.
    pub(super) fn new(
        run: &Run,
        doctor: Doctor,
        health_checks: HealthCheckServers,
        sources: Sources,
    ) -> Self {
        let probes: ProbeMetrics = sources.probes.clone();
        let place = |what, address| place(what, address, run.bind_address_hard_fail());
        let problems = sources.problems.clone();
        Self {
            health: Listener::new(run.healthz_bind_address().map(|address| {
                let routes = health_routes(doctor, probes);
                (place("health", address), routes)
            })),
            metrics: Listener::new(run.metrics_bind_address().map(|address| {
                let routes = metrics_routes(Metrics::new(sources));
                (place("metrics", address), routes)
            })),
            health_checks,
            problems,
        }
    }

    /// For `ferrule status`.
    pub(super) fn unbound(&self) -> Unbound {
        Unbound {
            addresses: [&self.health, &self.metrics].map(|listener| listener.unbound.subscribe()),
            health_checks: self.health_checks.complaints(),
        }
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// An address can't be had, and is required.
    pub(super) async fn serve(self) -> Result<()> {
        let Self {
            health,
            metrics,
            health_checks,
            problems,
        } = self;
        let complaints = health_checks.complaints();
        try_join!(
            health.serve(Part::HealthPort, &problems),
            metrics.serve(Part::MetricsPort, &problems),
            health_checks.run().map(Ok),
            count(complaints, &problems).map(Ok),
        )
        .map(|_| ())
    }
}

async fn count(mut complaints: watch::Receiver<Vec<String>>, problems: &ProblemMetrics) {
    while complaints.changed().await.is_ok() {
        let is_in_trouble = !complaints.borrow_and_update().is_empty();
        problems.set(Part::HealthCheckPorts, is_in_trouble);
    }
}

impl Listener {
    fn new(served: Option<(Place, Router)>) -> Self {
        let unbound = watch::Sender::new(None);
        Self { served, unbound }
    }

    async fn serve(self, part: Part, problems: &ProblemMetrics) -> Result<()> {
        let Some((place, router)) = self.served else {
            return std::future::pending().await;
        };
        let tell = |complaint: Option<String>| {
            problems.set(part, complaint.is_some());
            self.unbound.send_replace(complaint);
        };
        serve(place, router, tell).await
    }
}

fn place(what: &'static str, address: SocketAddr, is_required: bool) -> Place {
    let (owner, ports) = OTHER_OWNER;
    Place {
        what,
        address,
        usual_owner: ports.contains(&address.port()).then_some(owner),
        is_required,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    #[tokio::test]
    async fn an_address_that_others_have_is_told_until_it_is_free() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let place = place("health", other.local_addr().unwrap(), false);
        let listener = Listener::new(Some((place, Router::new())));
        let mut told = listener.unbound.subscribe();
        let problems = ProblemMetrics::default();
        let seen = problems.clone();
        let served = listener.serve(Part::HealthPort, &problems);
        let follow = async {
            let complaint = told.wait_for(Option::is_some).await.unwrap().clone();
            assert!(complaint.unwrap().starts_with("health can't be served on"));
            assert!(seen.is_in_trouble(Part::HealthPort));
            assert!(!seen.is_in_trouble(Part::MetricsPort));
            drop(other);
            told.wait_for(Option::is_none).await.unwrap();
            assert!(!seen.is_in_trouble(Part::HealthPort));
        };
        tokio::select! {
            ended = served => panic!("{ended:?}"),
            () = follow => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("nothing was told"),
        }
    }
}
