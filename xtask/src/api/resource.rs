//! The kinds of object that the server knows, as discovery describes them.

use std::ops::Deref;

/// What discovery says of a kind, and what may be selected by.
#[derive(Debug)]
pub(super) struct Description {
    /// API group; empty for the core.
    pub(super) group: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) kind: &'static str,
    pub(super) short: &'static [&'static str],
    pub(super) is_namespaced: bool,
    /// Labels of field selectors, and what a field that is absent counts as.
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// The body, without metadata, of an object with nothing in it: bookmarks have it.
    pub(super) empty: &'static str,
    /// The field that gets another type by [`Effect::WrongShape`](super::Effect::WrongShape).
    pub(super) list_field: &'static str,
}

/// The version of all groups here.
pub(super) const VERSION: &str = "v1";

const NAMED: &[(&str, &str)] = &[("metadata.name", ""), ("metadata.namespace", "")];
const EVENT: &[(&str, &str)] = &[
    ("metadata.name", ""),
    ("metadata.namespace", ""),
    ("reason", ""),
    ("type", ""),
];

static RESOURCES: [Description; 9] = [
    Description {
        group: "",
        plural: "services",
        singular: "service",
        kind: "Service",
        short: &["svc"],
        is_namespaced: true,
        fields: &[
            ("metadata.name", ""),
            ("metadata.namespace", ""),
            ("spec.clusterIP", ""),
            ("spec.type", "ClusterIP"),
        ],
        empty: r#","spec":{},"status":{"loadBalancer":{}}"#,
        list_field: "/spec/ports",
    },
    Description {
        group: "",
        plural: "nodes",
        singular: "node",
        kind: "Node",
        short: &["no"],
        is_namespaced: false,
        fields: &[("metadata.name", ""), ("spec.unschedulable", "false")],
        empty: r#","spec":{},"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{}}"#,
        list_field: "/status/addresses",
    },
    Description {
        group: "",
        plural: "pods",
        singular: "pod",
        kind: "Pod",
        short: &["po"],
        is_namespaced: true,
        fields: &[
            ("metadata.name", ""),
            ("metadata.namespace", ""),
            ("spec.nodeName", ""),
            ("spec.restartPolicy", "Always"),
            ("spec.schedulerName", "default-scheduler"),
            ("spec.serviceAccountName", ""),
            ("spec.hostNetwork", "false"),
            ("status.phase", ""),
            ("status.podIP", ""),
            ("status.nominatedNodeName", ""),
        ],
        empty: r#","spec":{"containers":null},"status":{}"#,
        list_field: "/status/podIPs",
    },
    Description {
        group: "",
        plural: "endpoints",
        singular: "endpoints",
        kind: "Endpoints",
        short: &["ep"],
        is_namespaced: true,
        fields: NAMED,
        empty: "",
        list_field: "/subsets",
    },
    Description {
        group: "",
        plural: "namespaces",
        singular: "namespace",
        kind: "Namespace",
        short: &["ns"],
        is_namespaced: false,
        fields: &[("metadata.name", ""), ("status.phase", "Active")],
        empty: r#","spec":{},"status":{}"#,
        list_field: "/spec/finalizers",
    },
    Description {
        group: "",
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        is_namespaced: true,
        fields: EVENT,
        empty: r#","involvedObject":{},"source":{},"firstTimestamp":null,"lastTimestamp":null"#,
        list_field: "/series",
    },
    Description {
        group: "events.k8s.io",
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        is_namespaced: true,
        fields: EVENT,
        empty: r#","eventTime":null,"regarding":{}"#,
        list_field: "/series",
    },
    Description {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        singular: "endpointslice",
        kind: "EndpointSlice",
        short: &[],
        is_namespaced: true,
        fields: NAMED,
        empty: r#","addressType":"","endpoints":null,"ports":null"#,
        list_field: "/endpoints",
    },
    Description {
        group: "networking.k8s.io",
        plural: "servicecidrs",
        singular: "servicecidr",
        kind: "ServiceCIDR",
        short: &[],
        is_namespaced: false,
        fields: &[("metadata.name", "")],
        empty: r#","spec":{},"status":{}"#,
        list_field: "/spec/cidrs",
    },
];

/// A kind of object: an index that leads to its description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource(usize);

impl Deref for Resource {
    type Target = Description;

    fn deref(&self) -> &Description {
        &RESOURCES[self.0]
    }
}

impl Resource {
    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..RESOURCES.len()).map(Self)
    }

    /// The one that a path names.
    pub(super) fn of_path(group: &str, plural: &str) -> Option<Self> {
        Self::all().find(|it| it.group == group && it.plural == plural)
    }

    /// The one that an object names.
    pub(super) fn of_object(api_version: &str, kind: &str) -> Option<Self> {
        Self::all().find(|it| it.api_version() == api_version && it.kind == kind)
    }

    /// The first with this kind or plural.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::all().find(|it| it.kind == name || it.plural == name)
    }

    /// Where it is in [`Resource::all`].
    pub(super) fn index(self) -> usize {
        self.0
    }

    /// As objects write it.
    pub(super) fn api_version(self) -> String {
        match self.group {
            "" => VERSION.to_owned(),
            group => format!("{group}/{VERSION}"),
        }
    }

    /// As messages name it: `endpointslices.discovery.k8s.io`.
    pub(super) fn qualified(self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

/// What the path of a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) resource: Resource,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

impl Target {
    /// Reads a path below `/api` or `/apis`; `None` if nothing is there.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["api", VERSION, rest @ ..] => Self::below("", rest),
            ["apis", group, VERSION, rest @ ..] if !group.is_empty() => Self::below(group, rest),
            _ => None,
        }
    }

    fn below(group: &str, rest: &[&str]) -> Option<Self> {
        let (namespace, plural, name) = match *rest {
            ["namespaces", namespace, plural] if plural != "status" => {
                (Some(namespace), plural, None)
            }
            ["namespaces", namespace, plural, name]
            | ["namespaces", namespace, plural, name, "status"] => {
                (Some(namespace), plural, Some(name))
            }
            [plural] => (None, plural, None),
            [plural, name] | [plural, name, "status"] => (None, plural, Some(name)),
            _ => return None,
        };
        let resource = Resource::of_path(group, plural)?;
        let is_object = name.is_some();
        let fits = match namespace {
            Some(_) => resource.is_namespaced,
            None => !(resource.is_namespaced && is_object),
        };
        fits.then(|| Self {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        })
    }

    /// The key of the object with this name in the target's namespace.
    pub(super) fn key(&self, name: &str) -> String {
        key(self.namespace.as_deref(), name)
    }

    /// Whether an object with this key is in the target's collection.
    pub(super) fn covers(&self, key: &str) -> bool {
        match &self.namespace {
            None => true,
            Some(namespace) => key
                .strip_prefix(namespace.as_str())
                .is_some_and(|rest| rest.starts_with('/')),
        }
    }
}

/// Orders objects as etcd does, where keys are paths.
pub(super) fn key(namespace: Option<&str>, name: &str) -> String {
    format!("{}/{name}", namespace.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Option<(&'static str, Option<String>, Option<String>)> {
        Target::parse(path).map(|it| (it.resource.kind, it.namespace, it.name))
    }

    #[test]
    fn paths_name_collections_and_objects() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(target("/api/v1/services"), Some(("Service", None, None)));
        assert_eq!(
            target("/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/b"),
            Some(("EndpointSlice", text("a"), text("b")))
        );
        assert_eq!(
            target("/api/v1/namespaces/a"),
            Some(("Namespace", None, text("a")))
        );
        assert_eq!(target("/api/v1/nodes/a"), Some(("Node", None, text("a"))));
    }

    #[test]
    fn what_the_real_server_does_not_have_is_not_there() {
        for path in [
            "/api/v1/services/a",
            "/api/v1/namespaces/a/nodes",
            "/api/v2/services",
            "/apis//v1/services",
            "/api/v1/watch/services",
            "/apis/discovery.k8s.io/v1beta1/endpointslices",
            "/api/v1",
        ] {
            assert_eq!(target(path), None, "{path}");
        }
    }
}
