//! The answer to load balancers that ask whether this node has endpoints of a Service, with kube-proxy's headers
//! and body.

use super::Doctor;
use super::server::status;
use crate::cluster::{IpFamily, ServiceName};
use crate::sync::HealthChecks;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use std::sync::Arc;
use tokio::sync::watch;
use tracing::warn;

/// By it a load balancer can spread connections evenly over endpoints instead of nodes.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

#[derive(Clone, Debug)]
struct Check {
    service: Arc<ServiceName>,
    family: IpFamily,
    checks: watch::Receiver<HealthChecks>,
    doctor: Doctor,
}

/// Any path, by any method, of one Service in one family.
pub fn check_routes(
    service: ServiceName,
    family: IpFamily,
    checks: watch::Receiver<HealthChecks>,
    doctor: Doctor,
) -> Router {
    let service = Arc::new(service);
    Router::new().fallback(answer).with_state(Check {
        service,
        family,
        checks,
        doctor,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: Service<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Service<'a> {
    namespace: &'a str,
    name: &'a str,
}

async fn answer(State(check): State<Check>) -> impl IntoResponse {
    let ServiceName { namespace, name } = &*check.service;
    let local_endpoints = check.local_endpoints();
    let service_proxy_healthy = check.doctor.judge().is_healthy;
    let body = text(&Body {
        service: Service { namespace, name },
        local_endpoints,
        service_proxy_healthy,
    });
    let body = body.map_err(|error| {
        warn!("a health check can't be answered: {error}");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, local_endpoints.to_string()),
    ];
    let is_well = local_endpoints > 0 && service_proxy_healthy;
    Ok::<_, StatusCode>((status(is_well), headers, body))
}

impl Check {
    /// As they are now; none of a Service that has just gone.
    fn local_endpoints(&self) -> usize {
        let checks = self.checks.borrow();
        let check = checks.services.get(&*self.service);
        let local = check.and_then(|check| check.local_endpoints[self.family as usize]);
        local.unwrap_or_default()
    }
}

/// With tabs, and nothing behind the last bracket.
fn text(body: &Body<'_>) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"\t");
    body.serialize(&mut Serializer::with_formatter(&mut text, formatter))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_written_as_kube_proxy_writes_it() {
        let body = Body {
            service: Service {
                namespace: "default",
                name: "web",
            },
            local_endpoints: 2,
            service_proxy_healthy: true,
        };
        let text = String::from_utf8(text(&body).unwrap()).unwrap();
        assert_eq!(
            text,
            "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\
             \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"
        );
    }
}
