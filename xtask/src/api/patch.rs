//! Patches: merged as JSON, or as kubectl means them, element by element of a list.

use serde_json::{Map, Value, json};

/// Fields by which elements of a list are told apart in a strategic merge.
const LIST_KEYS: [(&str, &str); 4] = [
    ("ports", "port"),
    ("addresses", "type"),
    ("conditions", "type"),
    ("podIPs", "ip"),
];

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// RFC 7386.
    Merge,
    /// What `kubectl apply` and `kubectl edit` send.
    Strategic,
    /// A server-side apply, which also makes what is not there. Owners of fields are not followed.
    Apply,
}

impl Kind {
    /// The one that the header `Content-Type` names.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next()? {
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// Changes an object as the patch says.
pub(super) fn apply(object: &mut Value, patch: Value, kind: Kind) {
    let Value::Object(patch) = patch else {
        *object = patch;
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    if let Some(object) = object.as_object_mut() {
        apply_fields(object, patch, kind);
    }
}

fn apply_fields(object: &mut Map<String, Value>, patch: Map<String, Value>, kind: Kind) {
    for (name, value) in patch {
        let key = LIST_KEYS.iter().find(|(list, _)| *list == name);
        match (value, object.get_mut(&name), key) {
            // Orders and sets of names that only a strategic merge has: nothing here depends on them.
            (_, None, _) if kind == Kind::Strategic && name.starts_with('$') => {}
            (Value::Null, _, _) => drop(object.remove(&name)),
            (Value::Array(patches), Some(Value::Array(elements)), Some((_, key)))
                if kind == Kind::Strategic =>
            {
                apply_elements(elements, patches, key);
            }
            (value, _, _) => apply(object.entry(name).or_insert(Value::Null), value, kind),
        }
    }
}

fn apply_elements(elements: &mut Vec<Value>, patches: Vec<Value>, key: &str) {
    for patch in patches {
        let found = elements.iter().position(|it| it[key] == patch[key]);
        match (found, patch["$patch"].as_str()) {
            (Some(found), Some("delete")) => drop(elements.remove(found)),
            (None, Some("delete")) => {}
            (Some(found), _) => apply(&mut elements[found], patch, Kind::Strategic),
            (None, _) => elements.push(patch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(patch: Value, kind: Kind) -> Value {
        let mut object = json!({
            "a": 1,
            "b": {"c": 2, "d": 3},
            "ports": [{"port": 80, "name": "x"}, {"port": 81}],
        });
        apply(&mut object, patch, kind);
        object
    }

    #[test]
    fn a_merge_replaces_lists_and_removes_what_is_null() {
        let patch = json!({"a": null, "b": {"c": 4}, "ports": [{"port": 82}], "e": {"f": null}});
        assert_eq!(
            patched(patch, Kind::Merge),
            json!({"b": {"c": 4, "d": 3}, "ports": [{"port": 82}], "e": {}})
        );
    }

    #[test]
    fn a_strategic_merge_goes_into_lists() {
        let patch = json!({
            "$setElementOrder/ports": [{"port": 80}, {"port": 82}],
            "ports": [{"port": 80, "y": 1}, {"port": 81, "$patch": "delete"}, {"port": 82}],
        });
        let ports = json!([{"port": 80, "name": "x", "y": 1}, {"port": 82}]);
        let patched = patched(patch, Kind::Strategic);
        assert_eq!(
            patched,
            json!({"a": 1, "b": {"c": 2, "d": 3}, "ports": ports})
        );
    }
}
