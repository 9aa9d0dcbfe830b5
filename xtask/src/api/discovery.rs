//! Paths that say what the server is and has: version, health, groups and kinds.

use super::resource::{Resource, VERSION};
use super::status::{Status, json_response};
use axum::body::Body;
use axum::http::{Method, Response, StatusCode};
use serde_json::{Value, json};

/// The release that the server behaves as.
const RELEASE: &str = "v1.36.0";

/// Answers what everybody may ask.
pub(super) fn open(path: &str) -> Option<Response<Body>> {
    match path {
        "/healthz" | "/livez" | "/readyz" => Some(Response::new(Body::from("ok"))),
        "/version" => Some(json_response(
            StatusCode::OK,
            &json!({
                "major": "1",
                "minor": "36",
                "gitVersion": RELEASE,
                "platform": "linux/amd64",
            }),
        )),
        _ => None,
    }
}

/// Answers what else is no object.
pub(super) fn answer(method: &Method, path: &str) -> Result<Response<Body>, Status> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let value = match parts.as_slice() {
        ["api"] => json!({"kind": "APIVersions", "versions": [VERSION]}),
        ["apis"] => groups(),
        ["api", VERSION] => resources("")?,
        ["apis", group, VERSION] if !group.is_empty() => resources(group)?,
        _ => return Err(Status::no_path()),
    };
    match *method {
        Method::GET => Ok(json_response(StatusCode::OK, &value)),
        _ => Err(Status::wrong_method()),
    }
}

fn groups() -> Value {
    let mut names: Vec<&str> = Resource::all().map(|it| it.group).collect();
    names.sort_unstable();
    names.dedup();
    let group = |name: &&str| {
        let version = json!({"groupVersion": format!("{name}/{VERSION}"), "version": VERSION});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    let names = names.iter().filter(|name| !name.is_empty());
    json!({
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": names.map(group).collect::<Vec<_>>(),
    })
}

fn resources(group: &str) -> Result<Value, Status> {
    let of_group = || Resource::all().filter(|it| it.group == group);
    let version = of_group().next().ok_or_else(Status::no_path)?.api_version();
    let describe = |it: Resource| {
        json!({
            "name": it.plural,
            "singularName": it.singular,
            "namespaced": it.is_namespaced,
            "kind": it.kind,
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            "shortNames": it.short,
        })
    };
    Ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": of_group().map(describe).collect::<Vec<_>>(),
    }))
}
