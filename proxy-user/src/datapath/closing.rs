//! Sockets whose backend is gone are closed, so that their applications connect anew.
//!
//! A thread of its own: it enters the network namespaces of pods.

mod destroy;
mod diag;

use crate::datapath::bpf::walk;
use crate::datapath::cgroup::own_netns;
use crate::datapath::features::{Feature, Features};
use crate::datapath::kernel::open_map;
use crate::datapath::netns::Namespaces;
use crate::datapath::pins::Pins;
use anyhow::{Context as _, Result, bail};
use aya::maps::MapData;
use aya::programs::ProgramFd;
use aya::{Btf, Ebpf};
use destroy::{Destroyer, load_iterator};
use diag::Closed;
use proxy_common::Connected;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// The program that walks over connected sockets.
const GONE: &str = "ferrule_gone";
/// What may go together is done together.
const PAUSE: Duration = Duration::from_millis(20);
/// By then those are connected that were on their way to a backend when it went.
const AGAIN: Duration = Duration::from_secs(1);
/// What could not be closed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// What has become of sockets whose backend has gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosingReport {
    /// Closed since the agent has started.
    pub closed: u64,
    /// Why some could not be; tried again every 30 seconds.
    pub problem: Option<String>,
}

/// Finds and closes them.
pub struct Closer {
    program: ProgramFd,
    /// `None`: the kernel lacks bpf_sock_destroy, and sock_diag closes.
    destroyer: Option<Destroyer>,
    sockets: MapData,
    report: ClosingReport,
    reports: watch::Sender<ClosingReport>,
}

/// Tells the thread that backends may be gone.
pub type Wake = SyncSender<()>;

impl Closer {
    /// Loads the program; returns where reports will be found, too.
    ///
    /// # Errors
    /// What is not there, or what the kernel refused.
    pub fn open(
        pins: &Pins,
        features: &Features,
        programs: &mut Ebpf,
    ) -> Result<(Self, watch::Receiver<ClosingReport>)> {
        let btf = Btf::from_sys_fs().context("reading the kernel's types")?;
        let program = load_iterator(programs, GONE, "bpf_sk_storage_map", &btf)?;
        let destroyer = match features.has(Feature::SocketDestroy) {
            true => Destroyer::load(programs, &btf)
                .inspect_err(|error| warn!("sockets are closed by sock_diag: {error:#}"))
                .ok(),
            false => None,
        };
        let (reports, receiver) = watch::channel(ClosingReport::default());
        let closer = Self {
            program,
            destroyer,
            sockets: open_map(pins, "CONNECTED_SOCKETS")?,
            report: ClosingReport::default(),
            reports,
        };
        Ok((closer, receiver))
    }

    /// Goes on in a thread of its own as long as there is somebody to wake it.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(mut self) -> Result<Wake> {
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("closing".into());
        thread
            .spawn(move || self.run(&woken))
            .context("starting the thread that closes sockets")?;
        Ok(wake)
    }

    fn run(&mut self, woken: &Receiver<()>) {
        // An earlier agent may have ended before it has closed what it had to.
        let mut patience = AGAIN;
        loop {
            let woken = woken.recv_timeout(patience);
            match woken {
                Ok(()) => std::thread::sleep(PAUSE),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let outcome = self.close_all();
            self.publish(outcome);
            patience = match (woken, &self.report.problem) {
                (Ok(()), _) => AGAIN,
                (Err(_), Some(_)) => RETRY,
                (Err(_), None) => Duration::MAX,
            };
        }
    }

    fn publish(&mut self, outcome: Result<()>) {
        let problem = outcome.err().map(|error| format!("{error:#}"));
        if problem.is_some() && problem != self.report.problem {
            warn!(
                "sockets whose backend is gone stay open: {}",
                problem.as_deref().unwrap_or_default()
            );
        }
        self.report.problem = problem;
        self.reports.send_replace(self.report.clone());
    }

    /// Closes all that have to be, wherever they are, and counts them.
    fn close_all(&mut self) -> Result<()> {
        let file = walk(self.program.as_fd(), Some(self.sockets.fd().as_fd()));
        let gone = file.and_then(rows).context("looking for sockets")?;
        let mut wanted = Wanted::new();
        for row in gone {
            wanted.entry(row.netns).or_default().push(row);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        reach(self.destroyer.as_ref(), wanted, &mut self.report.closed)
    }
}

/// What an iterator says.
fn rows(mut file: File) -> io::Result<Vec<Connected>> {
    let mut bytes = Vec::new();
    // After a million sockets of which none has to be closed the kernel takes a breath.
    while let Err(error) = file.read_to_end(&mut bytes) {
        if error.kind() != ErrorKind::WouldBlock {
            return Err(error);
        }
    }
    let rows = bytes.chunks_exact(size_of::<Connected>());
    Ok(rows.map(bytemuck::pod_read_unaligned).collect())
}

/// Sockets by the cookie of their network namespace.
type Wanted = BTreeMap<u64, Vec<Connected>>;

/// Closes what is wanted wherever it is, and adds up what was closed, also where something else was not.
fn reach(destroyer: Option<&Destroyer>, mut left: Wanted, total: &mut u64) -> Result<()> {
    let mut closed = Closed::default();
    let work = || {
        match close_here(destroyer, &mut left) {
            Ok(here) => {
                closed.count += here.count;
                closed.problem = here.problem.or(closed.problem.take());
            }
            Err(error) => closed.problem = Some(error),
        }
        match left.is_empty() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let visited = Namespaces::find()?.visit(work);
    *total += closed.count;
    if closed.count > 0 {
        info!("closed {} sockets whose backend is gone", closed.count);
    }
    if let Some(error) = closed.problem {
        return Err(error).context("closing sockets");
    }
    // Where the kernel does not tell where it is, some of these have been closed.
    if left.is_empty() || own_netns().is_err() {
        return Ok(());
    }
    let count: usize = left.values().map(Vec::len).sum();
    match visited {
        Err(error) => Err(error.context(format!("{count} sockets are out of reach"))),
        Ok(_) => {
            bail!("{count} sockets are out of reach: no name leads to their network namespace")
        }
    }
}

/// What is wanted here; all of it where the kernel does not tell where here is.
fn close_here(destroyer: Option<&Destroyer>, left: &mut Wanted) -> io::Result<Closed> {
    let wanted = match own_netns() {
        Ok(cookie) => match left.remove(&cookie) {
            Some(sockets) => sockets,
            None => return Ok(Closed::default()),
        },
        Err(_) => left.values().flatten().copied().collect(),
    };
    match destroyer {
        Some(destroyer) => destroyer.close(&wanted).map(Closed::all),
        None => diag::close(&wanted),
    }
}
