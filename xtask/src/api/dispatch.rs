//! From a request to its answer: who asks, what for, and who answers.

use super::fault::{Effect, Moment};
use super::query::Query;
use super::resource::Target;
use super::shared::Shared;
use super::status::Status;
use super::{Request, discovery, list, watch, write};
use axum::body::Body;
use axum::extract::Query as Parameters;
use axum::http::{HeaderMap, Method, Response, Uri, header};
use hyper::body::Incoming;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

type HttpRequest = hyper::Request<Incoming>;

/// Answers a request; errors are answers, too.
pub(super) async fn respond(
    shared: Arc<Shared>,
    request: HttpRequest,
) -> Result<Response<Body>, Infallible> {
    let answer = answer(&shared, request).await;
    Ok(answer.unwrap_or_else(|status| status.response()))
}

async fn answer(shared: &Arc<Shared>, request: HttpRequest) -> Result<Response<Body>, Status> {
    record(shared, &request);
    let parameters: HashMap<String, String> = Parameters::try_from_uri(request.uri())
        .map_err(|error| Status::bad_request(error.to_string()))?
        .0;
    let target = target(request.uri());
    let is_watch = parameters
        .get("watch")
        .is_some_and(|it| it == "1" || it == "true");
    let resource = target.as_ref().map(|target| target.resource);
    match shared.fault(resource, is_watch, Moment::Request, "") {
        Some(Effect::Status { code, retry_after }) => return Err(injected(code, retry_after)),
        Some(_) => return pending().await,
        None => {}
    }
    if let Some(open) = discovery::open(request.uri().path()) {
        return Ok(open);
    }
    authenticate(shared, request.headers())?;
    let Some(target) = target else {
        return discovery::answer(request.method(), request.uri().path());
    };
    authorize(shared, request.method(), &target, is_watch)?;
    match *request.method() {
        Method::GET => read(shared, target, &parameters).await,
        _ => write::answer(shared, target, request).await,
    }
}

async fn read(
    shared: &Arc<Shared>,
    target: Target,
    parameters: &HashMap<String, String>,
) -> Result<Response<Body>, Status> {
    if let Some(name) = &target.name {
        return list::object(shared, &target, name);
    }
    let query = Query::parse(target.resource, parameters, shared.options.streaming_lists)?;
    match query.watch {
        true => watch::open(shared, target, query).await,
        false => list::list(shared, &target, &query).await,
    }
}

fn target(uri: &Uri) -> Option<Target> {
    Target::parse(uri.path())
}

fn record(shared: &Shared, request: &HttpRequest) {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let agent = request.headers().get(header::USER_AGENT);
    let request = Request {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: text(request.uri().query()),
        user_agent: text(agent.and_then(|agent| agent.to_str().ok())),
        at: Instant::now(),
    };
    shared.state().requests.push(request);
}

fn injected(code: u16, retry_after: Option<u32>) -> Status {
    let (reason, message) = match code {
        410 => (
            "Expired",
            "The resourceVersion for the provided list is too old.",
        ),
        429 => (
            "TooManyRequests",
            "Too many requests, please try again later.",
        ),
        500 => (
            "InternalError",
            "Internal error occurred: etcdserver: request timed out",
        ),
        503 => (
            "ServiceUnavailable",
            "the server is currently unable to handle the request",
        ),
        504 => ("Timeout", "the server did not answer in time"),
        _ => (
            "",
            "an error on the server has prevented the request from succeeding",
        ),
    };
    let status = Status::new(code, reason, message);
    match retry_after {
        Some(seconds) => status.with_retry_after(seconds),
        None => status,
    }
}

fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<(), Status> {
    let state = shared.state();
    let Some(token) = &state.token else {
        return Ok(());
    };
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match given == Some(token.as_str()) {
        true => Ok(()),
        false => Err(Status::new(401, "Unauthorized", "Unauthorized")),
    }
}

fn authorize(
    shared: &Shared,
    method: &Method,
    target: &Target,
    is_watch: bool,
) -> Result<(), Status> {
    let (resource, state) = (target.resource, shared.state());
    if !state
        .forbidden
        .iter()
        .any(|plural| plural == resource.plural)
    {
        return Ok(());
    }
    let verb = match (method.as_str(), &target.name) {
        ("GET", Some(_)) => "get",
        ("GET", None) if is_watch => "watch",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        _ => "delete",
    };
    let user = match state.token {
        Some(_) => super::USER,
        None => "system:anonymous",
    };
    let place = match &target.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    let message = format!(
        "{} is forbidden: User \"{user}\" cannot {verb} resource \"{}\" in API group \"{}\" {place}",
        resource.qualified(),
        resource.plural,
        resource.group
    );
    Err(Status::new(403, "Forbidden", message))
}
