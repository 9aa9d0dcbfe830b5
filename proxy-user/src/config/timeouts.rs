//! How long flows last.

use super::conntrack::{CLOSE_WAIT, ConntrackFlags, ESTABLISHED};
use super::go_duration;
use crate::flows::{Timeouts, ticks};
use clap::Args;
use std::time::Duration;

/// Flags about times that kube-proxy has no flags for. 0 is the default.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Time-outs of flows")]
pub struct TimeoutFlags {
    /// TCP connections whose client has not answered the backend's answer.
    #[arg(long, value_name = "TIME", default_value = HALF_OPEN, value_parser = go_duration::parse)]
    pub tcp_timeout_half_open: Duration,
    /// TCP connections that both sides have closed, or one has reset; about a second when a flow table
    /// is more than 80 % full.
    #[arg(long, value_name = "TIME", default_value = CLOSING, value_parser = go_duration::parse)]
    pub tcp_timeout_closing: Duration,
}

const HALF_OPEN: &str = "120s";
const CLOSING: &str = "10s";
const UDP: &str = "30s";
const UDP_STREAM: &str = "180s";

impl TimeoutFlags {
    /// In the unit of the tables, together with those of kube-proxy.
    pub fn timeouts(&self, conntrack: &ConntrackFlags) -> Timeouts {
        Timeouts {
            half_open: or_default(self.tcp_timeout_half_open, HALF_OPEN),
            established: or_default(conntrack.conntrack_tcp_timeout_established, ESTABLISHED),
            half_closed: or_default(conntrack.conntrack_tcp_timeout_close_wait, CLOSE_WAIT),
            closing: or_default(self.tcp_timeout_closing, CLOSING),
            unanswered: or_default(conntrack.conntrack_udp_timeout, UDP),
            answered: or_default(conntrack.conntrack_udp_timeout_stream, UDP_STREAM),
        }
    }
}

fn or_default(time: Duration, default: &str) -> u32 {
    if time.is_zero() {
        ticks(go_duration::parse(default).unwrap_or(time))
    } else {
        ticks(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: TimeoutFlags,
        #[command(flatten)]
        conntrack: ConntrackFlags,
    }

    fn parse(words: &[&str]) -> Option<Timeouts> {
        let words = ["ferrule"].iter().chain(words);
        let line = Line::try_parse_from(words).ok()?;
        Some(line.flags.timeouts(&line.conntrack))
    }

    #[test]
    fn times_are_written_as_for_kube_proxy() {
        let defaults = parse(&[]).unwrap();
        assert_eq!(defaults.established, ticks(Duration::from_secs(86_400)));
        assert_eq!(defaults.unanswered, ticks(Duration::from_secs(30)));
        assert_eq!(defaults.answered, ticks(Duration::from_secs(180)));
        let given = parse(&[
            "--conntrack-tcp-timeout-established=1h30m0s",
            "--conntrack-udp-timeout=500ms",
        ]);
        let given = given.unwrap();
        assert_eq!(given.established, ticks(Duration::from_secs(5_400)));
        assert_eq!(given.unanswered, 1);
        assert_eq!(given.closing, defaults.closing);
        for wrong in ["10", "-1s", "soon"] {
            let flag = format!("--tcp-timeout-closing={wrong}");
            assert_eq!(parse(&[&flag]), None, "{wrong}");
        }
    }

    #[test]
    fn nothing_is_the_default() {
        let zero = parse(&[
            "--conntrack-tcp-timeout-close-wait=0s",
            "--tcp-timeout-half-open=0s",
        ]);
        assert_eq!(zero, parse(&[]));
    }
}
