//! GET of collections and of single objects.

use super::fault::{Effect, Moment};
use super::object::Object;
use super::query::{Match, Query, Version};
use super::resource::{Resource, Target};
use super::shared::Shared;
use super::status::{Status, json_response};
use super::store::Page;
use super::stream;
use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long a list waits for a version that has not been written yet.
const PATIENCE: Duration = Duration::from_secs(3);

/// Size of the pieces in which a list is sent, in bytes.
const PIECE: usize = 64 << 10;

/// Answers with one object.
pub(super) fn object(
    shared: &Shared,
    target: &Target,
    name: &str,
) -> Result<Response<Body>, Status> {
    let found = shared
        .state()
        .store
        .get(target.resource, &target.key(name))
        .cloned();
    let found = found.ok_or_else(|| Status::not_found(&target.resource.qualified(), name))?;
    Ok(answer(shared, target.resource, vec![found.json()]))
}

/// Answers with a list.
pub(super) async fn list(
    shared: &Shared,
    target: &Target,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let page = page(shared, target, query).await?;
    Ok(answer(
        shared,
        target.resource,
        render(target.resource, query, &page),
    ))
}

/// The objects that are asked for.
async fn page(shared: &Shared, target: &Target, query: &Query) -> Result<Page, Status> {
    if let Version::At(revision) = query.version
        && query.next.is_none()
    {
        wait_for(shared, revision).await?;
    }
    let state = shared.state();
    let (newest, store) = (state.store.revision(), &state.store);
    let (revision, start, limit) = match (&query.next, query.version, query.matching) {
        (Some(token), _, _) => {
            let (revision, start) = read_token(token)?;
            (revision.unwrap_or(newest), start, query.limit)
        }
        // The cache answers this one, and does not page.
        (None, Version::Any, _) => (newest, String::new(), usize::MAX),
        (None, Version::At(revision), Some(Match::Exact)) => (revision, String::new(), query.limit),
        // A page of a version has to be of this version.
        (None, Version::At(revision), None) if query.limit < usize::MAX => {
            (revision, String::new(), query.limit)
        }
        (None, Version::At(_) | Version::Newest, _) => (newest, String::new(), query.limit),
    };
    if let Err(expired) = store.check_known(target.resource, revision) {
        return Err(match query.next {
            Some(_) => expired_token(&start),
            None => expired,
        });
    }
    Ok(store.page(target, &query.selector, (revision, &start, limit)))
}

/// Waits until this version has been written.
///
/// # Errors
/// 504 when it takes too long.
pub(super) async fn wait_for(shared: &Shared, revision: u64) -> Result<(), Status> {
    let mut revisions = shared.revisions();
    let reached = revisions.wait_for(|current| *current >= revision);
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    match reached {
        Ok(_) => Ok(()),
        Err(_) => Err(Status::too_new(revision, shared.state().store.revision())),
    }
}

/// The pieces of a list's body.
fn render(resource: Resource, query: &Query, page: &Page) -> Vec<Bytes> {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if page.remaining > 0
        && let Some(last) = page.objects.last()
    {
        // The key after this one; no key has a byte smaller than this.
        let token = token(Some(page.revision), &format!("{}\0", last.key));
        metadata["continue"] = token.into();
        if query.selector.is_everything() {
            metadata["remainingItemCount"] = page.remaining.into();
        }
    }
    let (kind, version) = (resource.kind, resource.api_version());
    let head = format!(
        "{{\"kind\":\"{kind}List\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},\"items\":["
    );
    pieces(head, &page.objects)
}

fn pieces(head: String, objects: &[Arc<Object>]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut piece = head.into_bytes();
    for (number, object) in objects.iter().enumerate() {
        if piece.len() > PIECE {
            pieces.push(std::mem::take(&mut piece).into());
        }
        let start: &[u8] = if number == 0 { b"{" } else { b",{" };
        piece.extend_from_slice(start);
        piece.extend_from_slice(object.list_item());
    }
    piece.extend_from_slice(b"]}\n");
    pieces.push(piece.into());
    pieces
}

/// A body in pieces, with the fault that is due.
fn answer(shared: &Shared, resource: Resource, pieces: Vec<Bytes>) -> Response<Body> {
    let fault = shared.fault(Some(resource), false, Moment::Body, "");
    let body = match fault {
        None => stream::body(pieces, None),
        Some(Effect::Trickle(pause)) => stream::body(pieces, Some(pause)),
        Some(Effect::Cut) => stream::cut(halve(&pieces.concat())),
        Some(Effect::Garbage) => stream::body(vec![garble(&pieces.concat())], None),
        Some(Effect::WrongShape) => stream::body(vec![misshape(resource, &pieces.concat())], None),
        Some(
            Effect::Status { .. }
            | Effect::Stall
            | Effect::Silence
            | Effect::Close
            | Effect::Duplicate
            | Effect::Reorder
            | Effect::Replay,
        ) => stream::body(pieces, None),
    };
    let mut response = json_response(StatusCode::OK, &Value::Null);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = body;
    response
}

/// The first half.
pub(super) fn halve(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&bytes[..bytes.len() / 2])
}

/// The same with some bytes in the middle that no parser takes.
pub(super) fn garble(bytes: &[u8]) -> Bytes {
    let (start, end) = bytes.split_at(bytes.len() / 2);
    [start, b"\x00\xff}{]\"", end].concat().into()
}

/// The object, or the first of the list, with text where a list belongs.
pub(super) fn misshape(resource: Resource, bytes: &[u8]) -> Bytes {
    let mut value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let object = match value.pointer("/items/0").is_some() {
        true => &mut value["items"][0],
        false => &mut value,
    };
    let path = resource.list_field.split('/').skip(1);
    *path.fold(object, |place, name| &mut place[name]) = "not a list".into();
    value.to_string().into()
}

fn token(revision: Option<u64>, start: &str) -> String {
    let content = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start});
    BASE64_URL_SAFE_NO_PAD.encode(content.to_string())
}

/// The version and the first key; a token without version goes on with the newest.
fn read_token(token: &str) -> Result<(Option<u64>, String), Status> {
    let read = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let content: Value = serde_json::from_slice(&bytes).ok()?;
        let start = content["start"].as_str()?.to_owned();
        Some((content["rv"].as_u64(), start))
    };
    read().ok_or_else(|| Status::bad_request("continue key is not valid"))
}

fn expired_token(start: &str) -> Status {
    let message = "the continue token is too old for a consistent list: start again, or go on \
                   with the token of this answer and objects of another version";
    Status::new(410, "Expired", message).with_continue(token(None, start))
}
