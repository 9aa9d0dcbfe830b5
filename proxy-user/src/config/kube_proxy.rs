//! Flags of kube-proxy that stand for a part here of what they are there.

use super::{FeatureGates, go_duration};
use crate::frontend::{DetectLocal, NodePortAddresses, NodePortItem, NotAMode};
use clap::{ArgAction, Args};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What kube-proxy takes where nobody says otherwise.
pub(super) const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// Flags that are named and read as in kube-proxy.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "As for kube-proxy")]
pub struct KubeProxyFlags {
    /// kube-proxy's mode: iptables, ipvs or nftables. Programs are the same in each; it says where NodePorts are
    /// served if --nodeport-addresses does not, and whose settings count.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "",
        hide_default_value = true
    )]
    pub proxy_mode: ProxyMode,
    /// On which of the node's addresses NodePorts are served: ranges, `primary` (those of the Node object), `all`,
    /// or several of these. [default: primary; all, if --proxy-mode is iptables or ipvs]
    #[arg(
        long,
        value_name = "CIDR|primary|all,..",
        default_value = "",
        hide_default_value = true
    )]
    pub nodeport_addresses: NodePortAddresses,
    /// The same as --localhost-nodeports.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true", hide = true)]
    pub iptables_localhost_nodeports: bool,
    /// How packets of pods are told from others: by the addresses of --cluster-cidr (ClusterCIDR) or of the Node
    /// object's podCIDRs (NodeCIDR), or by the device that they come in by (BridgeInterface, InterfaceNamePrefix).
    #[arg(
        long,
        value_name = "MODE",
        default_value = "",
        hide_default_value = true
    )]
    pub detect_local_mode: String,
    /// The pods' bridge, for --detect-local-mode BridgeInterface.
    #[arg(
        long,
        value_name = "DEV",
        default_value = "",
        hide_default_value = true
    )]
    pub pod_bridge_interface: String,
    /// How the names of the pods' devices start, for --detect-local-mode InterfaceNamePrefix.
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    pub pod_interface_name_prefix: String,
    /// Mask all flows to ClusterIPs, those of pods too.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    pub masquerade_all: bool,
    /// Gates of kube-proxy, of which AllowServiceExternalIPs counts: whether Services are served on their
    /// externalIPs.
    #[arg(
        long,
        value_name = "GATE=BOOL,..",
        default_value = "",
        hide_default_value = true
    )]
    pub feature_gates: FeatureGates,
    /// A change that has waited for twice this time makes /livez fail. [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = go_duration::parse)]
    pub iptables_sync_period: Option<Duration>,
    /// The same, for --proxy-mode ipvs. [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = go_duration::parse)]
    pub ipvs_sync_period: Option<Duration>,
    /// How much is logged: 4 and more is debug, 6 and more trace, of the agent's own lines. --log wins.
    #[arg(short, long = "v", value_name = "N", id = "v")]
    pub verbosity: Option<u32>,
}

/// Values of `--proxy-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyMode {
    /// Nothing was said of it.
    #[default]
    Unsaid,
    /// kube-proxy's default.
    Iptables,
    /// Virtual servers.
    Ipvs,
    /// The one whose NodePorts are on primary addresses by default.
    Nftables,
}

impl FromStr for ProxyMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::Unsaid),
            "iptables" => Ok(Self::Iptables),
            "ipvs" => Ok(Self::Ipvs),
            "nftables" => Ok(Self::Nftables),
            other => Err(format!("'{other}' is neither iptables, ipvs nor nftables")),
        }
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsaid => "",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        })
    }
}

impl KubeProxyFlags {
    /// How long kube-proxy would let changes wait.
    pub(super) fn sync_period(&self) -> Duration {
        let period = match self.proxy_mode {
            ProxyMode::Ipvs => self.ipvs_sync_period,
            ProxyMode::Unsaid | ProxyMode::Iptables | ProxyMode::Nftables => {
                self.iptables_sync_period
            }
        };
        period
            .filter(|period| !period.is_zero())
            .unwrap_or(SYNC_PERIOD)
    }

    /// Where NodePorts are served: kube-proxy's default depends on its mode.
    pub(super) fn node_ports(&self) -> NodePortAddresses {
        let default = match self.proxy_mode {
            ProxyMode::Unsaid | ProxyMode::Nftables => NodePortItem::Primary,
            ProxyMode::Iptables | ProxyMode::Ipvs => NodePortItem::All,
        };
        if self.nodeport_addresses.is_empty() {
            NodePortAddresses::of(default)
        } else {
            self.nodeport_addresses.clone()
        }
    }

    /// How pods are told from others.
    pub(super) fn detect_local(&self) -> Result<DetectLocal, NotAMode> {
        DetectLocal::of(
            self.detect_local_mode.trim(),
            &self.pod_bridge_interface,
            &self.pod_interface_name_prefix,
        )
    }

    /// What is logged.
    pub(super) fn log_filter(&self) -> &'static str {
        match self.verbosity {
            None | Some(0..=3) => "info",
            Some(4 | 5) => "info,proxy_user=debug",
            Some(6..) => "info,proxy_user=trace",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sync_period_is_that_of_the_mode() {
        let flags = |proxy_mode, iptables: u64, ipvs: u64| KubeProxyFlags {
            proxy_mode,
            iptables_sync_period: Some(Duration::from_secs(iptables)),
            ipvs_sync_period: Some(Duration::from_secs(ipvs)),
            ..KubeProxyFlags::default()
        };
        let seconds = |flags: KubeProxyFlags| flags.sync_period().as_secs();
        assert_eq!(seconds(KubeProxyFlags::default()), 30);
        assert_eq!(seconds(flags(ProxyMode::Unsaid, 10, 20)), 10);
        assert_eq!(seconds(flags(ProxyMode::Nftables, 10, 20)), 10);
        assert_eq!(seconds(flags(ProxyMode::Ipvs, 10, 20)), 20);
        assert_eq!(seconds(flags(ProxyMode::Unsaid, 0, 20)), 30);
    }

    #[test]
    fn nodeports_are_by_default_where_kube_proxy_in_that_mode_has_them() {
        let served = |mode: &str, list: &str| {
            let flags = KubeProxyFlags {
                proxy_mode: mode.parse().unwrap(),
                nodeport_addresses: list.parse().unwrap(),
                ..KubeProxyFlags::default()
            };
            flags.node_ports().to_string()
        };
        for mode in ["", "nftables"] {
            assert_eq!(served(mode, ""), "primary", "{mode}");
        }
        for mode in ["iptables", "ipvs"] {
            assert_eq!(served(mode, ""), "all", "{mode}");
            assert_eq!(served(mode, "10.0.0.0/8,primary"), "10.0.0.0/8,primary");
        }
    }
}
