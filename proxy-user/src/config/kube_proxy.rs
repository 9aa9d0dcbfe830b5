//! Flags that stand for something else than kube-proxy's, or that depend on its mode.

use super::go_duration;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// What kube-proxy takes where nobody says otherwise.
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// Flags of kube-proxy whose meaning here is a part of theirs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "As for kube-proxy")]
pub struct KubeProxyFlags {
    /// kube-proxy's mode. Programs are the same in each; it says which of its settings count.
    #[arg(long, value_enum, value_name = "MODE")]
    pub proxy_mode: Option<ProxyMode>,
    /// A change that has waited for twice this time makes /livez fail. [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = go_duration::parse)]
    pub iptables_sync_period: Option<Duration>,
    /// The same, for --proxy-mode ipvs.
    #[arg(long, value_name = "TIME", value_parser = go_duration::parse)]
    pub ipvs_sync_period: Option<Duration>,
}

/// Values of `--proxy-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyMode {
    /// kube-proxy's default.
    Iptables,
    /// Virtual servers.
    Ipvs,
    /// The one that differs in which addresses have NodePorts.
    Nftables,
}

impl KubeProxyFlags {
    /// How long kube-proxy would let changes wait.
    pub(super) fn sync_period(&self) -> Duration {
        let period = match self.proxy_mode {
            Some(ProxyMode::Ipvs) => self.ipvs_sync_period,
            Some(ProxyMode::Iptables | ProxyMode::Nftables) | None => self.iptables_sync_period,
        };
        period
            .filter(|period| !period.is_zero())
            .unwrap_or(SYNC_PERIOD)
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
        };
        let seconds = |flags: KubeProxyFlags| flags.sync_period().as_secs();
        assert_eq!(seconds(KubeProxyFlags::default()), 30);
        assert_eq!(seconds(flags(None, 10, 20)), 10);
        assert_eq!(seconds(flags(Some(ProxyMode::Nftables), 10, 20)), 10);
        assert_eq!(seconds(flags(Some(ProxyMode::Ipvs), 10, 20)), 20);
        assert_eq!(seconds(flags(None, 0, 20)), 30);
    }
}
