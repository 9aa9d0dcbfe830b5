//! The paths of the two addresses, with kube-proxy's answers.

use super::{Body, Doctor};
use crate::metrics::{CONTENT_TYPE, Metrics, ProbeMetrics};
use axum::body::Body as Content;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::{any, get};
use axum::{Json, Router};
use std::sync::Arc;
use std::time::SystemTime;
use tracing::warn;

/// `/healthz` and `/livez`, for load balancers and kubelet.
pub fn health_routes(doctor: Doctor, probes: ProbeMetrics) -> Router {
    Router::new()
        .route("/healthz", any(healthz))
        .route("/livez", any(livez))
        .with_state((doctor, probes))
}

/// `/metrics`, for Prometheus; `/proxyMode` and `/healthz` as kube-proxy has them beside it.
pub fn metrics_routes(metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(text))
        .with_state(Arc::new(metrics))
        .route("/proxyMode", get(async || "ferrule"))
        .route("/healthz", any(async || "ok"))
}

async fn healthz(State((doctor, probes)): State<(Doctor, ProbeMetrics)>) -> Response<Content> {
    let health = doctor.judge();
    let (is_well, body) = health.healthz(SystemTime::now());
    probes.count_healthz(is_well);
    answer(is_well, body)
}

async fn livez(State((doctor, probes)): State<(Doctor, ProbeMetrics)>) -> Response<Content> {
    let (is_well, body) = doctor.judge().livez(SystemTime::now());
    probes.count_livez(is_well);
    answer(is_well, body)
}

/// What load balancers and kubelet go by.
pub(super) const fn status(is_well: bool) -> StatusCode {
    match is_well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn answer(is_well: bool, body: Body) -> Response<Content> {
    let mut response = axum::response::IntoResponse::into_response((status(is_well), Json(body)));
    let nosniff = HeaderValue::from_static("nosniff");
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// It reads files and maps.
async fn text(
    State(metrics): State<Arc<Metrics>>,
) -> Result<([(header::HeaderName, &'static str); 1], String), StatusCode> {
    let text = tokio::task::spawn_blocking(move || metrics.text()).await;
    match text {
        Ok(Ok(text)) => Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text)),
        Ok(Err(_)) | Err(_) => {
            warn!("metrics can't be written");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

#[cfg(test)]
mod tests;
