//! What watches send: events, and what selectors make of a change.

use super::list::{garble, halve, misshape};
use super::object::Object;
use super::query::Query;
use super::resource::{Resource, Target};
use super::status::Status;
use super::store::Change;
use axum::body::Bytes;
use std::sync::Arc;

/// One event of a watch.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) kind: &'static str,
    object: Bytes,
    /// What was there before, if that was selected, too.
    previous: Option<Arc<Object>>,
}

impl Event {
    pub(super) fn added(object: &Object) -> Self {
        Self::new("ADDED", object.json())
    }

    pub(super) fn error(status: &Status) -> Self {
        Self::new("ERROR", status.to_value().to_string().into())
    }

    /// Says that the watch has got everything up to `revision`, or all initial objects.
    pub(super) fn bookmark(resource: Resource, revision: u64, ends_initial_events: bool) -> Self {
        let annotations = match ends_initial_events {
            true => r#","annotations":{"k8s.io/initial-events-end":"true"}"#,
            false => "",
        };
        let object = format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{{\
             \"resourceVersion\":\"{revision}\",\"creationTimestamp\":null{annotations}}}{empty}}}",
            kind = resource.kind,
            version = resource.api_version(),
            empty = resource.empty,
        );
        Self::new("BOOKMARK", object.into())
    }

    /// What a change is to a watch; `None` if nothing.
    pub(super) fn of(change: &Change, target: &Target, query: &Query) -> Option<Self> {
        let is_selected = |object: &&Arc<Object>| {
            target.covers(&object.key) && query.selector.matches(object.as_ref())
        };
        let previous = change.previous.as_ref().filter(is_selected);
        match (previous, change.object.as_ref().filter(is_selected)) {
            (None, Some(object)) => Some(Self::added(object)),
            (Some(previous), Some(object)) => Some(Self {
                previous: Some(Arc::clone(previous)),
                ..Self::new("MODIFIED", object.json())
            }),
            // It has gone, or is not selected any more: its last selected state says so.
            (Some(previous), None) => {
                Some(Self::new("DELETED", previous.at(change.revision).json()))
            }
            (None, None) => None,
        }
    }

    /// The event's object as it was before, as an event of its own.
    pub(super) fn stale(&self) -> Option<Self> {
        let previous = self.previous.as_ref()?;
        Some(Self::new(self.kind, previous.json()))
    }

    /// The line that is sent.
    pub(super) fn line(&self) -> Bytes {
        let head = format!("{{\"type\":\"{}\",\"object\":", self.kind);
        [head.as_bytes(), &self.object, b"}\n"].concat().into()
    }

    /// The first half of the line.
    pub(super) fn half_line(&self) -> Bytes {
        halve(&self.line())
    }

    /// The line with bytes in it that no parser takes.
    pub(super) fn garbled_line(&self) -> Bytes {
        garble(&self.line())
    }

    /// The line with an object that has text where a list belongs.
    pub(super) fn misshapen_line(&self, resource: Resource) -> Bytes {
        Self::new(self.kind, misshape(resource, &self.object)).line()
    }

    fn new(kind: &'static str, object: Bytes) -> Self {
        Self {
            kind,
            object,
            previous: None,
        }
    }
}
