//! The annotations that mean something here.

/// At a Pod: whether its sockets get a backend when they connect, `on` or `off`.
pub const SOCKET_LB: &str = "ferrule.dev/socket-lb";
/// At a Service: whether TCP sockets are closed when their backend goes, `true` or `false`.
pub const CLOSE_TCP: &str = "ferrule.dev/close-tcp";
/// What kubelet calls a static pod.
pub const STATIC_UID: &str = "kubernetes.io/config.hash";
/// At pods that Istio's injector has given a sidecar.
pub const ISTIO_SIDECAR: &str = "sidecar.istio.io/status";
/// At pods of Istio without sidecars: `enabled` where the node's proxy takes over their connections.
pub const ISTIO_AMBIENT: &str = "ambient.istio.io/redirection";
/// At an EndpointSlice: when that happened which its controller has changed it for, as RFC 3339 has it.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

const ALL: [&str; 6] = [
    SOCKET_LB,
    CLOSE_TCP,
    STATIC_UID,
    ISTIO_SIDECAR,
    ISTIO_AMBIENT,
    TRIGGER_TIME,
];

/// Whether an annotation is one of these.
pub(super) fn is_read(name: &str) -> bool {
    ALL.contains(&name)
}
