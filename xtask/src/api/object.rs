//! One version of an object: its bytes, made once for all lists and watches, and what selectors ask.

use super::resource::{Resource, key};
use super::selector::Selectable;
use axum::body::Bytes;
use serde_json::{Map, Value};

/// One version of an object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) revision: u64,
    labels: Vec<(String, String)>,
    /// In the order of the resource's description.
    fields: Vec<String>,
    resource: Resource,
    json: Bytes,
    /// Where what lists also show begins in `json`.
    body: usize,
}

impl Object {
    /// Makes a version out of an object whose metadata is complete.
    pub(super) fn new(resource: Resource, revision: u64, mut object: Map<String, Value>) -> Self {
        object.remove("kind");
        object.remove("apiVersion");
        let value = Value::Object(object);
        let (kind, version) = (resource.kind, resource.api_version());
        let mut json = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",").into_bytes();
        let body = json.len();
        // An object with metadata is never empty: a first field follows the brace.
        json.extend_from_slice(&value.to_string().as_bytes()[1..]);
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        Self {
            key: key(
                text("/metadata/namespace"),
                text("/metadata/name").unwrap_or_default(),
            ),
            revision,
            labels: labels(&value),
            fields: fields(resource, &value),
            resource,
            json: json.into(),
            body,
        }
    }

    /// As answers to GET and events of watches show it.
    pub(super) fn json(&self) -> Bytes {
        self.json.clone()
    }

    /// As lists show it, without its first brace.
    pub(super) fn list_item(&self) -> &[u8] {
        &self.json[self.body..]
    }

    /// Parses the bytes again.
    pub(super) fn to_map(&self) -> Map<String, Value> {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The same content under another version, as events about its end show it.
    pub(super) fn at(&self, revision: u64) -> Self {
        let mut map = self.to_map();
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
        }
        Self::new(self.resource, revision, map)
    }
}

impl Selectable for Object {
    fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    fn field(&self, path: &str) -> &str {
        let mut fields = self.resource.fields.iter().zip(&self.fields);
        let found = fields.find(|((name, _), _)| *name == path);
        found.map_or("", |(_, value)| value)
    }
}

fn labels(value: &Value) -> Vec<(String, String)> {
    let labels = value.pointer("/metadata/labels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    pairs
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn fields(resource: Resource, value: &Value) -> Vec<String> {
    let read = |(path, absent): &(&str, &str)| {
        let pointer = format!("/{}", path.replace('.', "/"));
        match value.pointer(&pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(flag)) => flag.to_string(),
            _ => (*absent).to_owned(),
        }
    };
    resource.fields.iter().map(read).collect()
}
