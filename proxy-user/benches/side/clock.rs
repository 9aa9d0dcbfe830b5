//! What CPU time goes to: this process, on the one CPU that client, server and nodes share, nobody, and others.

use anyhow::{Context as _, Result};
use nix::sched::sched_getcpu;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::io;
use std::time::{Duration, Instant};

/// Seconds between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spent {
    pub(crate) whole: f64,
    /// By all threads of this process; what the kernel did for packets meanwhile counts as theirs.
    pub(crate) used: f64,
    /// The CPU had nothing to do. The kernel tells it in steps of 10 ms: right in the sum of many.
    pub(crate) idle: f64,
}

/// A point in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    at: Instant,
    used: Duration,
    idle: f64,
}

/// Length of the kernel's unit in `/proc/stat` (USER_HZ), in seconds.
const UNIT: f64 = 0.01;

impl Moment {
    pub(crate) fn now() -> io::Result<Self> {
        let idle = idle().map_err(io::Error::other)?;
        let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into();
        Ok(Self {
            at: Instant::now(),
            used,
            idle,
        })
    }

    /// What has been spent since.
    pub(crate) fn spent(self) -> io::Result<Spent> {
        let now = Self::now()?;
        Ok(Spent {
            whole: (now.at - self.at).as_secs_f64(),
            used: now.used.saturating_sub(self.used).as_secs_f64(),
            idle: now.idle - self.idle,
        })
    }
}

impl Spent {
    pub(crate) fn add(&mut self, other: Self) {
        self.whole += other.whole;
        self.used += other.used;
        self.idle += other.idle;
    }
}

/// Seconds that this thread's CPU has idled.
fn idle() -> Result<f64> {
    const IDLE: usize = 4;
    let name = format!("cpu{}", sched_getcpu()?);
    let text = std::fs::read_to_string("/proc/stat")?;
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    let mut line = lines
        .find(|words| words.clone().next() == Some(&name))
        .with_context(|| format!("no {name} in /proc/stat"))?;
    let units: f64 = line.nth(IDLE).context("no idle time")?.parse()?;
    Ok(units * UNIT)
}
