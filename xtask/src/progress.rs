//! Long steps: what runs, for how long, and where its output goes.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Lines of the log that a failure shows.
const LOG_LINES: usize = 25;

/// Runs a command to its end, its output going to `target/xtask/<log>.log`, and says every now and
/// then that it still runs.
///
/// # Errors
/// When it can't be started or fails; the end of the log is printed before.
pub fn run(title: &str, log: &str, mut command: Command) -> Result<()> {
    let path = workspace::log_file(log)?;
    let file = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("{title}: can't start {command:?}"))?;
    let mut clock = Clock::start(title, &path);
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None => clock.tick(),
        }
    };
    clock.finish(status.success());
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        eprintln!("  | {line}");
    }
    bail!("{title} failed ({status}); log: {}", path.display());
}

/// One line that is rewritten on a terminal, and repeated from time to time elsewhere.
struct Clock {
    title: String,
    log: String,
    start: Instant,
    said: Duration,
    terminal: bool,
}

impl Clock {
    fn start(title: &str, log: &Path) -> Self {
        let clock = Self {
            title: title.to_owned(),
            log: log.display().to_string(),
            start: Instant::now(),
            said: Duration::ZERO,
            terminal: std::io::stdout().is_terminal(),
        };
        if !clock.terminal {
            println!("  .. {} (log: {})", clock.title, clock.log);
        }
        clock
    }

    fn tick(&mut self) {
        std::thread::sleep(Duration::from_millis(20));
        let elapsed = self.start.elapsed();
        let interval = if self.terminal { 1 } else { 15 };
        if elapsed < self.said + Duration::from_secs(interval) {
            return;
        }
        self.said = elapsed;
        let seconds = elapsed.as_secs();
        if self.terminal {
            print!("\r  .. {} {seconds} s (log: {})", self.title, self.log);
            // A terminal that went away is no reason to stop the work.
            let _ = std::io::stdout().flush();
        } else {
            println!("  .. {} {seconds} s", self.title);
        }
    }

    fn finish(&self, success: bool) {
        let seconds = self.start.elapsed().as_secs_f64();
        let outcome = if success { "ok" } else { "FAILED" };
        let erase = if self.terminal { "\r\x1b[K" } else { "" };
        println!("{erase}  {outcome} {} ({seconds:.1} s)", self.title);
    }
}
