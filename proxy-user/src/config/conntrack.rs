//! kube-proxy's settings of conntrack: how long flows last, and what netfilter is asked for.

use super::file::{File, Wrong};
use super::go_duration;
use super::meaning::Meaning;
use crate::datapath::sysctl::Conntrack;
use clap::{ArgAction, Args};
use std::path::Path;
use std::time::Duration;

/// Flags of kube-proxy about conntrack. Times are those that a flow lasts without a packet, in the tables of Ferrule
/// and in netfilter's; 0 is Ferrule's default, and leaves netfilter's as it is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Conntrack, as for kube-proxy")]
pub struct ConntrackFlags {
    /// Connections that netfilter tracks at most, for each processor; 0 leaves nf_conntrack_max as it is. The tables
    /// of Ferrule have --max-flows rows.
    #[arg(long, value_name = "N", default_value_t = MAX_PER_CORE, value_parser = count())]
    pub conntrack_max_per_core: u32,
    /// At least so many, however few processors there are.
    #[arg(long, value_name = "N", default_value_t = MIN, value_parser = count())]
    pub conntrack_min: u32,
    /// TCP connections that are open.
    #[arg(long, value_name = "TIME", default_value = ESTABLISHED, value_parser = go_duration::parse)]
    pub conntrack_tcp_timeout_established: Duration,
    /// TCP connections that one side has closed.
    #[arg(long, value_name = "TIME", default_value = CLOSE_WAIT, value_parser = go_duration::parse)]
    pub conntrack_tcp_timeout_close_wait: Duration,
    /// netfilter takes packets outside of a TCP connection's window for the connection's. Ferrule always does.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    pub conntrack_tcp_be_liberal: bool,
    /// UDP flows that were not answered. [default: 30s, and netfilter's as it is]
    #[arg(long, value_name = "TIME", default_value = "0", hide_default_value = true, value_parser = go_duration::parse)]
    pub conntrack_udp_timeout: Duration,
    /// UDP flows that were. [default: 180s, and netfilter's as it is]
    #[arg(long, value_name = "TIME", default_value = "0", hide_default_value = true, value_parser = go_duration::parse)]
    pub conntrack_udp_timeout_stream: Duration,
}

const MAX_PER_CORE: u32 = 32_768;
const MIN: u32 = 131_072;
pub(super) const ESTABLISHED: &str = "24h";
pub(super) const CLOSE_WAIT: &str = "1h";

/// What processors alone can ask for, as in kube-proxy: 300 MB.
const MOST_BY_CORES: u32 = 1_048_576;

/// As the file has it: 31 bits.
fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=i64::from(i32::MAX))
}

impl ConntrackFlags {
    /// The fields of a file instead.
    pub(super) fn of(meaning: &Meaning) -> Self {
        let time = |text| go_duration::parse(text).unwrap_or_default();
        let meaning = &meaning.conntrack;
        let established = meaning.tcp_established;
        let close_wait = meaning.tcp_close_wait;
        Self {
            conntrack_max_per_core: meaning.max_per_core.unwrap_or(MAX_PER_CORE),
            conntrack_min: meaning.min.unwrap_or(MIN),
            conntrack_tcp_timeout_established: established.unwrap_or_else(|| time(ESTABLISHED)),
            conntrack_tcp_timeout_close_wait: close_wait.unwrap_or_else(|| time(CLOSE_WAIT)),
            conntrack_tcp_be_liberal: meaning.tcp_be_liberal,
            conntrack_udp_timeout: meaning.udp,
            conntrack_udp_timeout_stream: meaning.udp_stream,
        }
    }

    /// What the file says, if there is one, instead of the flags.
    ///
    /// # Errors
    /// It can't be read, or something in it is wrong.
    pub fn or_file(self, path: Option<&Path>) -> Result<Self, Wrong> {
        match path {
            // Whoever reads all of it knows the flags that it is weighed against.
            Some(path) => Ok(Self::of(&File::read(path, true)?.meaning)),
            None => Ok(self),
        }
    }

    /// What netfilter is asked for on a machine with so many processors.
    pub fn netfilter(&self, processors: usize) -> Conntrack {
        Conntrack {
            max: self.max(processors),
            tcp_established: seconds(self.conntrack_tcp_timeout_established),
            tcp_close_wait: seconds(self.conntrack_tcp_timeout_close_wait),
            tcp_be_liberal: self.conntrack_tcp_be_liberal,
            udp: seconds(self.conntrack_udp_timeout),
            udp_stream: seconds(self.conntrack_udp_timeout_stream),
        }
    }

    fn max(&self, processors: usize) -> Option<u32> {
        let processors = u32::try_from(processors).unwrap_or(u32::MAX);
        let scaled = self.conntrack_max_per_core.saturating_mul(processors);
        let max = scaled.min(MOST_BY_CORES).max(self.conntrack_min);
        (scaled > 0).then_some(max)
    }
}

/// netfilter counts whole seconds in an int, and takes 0 for no time at all.
fn seconds(time: Duration) -> Option<u32> {
    let seconds = time.as_nanos().div_ceil(1_000_000_000);
    let seconds = seconds.min(i32::MAX.unsigned_abs().into()) as u32;
    (seconds > 0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ConntrackFlags,
    }

    fn parse(words: &[&str]) -> ConntrackFlags {
        let words = ["ferrule"].iter().chain(words);
        Line::try_parse_from(words).unwrap().flags
    }

    #[test]
    fn netfilter_is_asked_for_what_kube_proxy_asks_for() {
        let wanted = Conntrack {
            max: Some(131_072),
            tcp_established: Some(86_400),
            tcp_close_wait: Some(3600),
            ..Conntrack::default()
        };
        assert_eq!(parse(&[]).netfilter(2), wanted);
        let given = parse(&[
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=90m",
            "--conntrack-tcp-be-liberal",
            "--conntrack-udp-timeout=500ms",
            "--conntrack-udp-timeout-stream=1500ms",
        ]);
        let wanted = Conntrack {
            max: None,
            tcp_established: None,
            tcp_close_wait: Some(5400),
            tcp_be_liberal: true,
            udp: Some(1),
            udp_stream: Some(2),
        };
        assert_eq!(given.netfilter(2), wanted);
        let names = [
            "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
            "net.netfilter.nf_conntrack_tcp_be_liberal",
            "net.netfilter.nf_conntrack_udp_timeout",
            "net.netfilter.nf_conntrack_udp_timeout_stream",
        ];
        let settings = given.netfilter(2).settings().collect::<Vec<_>>();
        assert_eq!(
            settings,
            [
                (names[0], 5400),
                (names[1], 1),
                (names[2], 1),
                (names[3], 2)
            ]
        );
    }

    #[test]
    fn the_table_grows_with_the_processors_up_to_a_million() {
        let max = |words: &[&str], processors| parse(words).netfilter(processors).max;
        assert_eq!(max(&[], 4), Some(131_072));
        assert_eq!(max(&[], 8), Some(262_144));
        assert_eq!(max(&[], 512), Some(1_048_576));
        assert_eq!(max(&["--conntrack-min=0"], 1), Some(32_768));
        let more = ["--conntrack-min=2000000"];
        assert_eq!(max(&more, 512), Some(2_000_000), "it was asked for");
        let most = ["--conntrack-max-per-core=2147483647"];
        assert_eq!(max(&most, usize::MAX), Some(1_048_576));
        assert_eq!(max(&["--conntrack-max-per-core=0"], 512), None);
        let words = ["ferrule", "--conntrack-min=2147483648"];
        assert!(Line::try_parse_from(words).is_err());
    }

    #[test]
    fn no_time_is_too_long_for_netfilter() {
        let given = parse(&["--conntrack-udp-timeout=2000000h"]);
        assert_eq!(given.netfilter(1).udp, Some(2_147_483_647));
    }
}
