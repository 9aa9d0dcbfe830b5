//! What becomes of each of kube-proxy's settings here. docs/operations.md has the same table.

use Takes::{Bool, Value};
use Treatment::{Followed, Honoured, NoMeaning, Refused};

/// A field of kube-proxy's file, a flag of its command line, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Path in the file; empty if it is a flag only.
    pub(super) field: &'static str,
    /// Names on the command line.
    pub(super) flags: &'static [(&'static str, Takes)],
    pub(super) treatment: Treatment,
    /// What it means here, or why nothing.
    pub(super) why: &'static str,
}

/// What stands behind a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, or true or false behind a `=`.
    Bool,
    /// A value.
    Value,
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Counts, and a change of the file counts at once.
    Followed,
    /// Counts; a change of the file takes a restart of the agent.
    Honoured,
    /// Is accepted and changes nothing.
    NoMeaning,
    /// Is an error where it asks for something.
    Refused,
}

impl Treatment {
    /// As the documentation calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Followed => "honoured, at once",
            Self::Honoured => "honoured",
            Self::NoMeaning => "no meaning",
            Self::Refused => "refused",
        }
    }
}

const fn both(
    field: &'static str,
    flags: &'static [(&'static str, Takes)],
    treatment: Treatment,
    why: &'static str,
) -> Setting {
    Setting {
        field,
        flags,
        treatment,
        why,
    }
}

const fn field(field: &'static str, treatment: Treatment, why: &'static str) -> Setting {
    both(field, &[], treatment, why)
}

const fn flags(
    flags: &'static [(&'static str, Takes)],
    treatment: Treatment,
    why: &'static str,
) -> Setting {
    both("", flags, treatment, why)
}

const WATCHES: &str = "the watches of the agent are not polls";
const NO_MARK: &str = "no packet is marked";
const AT_ONCE: &str = "changes are written at once";
const IPVS: &str = "there are no virtual servers";
const WINDOWS: &str = "Windows only";
const CLIENT: &str = "the agent's client asks for little and seldom";
const LOGGING: &str = "lines go to standard error, as text";

/// All of them, in the order of kube-proxy's own documentation.
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
        NoMeaning,
        "there are no gates",
    ),
    field(
        "clientConnection.kubeconfig",
        Honoured,
        "how the API server is reached",
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
        "`/healthz` and `/livez`; an empty flag or port 0 is off",
    ),
    both(
        "metricsBindAddress",
        &[("metrics-bind-address", Value), ("metrics-port", Value)],
        Honoured,
        "`/metrics` and `/proxyMode`; an empty flag or port 0 is off",
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
    both(
        "mode",
        &[("proxy-mode", Value)],
        Followed,
        "no mode is refused; it says where NodePorts are by default, and whose section counts",
    ),
    both(
        "iptables.masqueradeBit",
        &[("iptables-masquerade-bit", Value)],
        NoMeaning,
        NO_MARK,
    ),
    both(
        "iptables.masqueradeAll",
        &[("masquerade-all", Bool)],
        Refused,
        "flows that stay in the cluster are not masked",
    ),
    both(
        "iptables.localhostNodePorts",
        &[("iptables-localhost-nodeports", Bool)],
        Honoured,
        "`true` is `--localhost-nodeports`, which is off by default",
    ),
    both(
        "iptables.syncPeriod",
        &[("iptables-sync-period", Value)],
        Honoured,
        "a change that waits for twice this time makes `/livez` fail",
    ),
    both(
        "iptables.minSyncPeriod",
        &[("iptables-min-sync-period", Value)],
        NoMeaning,
        AT_ONCE,
    ),
    both(
        "ipvs.syncPeriod",
        &[("ipvs-sync-period", Value)],
        Honoured,
        "the same, in mode `ipvs`",
    ),
    both(
        "ipvs.minSyncPeriod",
        &[("ipvs-min-sync-period", Value)],
        NoMeaning,
        AT_ONCE,
    ),
    both(
        "ipvs.scheduler",
        &[("ipvs-scheduler", Value)],
        NoMeaning,
        "backends are drawn at random",
    ),
    both(
        "ipvs.excludeCIDRs",
        &[("ipvs-exclude-cidrs", Value)],
        NoMeaning,
        IPVS,
    ),
    both(
        "ipvs.strictARP",
        &[("ipvs-strict-arp", Bool)],
        NoMeaning,
        "no device gets a Service's address",
    ),
    both(
        "ipvs.tcpTimeout",
        &[("ipvs-tcp-timeout", Value)],
        NoMeaning,
        IPVS,
    ),
    both(
        "ipvs.tcpFinTimeout",
        &[("ipvs-tcpfin-timeout", Value)],
        NoMeaning,
        IPVS,
    ),
    both(
        "ipvs.udpTimeout",
        &[("ipvs-udp-timeout", Value)],
        NoMeaning,
        IPVS,
    ),
    field("nftables.masqueradeBit", NoMeaning, NO_MARK),
    field(
        "nftables.masqueradeAll",
        Refused,
        "flows that stay in the cluster are not masked",
    ),
    field(
        "nftables.syncPeriod",
        Honoured,
        "the same, in mode `nftables`",
    ),
    field("nftables.minSyncPeriod", NoMeaning, AT_ONCE),
    both(
        "winkernel.networkName",
        &[("network-name", Value)],
        NoMeaning,
        WINDOWS,
    ),
    both(
        "winkernel.sourceVip",
        &[("source-vip", Value)],
        NoMeaning,
        WINDOWS,
    ),
    both(
        "winkernel.enableDSR",
        &[("enable-dsr", Bool)],
        NoMeaning,
        WINDOWS,
    ),
    both(
        "winkernel.rootHnsEndpointName",
        &[("root-hnsendpoint-name", Value)],
        NoMeaning,
        WINDOWS,
    ),
    both(
        "winkernel.forwardHealthCheckVip",
        &[("forward-healthcheck-vip", Bool)],
        NoMeaning,
        WINDOWS,
    ),
    both(
        "windowsRunAsService",
        &[("windows-service", Bool)],
        NoMeaning,
        WINDOWS,
    ),
    both(
        "detectLocalMode",
        &[("detect-local-mode", Value)],
        Honoured,
        "`ClusterCIDR`; the others are refused",
    ),
    both(
        "detectLocal.bridgeInterface",
        &[("pod-bridge-interface", Value)],
        NoMeaning,
        "for modes that are refused",
    ),
    both(
        "detectLocal.interfaceNamePrefix",
        &[("pod-interface-name-prefix", Value)],
        NoMeaning,
        "for modes that are refused",
    ),
    both(
        "clusterCIDR",
        &[("cluster-cidr", Value)],
        Followed,
        "where pods' addresses come from, at most one range of each family",
    ),
    both(
        "nodePortAddresses",
        &[("nodeport-addresses", Value)],
        Followed,
        "ranges, `primary`, `all`; `localhost` takes `--localhost-nodeports`",
    ),
    both(
        "oomScoreAdj",
        &[("oom-score-adj", Value)],
        NoMeaning,
        "the pod's priority class or the unit sets it",
    ),
    both(
        "conntrack.maxPerCore",
        &[("conntrack-max-per-core", Value)],
        NoMeaning,
        "flow tables have `--max-flows` rows",
    ),
    both(
        "conntrack.min",
        &[("conntrack-min", Value)],
        NoMeaning,
        "flow tables have `--max-flows` rows",
    ),
    both(
        "conntrack.tcpEstablishedTimeout",
        &[("conntrack-tcp-timeout-established", Value)],
        Honoured,
        "0 is the default",
    ),
    both(
        "conntrack.tcpCloseWaitTimeout",
        &[("conntrack-tcp-timeout-close-wait", Value)],
        Honoured,
        "0 is the default",
    ),
    both(
        "conntrack.tcpBeLiberal",
        &[("conntrack-tcp-be-liberal", Bool)],
        NoMeaning,
        "no packet is judged by its sequence number",
    ),
    both(
        "conntrack.udpTimeout",
        &[("conntrack-udp-timeout", Value)],
        Honoured,
        "0 is the default",
    ),
    both(
        "conntrack.udpStreamTimeout",
        &[("conntrack-udp-timeout-stream", Value)],
        Honoured,
        "0 is the default",
    ),
    both(
        "configSyncPeriod",
        &[("config-sync-period", Value)],
        NoMeaning,
        WATCHES,
    ),
    both(
        "portRange",
        &[("proxy-port-range", Value)],
        NoMeaning,
        "kube-proxy does not use it either",
    ),
    flags(
        &[("cleanup", Bool)],
        Refused,
        "`ferrule cleanup` removes what Ferrule has set up",
    ),
    flags(
        &[("init-only", Bool)],
        Refused,
        "settings of the kernel are made by each start",
    ),
    flags(
        &[("write-config-to", Value)],
        Refused,
        "`--check-config` shows what a file means here",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const TABLE: &str = include_str!("../../../docs/operations.md");

    fn row(setting: &Setting) -> String {
        let flags = setting.flags.iter().map(|(name, _)| match *name {
            "v" => "`-v`".to_owned(),
            name => format!("`--{name}`"),
        });
        let flags = flags.collect::<Vec<_>>().join(", ");
        let field = match setting.field {
            "" => String::new(),
            field => format!("`{field}`"),
        };
        let Setting { treatment, why, .. } = setting;
        format!("| {field} | {flags} | {} | {why} |", treatment.name())
    }

    #[test]
    fn the_documentation_has_the_same_table() {
        let rows: Vec<String> = SETTINGS.iter().map(row).collect();
        let begin = TABLE.find("| field | flags |").expect("the table is there");
        let documented: Vec<&str> = TABLE[begin..]
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        assert!(documented == rows, "it should be:\n{}", rows.join("\n"));
    }

    #[test]
    fn nothing_is_listed_twice() {
        let fields = SETTINGS.iter().map(|setting| setting.field);
        let fields: Vec<&str> = fields.filter(|field| !field.is_empty()).collect();
        let flags = SETTINGS.iter().flat_map(|setting| setting.flags);
        let flags: Vec<&str> = flags.map(|(name, _)| *name).collect();
        for names in [fields, flags] {
            let once: BTreeSet<&str> = names.iter().copied().collect();
            assert_eq!(once.len(), names.len(), "{names:?}");
        }
    }
}
