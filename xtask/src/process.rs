//! Which process is meant: a process id together with its start time, so that a recycled id is
//! never taken for the process that was recorded.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// One process, for ever: ids are recycled, pairs of id and start time are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pid: i32,
    /// Clock ticks since boot.
    started: u64,
}

impl Identity {
    /// The running process with this id; `None` if there is none, or only a zombie.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before the last parenthesis may itself hold spaces and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        if matches!(*fields.first()?, "Z" | "X") {
            return None;
        }
        let started = fields.get(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// This process.
    ///
    /// # Panics
    /// When /proc is not mounted.
    #[must_use]
    pub fn own() -> Self {
        Self::of(std::process::id()).expect("/proc shows the process that reads it")
    }

    /// The process id.
    #[must_use]
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether this very process still runs.
    #[must_use]
    pub fn is_alive(self) -> bool {
        u32::try_from(self.pid).ok().and_then(Self::of) == Some(self)
    }

    /// Kills the process, if it still is the one recorded, and waits up to five seconds for its end.
    /// Returns whether it is gone.
    #[must_use]
    pub fn end(self) -> bool {
        if !self.is_alive() {
            return true;
        }
        // It may end by itself in this very moment; the wait below tells.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        wait_for(Duration::from_secs(5), || !self.is_alive())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.started)
    }
}

impl FromStr for Identity {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pid, started) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        Ok(Self {
            pid: pid.parse()?,
            started: started.parse()?,
        })
    }
}

/// Polls `done` every 10 ms until it holds or `limit` has passed; returns whether it held.
pub fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_is_alive_and_survives_being_written_down() {
        let own = Identity::own();
        assert!(own.is_alive());
        assert_eq!(own.to_string().parse(), Ok(own));
    }

    #[test]
    fn a_recycled_process_id_is_another_process_and_is_not_killed() {
        let mut recorded = Identity::own();
        recorded.started += 1;
        assert!(!recorded.is_alive());
        assert!(recorded.end());
    }

    #[test]
    fn a_zombie_counts_as_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        assert!(wait_for(Duration::from_secs(5), || Identity::of(
            child.id()
        )
        .is_none()));
        child.wait().unwrap();
    }
}
