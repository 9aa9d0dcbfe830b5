//! POST, PUT, PATCH and DELETE.

use super::metadata::{managed_fields, now, suffix, uid};
use super::object::Object;
use super::patch;
use super::resource::{Resource, Target, key};
use super::shared::Shared;
use super::status::{Status, json_response};
use super::store::Store;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The largest body, in bytes, as the real server has it.
const MAX_BODY: usize = 3 << 20;

type Json = Map<String, Value>;

/// Answers a request that writes.
pub(super) async fn answer(
    shared: &Shared,
    target: Target,
    request: hyper::Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(Body::new(body), MAX_BODY).await;
    let body = body.map_err(|error| Status::bad_request(error.to_string()))?;
    let content = || serde_json::from_slice::<Json>(&body);
    let content = || content().map_err(|error| Status::bad_request(error.to_string()));
    let managed = shared.options.managed_fields;
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|it| it.to_str().ok())
        .unwrap_or_default();
    match (&parts.method, &target.name) {
        (&Method::POST, None) => {
            let object = named(&target, content()?)?;
            let made = shared.change(|store| create(store, &target, object, managed))?;
            Ok(reply(StatusCode::CREATED, &made))
        }
        (&Method::PUT, Some(name)) => {
            let object = content()?;
            let made = shared.change(|store| update(store, &target, name, object, managed))?;
            Ok(reply(StatusCode::OK, &made))
        }
        (&Method::PATCH, Some(name)) => {
            let patch = content()?;
            let made =
                shared.change(|store| apply_patch(store, &target, name, (content_type, patch)))?;
            Ok(reply(StatusCode::OK, &made))
        }
        (&Method::DELETE, Some(name)) => {
            let removed = shared.change(|store| store.remove(target.resource, &target.key(name)));
            let removed = removed.ok_or_else(|| missing(target.resource, name))?;
            Ok(json_response(
                StatusCode::OK,
                &gone(target.resource, name, &removed),
            ))
        }
        _ => Err(Status::wrong_method()),
    }
}

fn reply(code: StatusCode, object: &Object) -> Response<Body> {
    let mut response = json_response(code, &Value::Null);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(object.json());
    response
}

fn gone(resource: Resource, name: &str, removed: &Object) -> Value {
    let metadata = &removed.to_map()["metadata"];
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": name, "kind": resource.plural, "uid": metadata["uid"]},
    })
}

fn missing(resource: Resource, name: &str) -> Status {
    Status::not_found(&resource.qualified(), name)
}

/// Completes name and namespace from the path, and refuses what contradicts it.
fn named(target: &Target, mut object: Json) -> Result<Json, Status> {
    let resource = target.resource;
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata["name"].as_str().is_none_or(str::is_empty)
        && let Some(prefix) = metadata["generateName"].as_str()
    {
        metadata["name"] = format!("{prefix}{}", suffix()).into();
    }
    if let Some(namespace) = &target.namespace {
        match metadata["namespace"].as_str() {
            None | Some("") => metadata["namespace"] = namespace.as_str().into(),
            Some(other) if other == namespace => {}
            Some(_) => {
                return Err(Status::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
        }
    }
    if metadata["name"].as_str().is_none_or(str::is_empty) {
        let message = format!(
            "{} \"\" is invalid: metadata.name: Required value: name or generateName is required",
            resource.kind
        );
        return Err(Status::new(422, "Invalid", message));
    }
    Ok(object)
}

fn create(
    store: &mut Store,
    target: &Target,
    object: Json,
    managed: bool,
) -> Result<Arc<Object>, Status> {
    let resource = target.resource;
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if store.get(resource, &target.key(&name)).is_some() {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        return Err(Status::new(409, "AlreadyExists", message));
    }
    Ok(put(store, resource, object, managed))
}

fn update(
    store: &mut Store,
    target: &Target,
    name: &str,
    object: Json,
    managed: bool,
) -> Result<Arc<Object>, Status> {
    let object = named(target, object)?;
    let resource = target.resource;
    let current = store.get(resource, &target.key(name));
    let current = current.ok_or_else(|| missing(resource, name))?;
    let metadata = &object["metadata"];
    if metadata["name"] != name {
        return Err(Status::bad_request(
            "the name of the object does not match the name on the URL",
        ));
    }
    match metadata["resourceVersion"].as_str() {
        Some(version) if version != current.revision.to_string() && !version.is_empty() => {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; \
                 please apply your changes to the latest version and try again",
                resource.qualified()
            );
            Err(Status::new(409, "Conflict", message))
        }
        _ => Ok(put(store, resource, object, managed)),
    }
}

/// Merges a patch into an object. Only a server-side apply makes what is not there.
fn apply_patch(
    store: &mut Store,
    target: &Target,
    name: &str,
    (content_type, content): (&str, Json),
) -> Result<Arc<Object>, Status> {
    let resource = target.resource;
    let kind = patch::Kind::of(content_type).ok_or_else(|| {
        let message = format!("the body of the request was in an unknown format: {content_type}");
        Status::new(415, "UnsupportedMediaType", message)
    })?;
    let current = store.get(resource, &target.key(name)).map(|it| it.to_map());
    if current.is_none() && kind != patch::Kind::Apply {
        return Err(missing(resource, name));
    }
    let mut object = Value::Object(current.unwrap_or_default());
    patch::apply(&mut object, Value::Object(content), kind);
    match object {
        Value::Object(object) => Ok(put(store, resource, named(target, object)?, false)),
        _ => Err(Status::bad_request("the patch leaves no object")),
    }
}

/// Writes an object, keeping what the server has given to it; writes nothing if nothing is new.
pub(super) fn put(
    store: &mut Store,
    resource: Resource,
    mut object: Json,
    managed: bool,
) -> Arc<Object> {
    object.insert("kind".to_owned(), resource.kind.into());
    object.insert("apiVersion".to_owned(), resource.api_version().into());
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    let name = metadata["name"].as_str().unwrap_or_default();
    let key = key(metadata["namespace"].as_str(), name);
    let current = store.get(resource, &key).cloned();
    let before = current.as_ref().map(|current| current.to_map());
    match &before {
        Some(before) => {
            for field in ["uid", "creationTimestamp", "resourceVersion"] {
                metadata[field] = before["metadata"][field].clone();
            }
        }
        None => {
            metadata["uid"] = uid().into();
            metadata["creationTimestamp"] = now().into();
        }
    }
    if managed {
        metadata["managedFields"] = managed_fields(resource, before.as_ref());
    }
    match (current, before) {
        (Some(current), Some(before)) if before == object => current,
        _ => store.put(resource, object),
    }
}
