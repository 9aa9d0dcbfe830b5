//! kube-proxy's settings for the process: its API server, log, name, and what it serves over HTTP.

use super::Takes::{Bool, Value};
use super::Treatment::{Followed, Honoured, NoMeaning};
use super::{Setting, both, field, flags};

const CLIENT: &str = "the agent's client asks for little and seldom";
const LOGGING: &str = "lines go to standard error, as text";

/// In the order of kube-proxy's own documentation.
pub(super) const SETTINGS: &[Setting] = &[
    field(
        "apiVersion",
        Honoured,
        "must be `kubeproxy.config.k8s.io/v1alpha1`",
    ),
    field("kind", Honoured, "must be `KubeProxyConfiguration`"),
    flags(
        &[("config", Value)],
        Honoured,
        "its fields count instead of flags of the same meaning",
    ),
    both(
        "featureGates",
        &[("feature-gates", Value)],
        Followed,
        "`AllowServiceExternalIPs`, `true` by default, is `--allow-service-external-ips`, which wins; there are no \
         others",
    ),
    both(
        "clientConnection.kubeconfig",
        &[("kubeconfig", Value)],
        Honoured,
        "how the API server is reached, and as whom; the service account of the pod if not given",
    ),
    flags(
        &[("master", Value)],
        Honoured,
        "the API server's URL, with a file too",
    ),
    both(
        "clientConnection.acceptContentTypes",
        &[],
        NoMeaning,
        "objects are read as JSON",
    ),
    both(
        "clientConnection.contentType",
        &[("kube-api-content-type", Value)],
        NoMeaning,
        "objects are read as JSON",
    ),
    both(
        "clientConnection.qps",
        &[("kube-api-qps", Value)],
        NoMeaning,
        CLIENT,
    ),
    both(
        "clientConnection.burst",
        &[("kube-api-burst", Value)],
        NoMeaning,
        CLIENT,
    ),
    both(
        "logging.format",
        &[("logging-format", Value)],
        NoMeaning,
        LOGGING,
    ),
    both(
        "logging.flushFrequency",
        &[("log-flush-frequency", Value)],
        NoMeaning,
        LOGGING,
    ),
    both(
        "logging.verbosity",
        &[("v", Value)],
        Followed,
        "4 and 5 log `debug` lines of the agent, 6 and more `trace`; `--log` and `-v` win",
    ),
    both(
        "logging.vmodule",
        &[("vmodule", Value)],
        NoMeaning,
        "`--log` filters by module",
    ),
    both(
        "logging.options",
        &[
            ("log-json-info-buffer-size", Value),
            ("log-json-split-stream", Bool),
            ("log-text-info-buffer-size", Value),
            ("log-text-split-stream", Bool),
        ],
        NoMeaning,
        LOGGING,
    ),
    flags(
        &[
            ("logtostderr", Bool),
            ("alsologtostderr", Bool),
            ("log-dir", Value),
            ("log-file", Value),
            ("log-file-max-size", Value),
            ("log-backtrace-at", Value),
            ("stderrthreshold", Value),
            ("skip-headers", Bool),
            ("skip-log-headers", Bool),
            ("add-dir-header", Bool),
            ("one-output", Bool),
        ],
        NoMeaning,
        LOGGING,
    ),
    both(
        "hostnameOverride",
        &[("hostname-override", Value)],
        Honoured,
        "the name of the node's object; the flag and `NODE_NAME` win",
    ),
    both(
        "bindAddress",
        &[("bind-address", Value)],
        Honoured,
        "the node's address in its family, unless it is `0.0.0.0` or `::`",
    ),
    both(
        "healthzBindAddress",
        &[("healthz-bind-address", Value), ("healthz-port", Value)],
        Honoured,
        "`/healthz` and `/livez`; without a port it is 10256; an empty flag or port 0 is off",
    ),
    both(
        "metricsBindAddress",
        &[("metrics-bind-address", Value), ("metrics-port", Value)],
        Honoured,
        "`/metrics` and `/proxyMode`; without a port it is 10249; an empty flag or port 0 is off",
    ),
    both(
        "bindAddressHardFail",
        &[("bind-address-hard-fail", Bool)],
        Honoured,
        "the agent ends if one of the two can't be bound",
    ),
    both(
        "enableProfiling",
        &[("profiling", Bool)],
        NoMeaning,
        "there is no profiler inside",
    ),
    both(
        "showHiddenMetricsForVersion",
        &[("show-hidden-metrics-for-version", Value)],
        NoMeaning,
        "no metric is hidden",
    ),
];
