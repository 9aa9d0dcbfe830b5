//! kube-proxy's settings for what it does with packets, and its other ways to be run.

use super::Takes::{Bool, Value};
use super::Treatment::{Followed, Honoured, NoMeaning, Refused};
use super::{Setting, both, field, flags};

const WATCHES: &str = "the watches of the agent are not polls";
const NO_MARK: &str = "no packet is marked";
const AT_ONCE: &str = "changes are written at once";
const IPVS: &str = "there are no virtual servers";
const CONNTRACK_TIME: &str = "for Ferrule's flows and for netfilter's; 0 is the default here and leaves netfilter's as it is";
const WINDOWS: &str = "Windows only";

/// In the order of kube-proxy's own documentation.
pub(super) const SETTINGS: &[Setting] = &[
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
        Followed,
        "all flows to ClusterIPs are masked; in modes `iptables` and `ipvs`",
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
        Followed,
        "all flows to ClusterIPs are masked; in mode `nftables`",
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
        Followed,
        "how pods are known: `ClusterCIDR`, `NodeCIDR`, `BridgeInterface` or `InterfaceNamePrefix`",
    ),
    both(
        "detectLocal.bridgeInterface",
        &[("pod-bridge-interface", Value)],
        Followed,
        "the pods' bridge, in mode `BridgeInterface`",
    ),
    both(
        "detectLocal.interfaceNamePrefix",
        &[("pod-interface-name-prefix", Value)],
        Followed,
        "how names of the pods' devices start, in mode `InterfaceNamePrefix`",
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
        Honoured,
        "`nf_conntrack_max`, for each processor, up to 1048576; 0 leaves it. Ferrule's own tables have `--max-flows` \
         rows",
    ),
    both(
        "conntrack.min",
        &[("conntrack-min", Value)],
        Honoured,
        "at least so many, however few processors there are",
    ),
    both(
        "conntrack.tcpEstablishedTimeout",
        &[("conntrack-tcp-timeout-established", Value)],
        Honoured,
        CONNTRACK_TIME,
    ),
    both(
        "conntrack.tcpCloseWaitTimeout",
        &[("conntrack-tcp-timeout-close-wait", Value)],
        Honoured,
        CONNTRACK_TIME,
    ),
    both(
        "conntrack.tcpBeLiberal",
        &[("conntrack-tcp-be-liberal", Bool)],
        Honoured,
        "sets `nf_conntrack_tcp_be_liberal`; Ferrule itself judges no packet by its sequence number",
    ),
    both(
        "conntrack.udpTimeout",
        &[("conntrack-udp-timeout", Value)],
        Honoured,
        CONNTRACK_TIME,
    ),
    both(
        "conntrack.udpStreamTimeout",
        &[("conntrack-udp-timeout-stream", Value)],
        Honoured,
        CONNTRACK_TIME,
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
        "`ferrule init` makes settings of the kernel, and so does each start",
    ),
    flags(
        &[("write-config-to", Value)],
        Refused,
        "`--check-config` shows what a file means here",
    ),
];
