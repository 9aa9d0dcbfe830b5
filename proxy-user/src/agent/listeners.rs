//! What the agent answers over HTTP.

use crate::config::Run;
use crate::health::{Criteria, health_routes, metrics_routes};
use crate::http::{Place, serve};
use crate::metrics::{Metrics, ProbeMetrics, Sources};
use crate::sync::Vitals;
use anyhow::Result;
use axum::Router;
use std::net::SocketAddr;
use tokio::sync::watch;
use tokio::try_join;

/// kube-proxy, with its ports.
const OTHER_OWNER: (&str, [u16; 2]) = ("kube-proxy", [10256, 10249]);

/// Both addresses, and what is served there.
pub(super) struct Listeners {
    health: Option<(Place, Router)>,
    metrics: Option<(Place, Router)>,
}

impl Listeners {
    /// As the flags have it. `needs_node`: whether there must be a Node object.
    pub(super) fn new(
        run: &Run,
        vitals: watch::Receiver<Vitals>,
        needs_node: bool,
        sources: Sources,
    ) -> Self {
        let criteria = Criteria {
            patience: 2 * run.sync_period(),
            needs_node,
        };
        let probes: ProbeMetrics = sources.probes.clone();
        let place = |what, address| place(what, address, run.bind_address_hard_fail());
        Self {
            health: run.healthz_bind_address().map(|address| {
                let routes = health_routes(vitals, criteria, probes);
                (place("health", address), routes)
            }),
            metrics: run.metrics_bind_address().map(|address| {
                let routes = metrics_routes(Metrics::new(sources));
                (place("metrics", address), routes)
            }),
        }
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// An address can't be had, and is required.
    pub(super) async fn serve(self) -> Result<()> {
        try_join!(listen(self.health), listen(self.metrics)).map(|_| ())
    }
}

async fn listen(listener: Option<(Place, Router)>) -> Result<()> {
    match listener {
        Some((place, router)) => serve(place, router).await,
        None => std::future::pending().await,
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
