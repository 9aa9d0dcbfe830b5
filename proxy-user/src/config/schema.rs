//! kube-proxy's `KubeProxyConfiguration`, version v1alpha1, as it is written.

use super::go_duration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// All fields. `null` is the same as nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Schema {
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) feature_gates: Option<BTreeMap<String, bool>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) client_connection: ClientConnection,
    #[serde(deserialize_with = "nullable")]
    pub(super) logging: Logging,
    pub(super) hostname_override: Option<String>,
    pub(super) bind_address: Option<String>,
    pub(super) healthz_bind_address: Option<String>,
    pub(super) metrics_bind_address: Option<String>,
    pub(super) bind_address_hard_fail: Option<bool>,
    pub(super) enable_profiling: Option<bool>,
    pub(super) show_hidden_metrics_for_version: Option<String>,
    pub(super) mode: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) iptables: Iptables,
    #[serde(deserialize_with = "nullable")]
    pub(super) ipvs: Ipvs,
    #[serde(deserialize_with = "nullable")]
    pub(super) nftables: Nftables,
    #[serde(deserialize_with = "nullable")]
    pub(super) winkernel: Winkernel,
    pub(super) windows_run_as_service: Option<bool>,
    pub(super) detect_local_mode: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) detect_local: DetectLocal,
    #[serde(rename = "clusterCIDR")]
    pub(super) cluster_cidr: Option<String>,
    pub(super) node_port_addresses: Option<Vec<String>>,
    pub(super) oom_score_adj: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub(super) conntrack: Conntrack,
    pub(super) config_sync_period: Option<Time>,
    pub(super) port_range: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ClientConnection {
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) accept_content_types: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) qps: Option<f32>,
    pub(super) burst: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Logging {
    pub(super) format: Option<String>,
    /// Nanoseconds, or a time.
    pub(super) flush_frequency: Option<serde_json::Value>,
    pub(super) verbosity: Option<u32>,
    pub(super) vmodule: Option<Vec<BTreeMap<String, serde_json::Value>>>,
    pub(super) options: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Iptables {
    pub(super) masquerade_bit: Option<i32>,
    pub(super) masquerade_all: Option<bool>,
    pub(super) localhost_node_ports: Option<bool>,
    pub(super) sync_period: Option<Time>,
    pub(super) min_sync_period: Option<Time>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Ipvs {
    pub(super) sync_period: Option<Time>,
    pub(super) min_sync_period: Option<Time>,
    pub(super) scheduler: Option<String>,
    #[serde(rename = "excludeCIDRs")]
    pub(super) exclude_cidrs: Option<Vec<String>>,
    #[serde(rename = "strictARP")]
    pub(super) strict_arp: Option<bool>,
    pub(super) tcp_timeout: Option<Time>,
    pub(super) tcp_fin_timeout: Option<Time>,
    pub(super) udp_timeout: Option<Time>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Nftables {
    pub(super) masquerade_bit: Option<i32>,
    pub(super) masquerade_all: Option<bool>,
    pub(super) sync_period: Option<Time>,
    pub(super) min_sync_period: Option<Time>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Winkernel {
    pub(super) network_name: Option<String>,
    pub(super) source_vip: Option<String>,
    #[serde(rename = "enableDSR")]
    pub(super) enable_dsr: Option<bool>,
    pub(super) root_hns_endpoint_name: Option<String>,
    pub(super) forward_health_check_vip: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DetectLocal {
    pub(super) bridge_interface: Option<String>,
    pub(super) interface_name_prefix: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Conntrack {
    pub(super) max_per_core: Option<i32>,
    pub(super) min: Option<i32>,
    pub(super) tcp_established_timeout: Option<Time>,
    pub(super) tcp_close_wait_timeout: Option<Time>,
    pub(super) tcp_be_liberal: Option<bool>,
    pub(super) udp_timeout: Option<Time>,
    pub(super) udp_stream_timeout: Option<Time>,
}

/// A time as Go writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let time = go_duration::parse(&text);
        time.map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:?}", self.0))
    }
}

fn nullable<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
