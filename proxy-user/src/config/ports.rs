//! Source ports of masked flows, beside the ports of others.

use anyhow::{Context as _, Result, bail};
use std::ops::RangeInclusive;

/// The API server's default for `--service-node-port-range`.
pub const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;
/// Ports below need privileges, and a peer may take them for a service's own.
const FIRST_PORT: u16 = 1024;

/// Source ports of masked flows where nobody says otherwise.
///
/// # Errors
/// The node's ephemeral range can't be read.
pub fn default_snat_ports() -> Result<RangeInclusive<u16>> {
    Ok(widest_gap(&[ephemeral_ports()?, NODE_PORTS]))
}

pub(super) fn ephemeral_ports() -> Result<RangeInclusive<u16>> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(min)), Some(Ok(max))) => Ok(min..=max),
        _ => bail!("{path} is not two ports: {text}"),
    }
}

/// The widest range of ports from 1024 on that avoids these; all of it if they leave nothing.
fn widest_gap(taken: &[RangeInclusive<u16>]) -> RangeInclusive<u16> {
    let mut taken = taken.to_vec();
    taken.sort_by_key(|range| *range.start());
    let mut best: Option<RangeInclusive<u16>> = None;
    let mut next = u32::from(FIRST_PORT);
    let ends = taken
        .iter()
        .map(|range| (u32::from(*range.start()), u32::from(*range.end())));
    for (start, end) in ends.chain([(0x1_0000, 0x1_0000)]) {
        let width = best.as_ref().map_or(0, ExactSizeIterator::len);
        if start > next && (start - next) as usize > width {
            best = Some(next as u16..=(start - 1) as u16);
        }
        next = next.max(end + 1);
    }
    best.unwrap_or(FIRST_PORT..=u16::MAX)
}

pub(super) fn overlaps(
    snat_ports: &RangeInclusive<u16>,
    ephemeral: &RangeInclusive<u16>,
) -> Vec<String> {
    let overlap = |other: &RangeInclusive<u16>| {
        snat_ports.start() <= other.end() && other.start() <= snat_ports.end()
    };
    let text = |ports: &RangeInclusive<u16>| format!("{}-{}", ports.start(), ports.end());
    let others = [
        (
            "the ephemeral ports",
            "net.ipv4.ip_local_port_range",
            ephemeral,
        ),
        ("the NodePorts", "the API server's default", &NODE_PORTS),
    ];
    let found = others.iter().filter(|(_, _, other)| overlap(other));
    found
        .map(|(name, source, other)| {
            let (ours, other) = (text(snat_ports), text(other));
            format!(
                "--snat-ports: source ports {ours} of masked flows overlap {name} {other} ({source})"
            )
        })
        .collect()
}

/// Reads MIN-MAX.
///
/// # Errors
/// What is wrong with the text.
pub fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (min, max) = text.split_once('-').ok_or("not of the form MIN-MAX")?;
    let port = |text: &str| match text.trim().parse() {
        Ok(0) | Err(_) => Err(format!("'{text}' is not a port")),
        Ok(port) => Ok(port),
    };
    let (min, max) = (port(min)?, port(max)?);
    if min > max {
        Err("MIN is above MAX".into())
    } else {
        Ok(min..=max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_flows_get_the_widest_gap_between_other_ports() {
        assert_eq!(widest_gap(&[32768..=60999, NODE_PORTS]), 1024..=29999);
        assert_eq!(widest_gap(&[1024..=40000, NODE_PORTS]), 40001..=65535);
        assert_eq!(widest_gap(&[1024..=65535]), 1024..=65535);
        assert_eq!(widest_gap(&[]), 1024..=65535);
    }

    #[test]
    fn ports_that_overlap_others_are_named() {
        let ephemeral = 32768..=60999;
        assert_eq!(overlaps(&(1024..=29999), &ephemeral), [""; 0]);
        let found = overlaps(&(32767..=32768), &ephemeral);
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("32767-32768"), "{found:?}");
        assert!(found[0].contains("the ephemeral ports 32768-60999"));
        assert!(found[1].contains("the NodePorts 30000-32767"));
    }

    #[test]
    fn port_ranges_are_checked() {
        assert_eq!(port_range("2000-3000"), Ok(2000..=3000));
        for wrong in ["2000", "3000-2000", "0-10", "1-70000", "a-b"] {
            assert!(port_range(wrong).is_err(), "{wrong}");
        }
    }
}
