//! What the server itself writes into the metadata of objects.

use super::resource::Resource;
use serde_json::{Map, Value, json};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

type Json = Map<String, Value>;

/// What a name that is generated ends with.
pub(super) fn suffix() -> String {
    format!("{:05x}", random() & 0xf_ffff)
}

fn random() -> u64 {
    // Its keys are random and differ from call to call.
    RandomState::new().hash_one(0)
}

/// A random UUID.
pub(super) fn uid() -> String {
    let (high, low) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

/// The time, as `creationTimestamp` has it.
pub(super) fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// Who owns which field, as an applier and a controller leave it behind.
pub(super) fn managed_fields(resource: Resource, before: Option<&Json>) -> Value {
    let before = before.map(|before| &before["metadata"]["managedFields"]);
    if let Some(fields) = before.filter(|fields| fields.is_array()) {
        return fields.clone();
    }
    let field = |name: &str| format!("f:{name}");
    let owner = |manager: &str, subresource: &str, owned: Value| {
        json!({
            "manager": manager,
            "operation": "Update",
            "apiVersion": resource.api_version(),
            "time": now(),
            "fieldsType": "FieldsV1",
            "fieldsV1": owned,
            "subresource": subresource,
        })
    };
    let owned: Json = [
        "internalTrafficPolicy",
        "ipFamilyPolicy",
        "ports",
        "selector",
        "type",
    ]
    .map(|name| {
        (
            field(name),
            json!({".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {}}),
        )
    })
    .into_iter()
    .collect();
    let labels = json!({"f:labels": {".": {}, "f:app.kubernetes.io/name": {}, "f:app.kubernetes.io/instance": {}}});
    json!([
        owner(
            "kubectl-client-side-apply",
            "",
            json!({"f:metadata": labels, "f:spec": owned})
        ),
        owner(
            "kube-controller-manager",
            "status",
            json!({"f:status": {"f:loadBalancer": {}}})
        ),
    ])
}
