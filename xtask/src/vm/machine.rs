//! One boot of a guest under QEMU.

use super::cache;
use super::guest;
use super::image::Image;
use super::kernel::Kernel;
use crate::process::Identity;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
/// Lines of the console that a failure shows.
const CONSOLE_LINES: usize = 25;

/// How the guest's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// By the processor.
    Kvm,
    /// One by one, in software.
    Emulation,
}

impl Accelerator {
    /// With cx16 a 6.12 in ten dies of an emulated instruction. Linux 7 can't do without: it has no storage
    /// for sockets then.
    fn arguments(self, kernel: &Kernel) -> [&'static str; 4] {
        let processor = match kernel.numbers {
            (..7, _) => "max,-cx16",
            _ => "max",
        };
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Emulation => ["-accel", "tcg,thread=multi", "-cpu", processor],
        }
    }

    /// Whether there is anything to try: nested machines may show a /dev/kvm that hangs, without a
    /// processor that has what it needs.
    pub(super) fn may_be_kvm() -> bool {
        let is_writable = OpenOptions::new().write(true).open("/dev/kvm").is_ok();
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut flags = processor.split_whitespace();
        is_writable && flags.any(|flag| flag == "vmx" || flag == "svm")
    }
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, after all of its plan.
    Done,
    /// Before; the reason, and the console's last lines.
    Broken(String),
}

/// What is booted, and how.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Image,
    /// More of them for the kernel.
    pub(super) parameters: &'a str,
    pub(super) accelerator: Accelerator,
    pub(super) cpus: u8,
    pub(super) limit: Duration,
}

impl Machine<'_> {
    /// Boots and waits; hands over each line of the results as it comes.
    pub(super) fn run(&self, mut on_line: impl FnMut(&str)) -> Result<End> {
        let mut results = Results::create(self.image.folder.join("results.log"))?;
        let mut qemu = Guard(self.start(&results.path)?);
        record(qemu.0.id())?;
        let start = Instant::now();
        let mut is_done = false;
        loop {
            let ended = qemu.0.try_wait()?;
            for line in results.read()? {
                is_done |= line == guest::DONE;
                on_line(&line);
            }
            match ended {
                Some(_) if is_done => return Ok(End::Done),
                Some(status) => return Ok(self.broken(&format!("QEMU ended early ({status})"))),
                None if start.elapsed() > self.limit => {
                    let seconds = self.limit.as_secs();
                    return Ok(self.broken(&format!("no end after {seconds} s")));
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn start(&self, results: &Path) -> Result<Child> {
        let parameters = format!("console=ttyS0 panic=-1 quiet {} -- guest", self.parameters);
        let console = self.image.folder.join("console.log");
        let _ = fs::remove_file(&console);
        let log = File::create(self.image.folder.join("qemu.log"))?;
        Command::new(QEMU)
            .args(self.accelerator.arguments(self.kernel))
            .args(["-M", "q35", "-m", "2048", "-smp", &self.cpus.to_string()])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(&self.image.initramfs)
            .args(["-append", &parameters])
            .args(["-serial", &format!("file:{}", console.display())])
            .args(["-serial", &format!("file:{}", results.display())])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {QEMU}"))
    }

    fn broken(&self, why: &str) -> End {
        let mut text = format!("{why}; logs: {}", self.image.folder.display());
        for name in ["qemu.log", "console.log", "results.log"] {
            let bytes = fs::read(self.image.folder.join(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(CONSOLE_LINES)..] {
                text += &format!("\n  {name} | {}", line.trim_end());
            }
        }
        End::Broken(text)
    }
}

/// Notes a process, so that a later run can end it if this one is killed.
fn record(pid: u32) -> Result<()> {
    let Some(identity) = Identity::of(pid) else {
        return Ok(());
    };
    let file = cache::folder("guests")?.join(pid.to_string());
    Ok(fs::write(file, identity.to_string())?)
}

/// Ends the guests of runs that were killed. Whoever holds the cache's lock has no guests yet, and
/// nobody else has any.
pub(super) fn end_leftovers() -> Result<()> {
    for entry in fs::read_dir(cache::folder("guests")?)? {
        let file = entry?.path();
        let left = fs::read_to_string(&file)?;
        let ended = left.parse().map_or(true, Identity::end);
        ensure!(ended, "the guest of an earlier run does not end: {left}");
        fs::remove_file(file)?;
    }
    Ok(())
}

/// Ends QEMU with the value, whatever happens.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The second serial line, read while it is written.
struct Results {
    path: PathBuf,
    file: File,
    place: u64,
    rest: Vec<u8>,
}

impl Results {
    fn create(path: PathBuf) -> Result<Self> {
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            place: 0,
            rest: Vec::new(),
        })
    }

    /// The lines that have been completed since the last call.
    fn read(&mut self) -> Result<Vec<String>> {
        self.file.seek(SeekFrom::Start(self.place))?;
        self.place += self.file.read_to_end(&mut self.rest)? as u64;
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            lines.push(line.trim_end().to_owned());
        }
        Ok(lines)
    }
}
