//! Where the agent answers over HTTP: health and metrics.

use clap::{ArgAction, Args};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// kube-proxy's port for `/healthz` and `/livez`, which load balancers of clouds ask.
const HEALTHZ_PORT: u16 = 10256;
/// kube-proxy's port for `/metrics` and `/proxyMode`.
const METRICS_PORT: u16 = 10249;

/// Flags about what is served over HTTP.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Health and metrics")]
pub struct ListenFlags {
    /// Where /healthz and /livez are served; empty for nowhere. [default: 0.0.0.0:10256, or [::]:10256 if
    /// --bind-address is an IPv6 address]
    #[arg(long, value_name = "IP:PORT")]
    pub healthz_bind_address: Option<Listen>,
    /// Where /metrics and /proxyMode are served; empty for nowhere. [default: 127.0.0.1:10249, or
    /// [::1]:10249 if --bind-address is an IPv6 address]
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_bind_address: Option<Listen>,
    /// End if one of these addresses can't be bound, instead of trying again.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    pub bind_address_hard_fail: bool,
    /// The port of --healthz-bind-address if that has none; 0 for nowhere. Deprecated, as in kube-proxy.
    #[arg(long, value_name = "PORT", hide = true)]
    pub healthz_port: Option<u16>,
    /// The port of --metrics-bind-address if that has none; 0 for nowhere. Deprecated, as in kube-proxy.
    #[arg(long, value_name = "PORT", hide = true)]
    pub metrics_port: Option<u16>,
}

/// A value of `--healthz-bind-address` or `--metrics-bind-address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At the default port.
    Ip(IpAddr),
    /// Here.
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        let ip = text.parse().map(Self::Ip);
        ip.or_else(|_| text.parse().map(Self::At))
            .map_err(|_| "neither IP:PORT nor [IPV6]:PORT nor an IP address")
    }
}

impl ListenFlags {
    /// Where `/healthz` and `/livez` are served, for a node of this `--bind-address`.
    pub(super) fn healthz(&self, bind_address: Option<IpAddr>) -> Option<SocketAddr> {
        let ip = match bind_address {
            Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            Some(IpAddr::V4(_)) | None => Ipv4Addr::UNSPECIFIED.into(),
        };
        resolve(
            self.healthz_bind_address,
            self.healthz_port,
            ip,
            HEALTHZ_PORT,
        )
    }

    /// Where `/metrics` and `/proxyMode` are served, for a node of this `--bind-address`.
    pub(super) fn metrics(&self, bind_address: Option<IpAddr>) -> Option<SocketAddr> {
        let ip = match bind_address {
            Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
            Some(IpAddr::V4(_)) | None => Ipv4Addr::LOCALHOST.into(),
        };
        resolve(
            self.metrics_bind_address,
            self.metrics_port,
            ip,
            METRICS_PORT,
        )
    }
}

fn resolve(
    listen: Option<Listen>,
    port: Option<u16>,
    default_ip: IpAddr,
    default_port: u16,
) -> Option<SocketAddr> {
    let port = port.unwrap_or(default_port);
    match listen.unwrap_or(Listen::Ip(default_ip)) {
        _ if port == 0 => None,
        Listen::Off => None,
        Listen::Ip(ip) => Some(SocketAddr::new(ip, port)),
        Listen::At(address) => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ListenFlags,
    }

    fn parse(words: &[&str]) -> ListenFlags {
        let words = ["ferrule"].iter().chain(words);
        Line::try_parse_from(words).unwrap().flags
    }

    fn at(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn defaults_are_those_of_kube_proxy_in_the_family_of_the_node() {
        let flags = parse(&[]);
        let [v4, v6] = ["192.0.2.1", "::"].map(|ip| Some(ip.parse().unwrap()));
        for unspecified_or_v4 in [None, v4] {
            assert_eq!(flags.healthz(unspecified_or_v4), at("0.0.0.0:10256"));
            assert_eq!(flags.metrics(unspecified_or_v4), at("127.0.0.1:10249"));
        }
        assert_eq!(flags.healthz(v6), at("[::]:10256"));
        assert_eq!(flags.metrics(v6), at("[::1]:10249"));
        assert!(!flags.bind_address_hard_fail);
    }

    #[test]
    fn addresses_are_taken_with_and_without_a_port() {
        let flags = parse(&[
            "--healthz-bind-address=[::]:10300",
            "--metrics-bind-address=192.0.2.1",
            "--bind-address-hard-fail",
        ]);
        assert_eq!(flags.healthz(None), at("[::]:10300"));
        assert_eq!(flags.metrics(None), at("192.0.2.1:10249"));
        assert!(flags.bind_address_hard_fail);
        assert!(parse(&["--bind-address-hard-fail=true"]).bind_address_hard_fail);
        assert!(!parse(&["--bind-address-hard-fail=false"]).bind_address_hard_fail);
        assert!("localhost:10256".parse::<Listen>().is_err());
    }

    #[test]
    fn nothing_is_served_where_the_address_is_empty_or_the_port_is_0() {
        let flags = parse(&["--healthz-bind-address=", "--metrics-port=0"]);
        assert_eq!(flags.healthz(None), None);
        assert_eq!(flags.metrics(None), None);
        let flags = parse(&["--healthz-port=10300", "--metrics-bind-address", ""]);
        assert_eq!(flags.healthz(None), at("0.0.0.0:10300"));
        assert_eq!(flags.metrics(None), None);
    }
}
