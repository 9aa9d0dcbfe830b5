//! The agent's unix socket: a client sends one line and reads one answer.
//!
//! `report` is answered by a JSON document, `name` and what is dialled by a Service's name in JSON, `stop` by the end
//! of the agent.

use super::listeners::Unbound;
use super::preparations::Preparations;
use super::sockets::SocketReport;
use crate::datapath::attach::DeviceReport;
use crate::datapath::closing::ClosingReport;
use crate::datapath::exempt::ExemptReport;
use crate::flows::FlowReport;
use crate::source::kube::{Watch, WatchReport};
use crate::sync::{At, Report, Request};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::debug;

/// Asks for the state of the devices.
pub(super) type DeviceRequest = oneshot::Sender<Vec<DeviceReport>>;

/// Nobody waits longer than this for the other side.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a running agent says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentReport {
    /// Version of the agent.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// First and last source port of masked flows.
    pub snat_ports: (u16, u16),
    /// Ports that no socket gets unless it asks for them, as the kernel writes them; `None`: Ferrule could
    /// not see to it.
    pub reserved_ports: Option<String>,
    /// What the operator should put right.
    pub warnings: Vec<String>,
    /// The watches on the API server; none if objects come from a folder.
    pub watches: Vec<WatchReport>,
    /// The control plane.
    pub sync: Report,
    /// The devices of the node and what is attached to them.
    pub devices: Vec<DeviceReport>,
    /// The programs at cgroups.
    pub sockets: SocketReport,
    /// Sockets that were closed because their backend had gone.
    pub closed_sockets: ClosingReport,
    /// The flow tables, as the last pass over them has found them.
    pub flows: FlowReport,
}

impl AgentReport {
    /// Whether all there is has been written, and programs are attached wherever they belong.
    pub fn is_synced(&self) -> bool {
        // Loopback at least is always there, once the devices have been listed.
        let attached = |device: &DeviceReport| device.attached.is_some() || !device.is_suitable;
        let written = self.sync.synced && self.sync.pending == 0 && self.sync.last_error.is_none();
        written
            && self.sockets.is_settled()
            && !self.devices.is_empty()
            && self.devices.iter().all(attached)
    }
}

/// Where the socket is.
pub(super) fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("ferrule.sock")
}

/// Answers `ferrule status`.
pub(super) struct Server {
    pub(super) socket: PathBuf,
    pub(super) sync: mpsc::Sender<Request>,
    pub(super) devices: mpsc::Sender<DeviceRequest>,
    pub(super) preparations: Preparations,
    pub(super) flows: watch::Receiver<FlowReport>,
    pub(super) sockets: watch::Receiver<SocketReport>,
    pub(super) exempt: watch::Receiver<Vec<ExemptReport>>,
    pub(super) closed: watch::Receiver<ClosingReport>,
    pub(super) watches: Vec<Watch>,
    /// What is wrong with the configuration file, or waits for a restart.
    pub(super) settings: watch::Receiver<Vec<String>>,
    /// Addresses that can't be bound, and why.
    pub(super) unbound: Unbound,
}

impl Server {
    pub(super) async fn run(self) -> Result<()> {
        let path = self.socket.display();
        // Left behind by an agent that was killed; the lock says that none is running.
        let _ = std::fs::remove_file(&self.socket);
        let listener =
            UnixListener::bind(&self.socket).with_context(|| format!("binding {path}"))?;
        // The folder is closed to others already.
        std::fs::set_permissions(&self.socket, Permissions::from_mode(0o600))
            .with_context(|| format!("protecting {path}"))?;
        // Apart from each other: one that says nothing keeps nobody waiting.
        let mut clients = JoinSet::new();
        let server = Arc::new(self);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (client, _) = accepted.with_context(|| format!("{}", server.socket.display()))?;
                    let answer = Arc::clone(&server).answer(client);
                    clients.spawn(tokio::time::timeout(TIMEOUT, answer));
                }
                Some(answered) = clients.join_next() => match answered {
                    Ok(Ok(Ok(Answered::Stop))) => return Ok(()),
                    Ok(Ok(Ok(Answered::Question))) => {}
                    Ok(Ok(Err(error))) => debug!("a request was not answered: {error:#}"),
                    Ok(Err(_)) => debug!("a request took too long"),
                    Err(error) => debug!("a request could not be handled: {error}"),
                },
            }
        }
    }

    async fn answer(self: Arc<Self>, mut client: UnixStream) -> Result<Answered> {
        let mut line = String::new();
        BufReader::new((&mut client).take(LONGEST_REQUEST))
            .read_line(&mut line)
            .await?;
        let answer = match line.trim_end() {
            REPORT => serde_json::to_vec(&self.report().await?)?,
            STOP => return Ok(Answered::Stop),
            other => match other.strip_prefix(NAME) {
                Some(at) => serde_json::to_vec(&self.name(at.parse()?).await?)?,
                None => bail!("unknown request {other:?}"),
            },
        };
        client.write_all(&answer).await?;
        Ok(Answered::Question)
    }

    async fn name(&self, at: At) -> Result<Option<String>> {
        request(&self.sync, |reply| Request::Name(at, reply)).await
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.preparations.warnings.clone();
        warnings.extend(self.settings.borrow().iter().cloned());
        warnings.extend(self.unbound.complaints());
        warnings
    }

    async fn report(&self) -> Result<AgentReport> {
        Ok(AgentReport {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            snat_ports: self.preparations.snat_ports.clone().into_inner(),
            reserved_ports: self.preparations.reserved_ports.clone(),
            warnings: self.warnings(),
            watches: self.watches.iter().map(Watch::report).collect(),
            sync: request(&self.sync, Request::Report).await?,
            devices: request(&self.devices, |reply| reply).await?,
            sockets: SocketReport {
                exempt: self.exempt.borrow().clone(),
                ..self.sockets.borrow().clone()
            },
            closed_sockets: self.closed.borrow().clone(),
            flows: self.flows.borrow().clone(),
        })
    }
}

/// What was asked for.
enum Answered {
    Question,
    Stop,
}

const REPORT: &str = "report";
const NAME: &str = "name ";
const STOP: &str = "stop";
/// Bytes that a request may have.
const LONGEST_REQUEST: u64 = 64;

async fn request<R, T>(
    to: &mpsc::Sender<R>,
    question: impl FnOnce(oneshot::Sender<T>) -> R,
) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    let sent = to.send(question(reply)).await;
    sent.ok().context("the agent is stopping")?;
    answer.await.context("the agent is stopping")
}

/// The report of the agent that runs on this folder; `None` if none does.
///
/// # Errors
/// The socket can't be used, or what it says makes no sense.
pub fn ask(run_dir: &Path) -> Result<Option<AgentReport>> {
    let Some(answer) = send(run_dir, REPORT)? else {
        return Ok(None);
    };
    Ok(Some(
        serde_json::from_slice(&answer).context("the agent's answer")?,
    ))
}

/// What the agent that runs on this folder calls what is dialled here; `None` if no agent runs.
///
/// # Errors
/// As for [`ask`].
pub fn ask_name(run_dir: &Path, at: &At) -> Result<Option<Option<String>>> {
    let Some(answer) = send(run_dir, &format!("{NAME}{at}"))? else {
        return Ok(None);
    };
    let name = serde_json::from_slice(&answer).context("the agent's answer")?;
    Ok(Some(name))
}

/// Whether an agent runs on this folder, however busy it is.
pub fn is_running(run_dir: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket(run_dir)).is_ok()
}

/// A run folder without an agent, and kept so as long as this value lives.
pub struct Stopped {
    /// The agent that was stopped, if there was one.
    pub pid: Option<u32>,
    _lock: Option<File>,
}

/// Stops the agent that runs on this folder, and waits for its end. One that is just starting is
/// waited for first.
///
/// # Errors
/// It neither answers nor stops.
pub fn stop(run_dir: &Path) -> Result<Stopped> {
    let deadline = Instant::now() + 2 * TIMEOUT;
    let mut pid = None;
    if !run_dir
        .try_exists()
        .with_context(|| format!("looking at {}", run_dir.display()))?
    {
        return Ok(Stopped { pid, _lock: None });
    }
    loop {
        if pid.is_none()
            && let Some(agent) = ask(run_dir)?
        {
            pid = Some(agent.pid);
            send(run_dir, STOP)?;
        }
        match super::lock::take(run_dir) {
            Ok(lock) => {
                return Ok(Stopped {
                    pid,
                    _lock: Some(lock),
                });
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Sends a request and returns all of the answer; `None` if nobody listens.
fn send(run_dir: &Path, request: &str) -> Result<Option<Vec<u8>>> {
    let path = socket(run_dir);
    let mut stream = match std::os::unix::net::UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("connecting to {}", path.display()));
        }
    };
    stream.set_read_timeout(Some(TIMEOUT))?;
    writeln!(stream, "{request}")?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("reading from {}", path.display()))?;
    Ok(Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_says_nothing_keeps_nobody_waiting() {
        let folder = std::env::temp_dir().join(format!("ferrule-report-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let server = Server {
            socket: socket(&folder),
            sync: mpsc::channel(1).0,
            devices: mpsc::channel(1).0,
            preparations: Preparations {
                snat_ports: 1024..=2047,
                reserved_ports: None,
                conntrack: Vec::new(),
                warnings: Vec::new(),
            },
            flows: watch::channel(FlowReport::default()).1,
            sockets: watch::channel(SocketReport::new(crate::config::SocketLb::Off)).1,
            exempt: watch::channel(Vec::new()).1,
            closed: watch::channel(ClosingReport::default()).1,
            watches: Vec::new(),
            settings: watch::channel(Vec::new()).1,
            unbound: Unbound {
                addresses: [(); 2].map(|()| watch::channel(None).1),
                health_checks: watch::channel(Vec::new()).1,
            },
        };
        let running = tokio::spawn(server.run());
        let _silent = loop {
            match UnixStream::connect(socket(&folder)).await {
                Ok(client) => break client,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let mut client = UnixStream::connect(socket(&folder)).await.unwrap();
        client.write_all(b"stop\n").await.unwrap();
        let ended = tokio::time::timeout(TIMEOUT / 2, running).await;
        std::fs::remove_dir_all(&folder).unwrap();
        ended.expect("it stops at once").unwrap().unwrap();
    }
}
