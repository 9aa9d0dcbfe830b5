//! Which CPU does what.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps this thread on the last CPU: the first one has most interrupts.
pub(crate) fn stay_on_one_cpu() -> Result<()> {
    stay_on(std::thread::available_parallelism()?.get() - 1)
}

/// Keeps this thread on a CPU.
pub(crate) fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("staying on CPU {cpu}"))
}
