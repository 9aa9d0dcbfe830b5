//! Pods of this node whose sockets must be left alone.

use super::{Skipped, Why, address};
use crate::source::ObjectKey;
use crate::source::annotations::{ISTIO_AMBIENT, ISTIO_SIDECAR, SOCKET_LB, STATIC_UID};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What service meshes leave at pods whose connections they take over, with the value that means so. They have
/// to see where the application wants to go.
const MESH_ANNOTATIONS: [(&str, Option<&str>); 2] =
    [(ISTIO_SIDECAR, None), (ISTIO_AMBIENT, Some("enabled"))];
/// What the sidecars of Istio and Linkerd are called.
const MESH_SIDECARS: [&str; 2] = ["istio-proxy", "linkerd-proxy"];

/// A pod of this node that has opted out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OptedOut {
    /// Its namespace and name.
    pub name: String,
    /// Its uid, as the names of its cgroups have it.
    pub uid: String,
    /// Its addresses, as far as they are known.
    pub addresses: Vec<IpAddr>,
    /// Whether it shares the node's network namespace.
    pub is_host: bool,
}

/// What a Pod says of its sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodView {
    /// `None`: they get a backend, or the pod is on another node or has ended.
    pub(super) opted_out: Option<OptedOut>,
    pub(super) skipped: Vec<Skipped>,
}

/// Reads the object.
pub(super) fn view(key: &ObjectKey, pod: &Pod, node: &str) -> PodView {
    let mut view = PodView::default();
    let Some(spec) = pod.spec.as_ref().filter(|spec| is_here(spec, node)) else {
        return view;
    };
    let wants = is_served(pod, spec).unwrap_or_else(|why| {
        let field = format!("metadata.annotations[{SOCKET_LB}]");
        view.skipped.push(Skipped::new(key, field, why));
        true
    });
    if wants || has_ended(pod) {
        return view;
    }
    let Some(uid) = uid(pod) else {
        view.skipped
            .push(Skipped::new(key, "metadata.uid", Why::Missing));
        return view;
    };
    view.opted_out = Some(OptedOut {
        name: format!("{}/{}", key.namespace, key.name),
        uid,
        addresses: addresses(pod),
        is_host: spec.host_network == Some(true),
    });
    view
}

/// The uid that cgroups have: that of a static pod's manifest is not that of its object.
fn uid(pod: &Pod) -> Option<String> {
    let annotations = pod.metadata.annotations.as_ref();
    let hash = annotations.and_then(|it| it.get(STATIC_UID));
    let uid = hash.or(pod.metadata.uid.as_ref());
    uid.filter(|uid| !uid.is_empty()).cloned()
}

fn is_here(spec: &PodSpec, node: &str) -> bool {
    spec.node_name.as_deref() == Some(node)
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// What the annotation says, else whether there is no sidecar.
fn is_served(pod: &Pod, spec: &PodSpec) -> Result<bool, Why> {
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    match annotations.get(SOCKET_LB).map(String::as_str) {
        Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(Why::NeitherOnNorOff(other.to_owned())),
        None => Ok(!is_meshed(&annotations) && !has_sidecar(spec)),
    }
}

fn is_meshed(annotations: &BTreeMap<String, String>) -> bool {
    let mut marks = MESH_ANNOTATIONS.iter();
    marks.any(|(name, wanted)| {
        let value = annotations.get(*name);
        value.is_some_and(|value| wanted.is_none_or(|wanted| wanted == value))
    })
}

fn has_sidecar(spec: &PodSpec) -> bool {
    let first = spec.init_containers.iter().flatten();
    let mut containers = spec.containers.iter().chain(first);
    containers.any(|container| MESH_SIDECARS.contains(&container.name.as_str()))
}

/// What is no address can't be that of a network namespace either.
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let listed = status.pod_ips.iter().flatten().map(|it| &it.ip);
    let texts = listed.chain(&status.pod_ip);
    let mut addresses: Vec<IpAddr> = texts.filter_map(|it| address::parse(it).ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Object;
    use crate::source::manifests;

    const NODE: &str = "node-a";

    fn read(annotations: &str, spec: &str) -> PodView {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: db, namespace: shop, uid: 1-2-3, annotations: {annotations}}}\n\
             spec: {spec}\nstatus: {{podIP: 10.244.1.9, podIPs: [{{ip: 10.244.1.9}}, {{ip: 'fd00::9'}}]}}\n"
        );
        let object = manifests::objects(&text).unwrap().remove(0);
        match &object {
            Object::Pod(pod) => view(&object.key(), pod, NODE),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pods_opt_out_by_annotation_or_by_having_a_sidecar() {
        let plain = "{nodeName: node-a, containers: [{name: app}]}";
        let meshed = "{nodeName: node-a, containers: [{name: app}, {name: istio-proxy}]}";
        let native =
            "{nodeName: node-a, initContainers: [{name: istio-proxy}], containers: [{name: app}]}";
        let linkerd = "{nodeName: node-a, containers: [{name: linkerd-proxy}, {name: app}]}";
        let out = |annotations, spec| read(annotations, spec).opted_out.is_some();
        assert!(!out("{}", plain));
        assert!(out("{ferrule.dev/socket-lb: 'off'}", plain));
        assert!(out("{sidecar.istio.io/status: '{}'}", plain));
        assert!(out("{ambient.istio.io/redirection: enabled}", plain));
        assert!(!out("{ambient.istio.io/redirection: disabled}", plain));
        assert!(out("{}", linkerd));
        assert!(out("{}", meshed));
        assert!(out("{}", native));
        assert!(!out("{ferrule.dev/socket-lb: 'on'}", meshed));
    }

    #[test]
    fn who_has_opted_out_is_described() {
        let spec = "{nodeName: node-a, hostNetwork: true, containers: [{name: app}]}";
        let view = read("{ferrule.dev/socket-lb: 'off'}", spec);
        let opted_out = view.opted_out.unwrap();
        assert_eq!(opted_out.name, "shop/db");
        assert_eq!(opted_out.uid, "1-2-3");
        assert!(opted_out.is_host);
        let addresses: Vec<String> = opted_out
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(addresses, ["10.244.1.9", "fd00::9"]);
    }

    #[test]
    fn static_pods_are_known_by_what_kubelet_calls_them() {
        let spec = "{nodeName: node-a, containers: [{name: app}]}";
        let annotations = "{ferrule.dev/socket-lb: 'off', kubernetes.io/config.hash: abc}";
        assert_eq!(read(annotations, spec).opted_out.unwrap().uid, "abc");
    }

    #[test]
    fn pods_elsewhere_and_nonsense_opt_nobody_out() {
        let elsewhere = "{nodeName: node-b, containers: [{name: app}]}";
        assert_eq!(
            read("{ferrule.dev/socket-lb: 'off'}", elsewhere),
            PodView::default()
        );
        let here = "{nodeName: node-a, containers: [{name: app}]}";
        let view = read("{ferrule.dev/socket-lb: maybe}", here);
        assert_eq!(view.opted_out, None);
        assert_eq!(
            view.skipped[0].to_string(),
            "Pod shop/db: metadata.annotations[ferrule.dev/socket-lb]: \"maybe\" is neither on nor off"
        );
    }
}
