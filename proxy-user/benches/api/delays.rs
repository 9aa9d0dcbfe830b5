//! Quantiles of a histogram, as an agent's metrics have it.

use anyhow::{Context as _, Result, ensure};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use xtask::cluster::Namespace;

const HISTOGRAM: &str = "ferrule_sync_lag_seconds";

/// Counts by upper bound, in seconds, each with those below.
#[derive(Clone, Debug)]
pub(crate) struct Delays(Vec<(f64, u64)>);

impl Delays {
    /// Reads them from an agent in this namespace.
    pub(crate) fn read(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let text = namespace.run(|| get(address))??;
        let prefix = format!("{HISTOGRAM}_bucket{{le=\"");
        let rows = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        let rows = rows.map(|row| {
            let (bound, count) = row.split_once("\"} ").context("not a bucket")?;
            let bound = bound.parse().unwrap_or(f64::INFINITY);
            anyhow::Ok((bound, count.parse()?))
        });
        let rows: Vec<_> = rows.collect::<Result<_>>()?;
        ensure!(!rows.is_empty(), "the agent has no {HISTOGRAM}");
        Ok(Self(rows))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// What came after `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let rows = self.0.iter().zip(&before.0);
        Self(
            rows.map(|((bound, now), (_, then))| (*bound, now - then))
                .collect(),
        )
    }

    /// Milliseconds that this share took at most: a bound of the histogram.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = share * self.count() as f64;
        let row = self.0.iter().find(|(_, count)| *count as f64 >= wanted);
        row.map_or(f64::INFINITY, |(bound, _)| bound * 1e3)
    }
}

fn get(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
