//! What the fields of kube-proxy's file mean here, and which of their values are wrong.

use super::kube_proxy::{KubeProxyFlags, ProxyMode, SYNC_PERIOD};
use super::listen::Listen;
use super::schema::{Conntrack, Schema, Time};
use crate::cluster::Cidr;
use crate::frontend::{NodePortAddresses, NotAMode};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// The fields that count. What is not set is the default.
#[derive(Clone, Debug, Default)]
pub(super) struct Meaning {
    pub(super) hostname_override: Option<String>,
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) bind_address: Option<IpAddr>,
    pub(super) healthz: Option<Listen>,
    pub(super) metrics: Option<Listen>,
    pub(super) bind_address_hard_fail: bool,
    pub(super) cluster_cidr: Vec<Cidr>,
    pub(super) kube_proxy: KubeProxyFlags,
    pub(super) conntrack: ConntrackMeaning,
}

/// The fields of `conntrack`. Where 0 says something else than nothing, nothing is `None`.
#[derive(Clone, Debug, Default)]
pub(super) struct ConntrackMeaning {
    pub(super) max_per_core: Option<u32>,
    pub(super) min: Option<u32>,
    pub(super) tcp_established: Option<Duration>,
    pub(super) tcp_close_wait: Option<Duration>,
    pub(super) tcp_be_liberal: bool,
    pub(super) udp: Duration,
    pub(super) udp_stream: Duration,
}

/// Collects what is wrong, in the form "field: what".
#[derive(Default)]
struct Problems(Vec<String>);

impl Meaning {
    /// Reads the fields; `localhost_nodeports` says whether its flag was given.
    ///
    /// # Errors
    /// All that is wrong, in the form "field: what".
    pub(super) fn of(schema: &Schema, localhost_nodeports: bool) -> Result<Self, Vec<String>> {
        let mut problems = Problems::default();
        problems.must_be("apiVersion", schema.api_version.as_deref(), API_VERSION);
        problems.must_be("kind", schema.kind.as_deref(), KIND);
        if !problems.0.is_empty() {
            return Err(problems.0);
        }
        let kube_proxy = kube_proxy(schema, &mut problems);
        let localhost = localhost_nodeports || kube_proxy.iptables_localhost_nodeports;
        if kube_proxy.nodeport_addresses.names_localhost() && !localhost {
            problems.add(
                "nodePortAddresses",
                &"localhost takes --localhost-nodeports",
            );
        }
        let meaning = Self {
            hostname_override: text(schema.hostname_override.as_ref()),
            kubeconfig: path(schema.client_connection.kubeconfig.as_ref()),
            bind_address: problems.address("bindAddress", schema.bind_address.as_deref()),
            healthz: problems.listen("healthzBindAddress", schema.healthz_bind_address.as_deref()),
            metrics: problems.listen("metricsBindAddress", schema.metrics_bind_address.as_deref()),
            bind_address_hard_fail: schema.bind_address_hard_fail.unwrap_or_default(),
            cluster_cidr: problems.cidrs("clusterCIDR", schema.cluster_cidr.as_deref()),
            kube_proxy,
            conntrack: conntrack(&schema.conntrack, &mut problems),
        };
        problems.unread(schema);
        problems.0.is_empty().then_some(meaning).ok_or(problems.0)
    }
}

fn conntrack(conntrack: &Conntrack, problems: &mut Problems) -> ConntrackMeaning {
    ConntrackMeaning {
        max_per_core: problems.count("conntrack.maxPerCore", conntrack.max_per_core),
        min: problems.count("conntrack.min", conntrack.min),
        tcp_established: conntrack.tcp_established_timeout.map(|time| time.0),
        tcp_close_wait: conntrack.tcp_close_wait_timeout.map(|time| time.0),
        tcp_be_liberal: conntrack.tcp_be_liberal.unwrap_or_default(),
        udp: time(conntrack.udp_timeout),
        udp_stream: time(conntrack.udp_stream_timeout),
    }
}

fn kube_proxy(schema: &Schema, problems: &mut Problems) -> KubeProxyFlags {
    let mode = schema.mode.as_deref().unwrap_or_default();
    let mode = match problems.read("mode", mode.parse()) {
        // A file without a mode means the default of kube-proxy.
        Some(ProxyMode::Unsaid) | None => ProxyMode::Iptables,
        Some(mode) => mode,
    };
    let detect = &schema.detect_local;
    let addresses = schema.node_port_addresses.iter().flatten();
    let parsed = NodePortAddresses::parse(addresses.map(String::as_str));
    let addresses = parsed.unwrap_or_else(|(index, error)| {
        problems.add(&format!("nodePortAddresses[{index}]"), &error);
        NodePortAddresses::default()
    });
    let (sync_period, masquerade_all) = match mode {
        ProxyMode::Nftables => (schema.nftables.sync_period, schema.nftables.masquerade_all),
        _ => (schema.iptables.sync_period, schema.iptables.masquerade_all),
    };
    let flags = KubeProxyFlags {
        proxy_mode: mode,
        nodeport_addresses: addresses,
        iptables_localhost_nodeports: schema.iptables.localhost_node_ports == Some(true),
        detect_local_mode: schema.detect_local_mode.clone().unwrap_or_default(),
        pod_bridge_interface: detect.bridge_interface.clone().unwrap_or_default(),
        pod_interface_name_prefix: detect.interface_name_prefix.clone().unwrap_or_default(),
        masquerade_all: masquerade_all.unwrap_or_default(),
        feature_gates: schema.feature_gates.clone().unwrap_or_default().into(),
        iptables_sync_period: sync_period.map(|time| time.0),
        ipvs_sync_period: schema.ipvs.sync_period.map(|time| time.0),
        verbosity: schema.logging.verbosity,
    };
    if let Err(error) = flags.detect_local() {
        problems.add(field_of(&error), &error);
    }
    flags
}

fn field_of(error: &NotAMode) -> &'static str {
    match error {
        NotAMode::Unknown(_) => "detectLocalMode",
        NotAMode::Bridge(_) => "detectLocal.bridgeInterface",
        NotAMode::Prefix(_) => "detectLocal.interfaceNamePrefix",
    }
}

impl Problems {
    fn add(&mut self, field: &str, what: &dyn fmt::Display) {
        self.0.push(format!("{field}: {what}"));
    }

    fn read<T>(&mut self, field: &str, read: Result<T, impl fmt::Display>) -> Option<T> {
        read.map_err(|error| self.add(field, &error)).ok()
    }

    fn must_be(&mut self, field: &str, value: Option<&str>, wanted: &str) {
        match value {
            Some(value) if value == wanted => {}
            Some(value) => self.add(field, &format!("is '{value}' and must be {wanted}")),
            None => self.add(field, &format!("missing; it must be {wanted}")),
        }
    }

    fn address(&mut self, field: &str, value: Option<&str>) -> Option<IpAddr> {
        let value = value.filter(|value| !value.is_empty())?;
        let parsed = value.parse();
        self.read(
            field,
            parsed.map_err(|_| format!("'{value}' is not an IP address")),
        )
    }

    /// Empty is the default here: a file can't switch it off, but with a flag. Without a port it is the default
    /// one's, as in kube-proxy.
    fn listen(&mut self, field: &str, value: Option<&str>) -> Option<Listen> {
        let value = value.filter(|value| !value.is_empty())?;
        let parsed = value.parse::<Listen>();
        self.read(field, parsed.map_err(|why| format!("'{value}' is {why}")))
    }

    fn count(&mut self, field: &str, value: Option<i32>) -> Option<u32> {
        let value = value?;
        let max = i32::MAX;
        let wrong = |_| format!("{value} is not within 0 to {max}");
        self.read(field, u32::try_from(value).map_err(wrong))
    }

    fn cidrs(&mut self, field: &str, value: Option<&str>) -> Vec<Cidr> {
        let texts = value.iter().flat_map(|value| value.split(','));
        let texts = texts.map(str::trim).filter(|text| !text.is_empty());
        let mut cidrs: Vec<Cidr> = Vec::new();
        for text in texts {
            let parsed = text.parse::<Cidr>();
            let parsed = parsed.map_err(|error| format!("'{text}' is {error}"));
            cidrs.extend(self.read(field, parsed));
        }
        let v4 = cidrs.iter().filter(|cidr| cidr.address().is_ipv4()).count();
        if v4 > 1 || cidrs.len() - v4 > 1 {
            self.add(field, &"at most one range of each family");
        }
        cidrs
    }

    /// Fields that mean nothing here, but are wrong all the same.
    fn unread(&mut self, schema: &Schema) {
        let bits = [
            (
                "iptables.masqueradeBit",
                schema.iptables.masquerade_bit,
                0..=31,
            ),
            (
                "nftables.masqueradeBit",
                schema.nftables.masquerade_bit,
                0..=31,
            ),
            ("oomScoreAdj", schema.oom_score_adj, -1000..=1000),
            (
                "clientConnection.burst",
                schema.client_connection.burst,
                0..=i32::MAX,
            ),
        ];
        for (field, value, range) in bits {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                let (min, max) = range.into_inner();
                self.add(field, &format!("{value} is not within {min} to {max}"));
            }
        }
        let Schema {
            iptables,
            ipvs,
            nftables,
            ..
        } = schema;
        let periods = [
            (
                "iptables.minSyncPeriod",
                iptables.min_sync_period,
                iptables.sync_period,
            ),
            ("ipvs.minSyncPeriod", ipvs.min_sync_period, ipvs.sync_period),
            (
                "nftables.minSyncPeriod",
                nftables.min_sync_period,
                nftables.sync_period,
            ),
        ];
        for (field, min, period) in periods {
            let period = Some(time(period)).filter(|period| !period.is_zero());
            if time(min) > period.unwrap_or(SYNC_PERIOD) {
                self.add(field, &"longer than syncPeriod");
            }
        }
        let format = schema.logging.format.as_deref().unwrap_or_default();
        if !["", "text", "json"].contains(&format) {
            self.add(
                "logging.format",
                &format!("'{format}' is neither text nor json"),
            );
        }
    }
}

fn time(time: Option<Time>) -> Duration {
    time.map_or(Duration::ZERO, |time| time.0)
}

fn text(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty()).cloned()
}

fn path(path: Option<&PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty()).cloned()
}
