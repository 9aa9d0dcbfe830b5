//! The agent's process and version, by the names that all exporters have for it.

use super::rules::since_epoch;
use super::sample::{NONE, counters, gauges};
use nix::time::{ClockId, clock_gettime};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use std::fs::{read_dir, read_to_string};
use std::time::{Duration, SystemTime};

pub(super) fn register(registry: &mut Registry, started: SystemTime) {
    registry.register_collector(Box::new(Process { started }));
}

#[derive(Debug)]
struct Process {
    started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut gauge = |name, help, value: f64| gauges(&mut encoder, name, help, [(NONE, value)]);
        let started = since_epoch(self.started);
        gauge(
            "process_start_time_seconds",
            "When the process was started",
            started,
        )?;
        if let Some(bytes) = memory("VmRSS:") {
            gauge("process_resident_memory_bytes", "Memory in use", bytes)?;
        }
        if let Some(bytes) = memory("VmSize:") {
            gauge("process_virtual_memory_bytes", "Memory mapped", bytes)?;
        }
        if let Ok(files) = read_dir("/proc/self/fd") {
            // Without the folder itself.
            let open = files.count().saturating_sub(1);
            gauge("process_open_fds", "Files open", open as f64)?;
        }
        if let Some(limit) = file_limit() {
            gauge("process_max_fds", "Files that may be open", limit)?;
        }
        if let Ok(used) = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID) {
            let seconds = Duration::from(used).as_secs_f64();
            let help = "Processor time used";
            counters(&mut encoder, "process_cpu_seconds", help, [(NONE, seconds)])?;
        }
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        gauges(
            &mut encoder,
            "ferrule_build_info",
            "The agent's version",
            [(version, 1_u32)],
        )
    }
}

/// A line of the process' status, which has kilobytes.
fn memory(name: &str) -> Option<f64> {
    let status = read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// The soft limit.
fn file_limit() -> Option<f64> {
    let limits = read_to_string("/proc/self/limits").ok()?;
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
