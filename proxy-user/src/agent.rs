//! The agent: its tasks, and their end.

mod listeners;
mod lock;
mod logging;
mod marked;
mod objects;
mod preparations;
mod reload;
mod report;
mod sockets;
mod watched;

pub use marked::of_pods;
pub use preparations::Preparations;
pub use report::{AgentReport, ask, ask_name, is_running, stop};
pub use sockets::SocketReport;

use crate::config::Run;
use crate::datapath::attach::Attacher;
use crate::datapath::closing::{Closer, ClosingReport, Wake};
use crate::datapath::devices::{self, DeviceEvent};
use crate::datapath::features::Features;
use crate::datapath::kernel::Kernel;
use crate::datapath::object::{self, Options, Sizes};
use crate::datapath::pins::Pins;
use crate::datapath::sweep::{self, Sweep};
use crate::flows::FlowReport;
use crate::health::HealthCheckServers;
use crate::metrics::{DeviceMetrics, Part, ProbeMetrics, ProblemMetrics, Sources};
use crate::sync::{Settings, Sync, Vitals};
use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use listeners::Listeners;
use objects::{Following, follow};
use reload::{Reload, Reloaded};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// Runs until it is told to stop (SIGTERM, SIGINT). Programs and maps stay in force.
///
/// # Errors
/// Whatever keeps it from starting, or a task that could not go on.
pub fn run(flags: &Run) -> Result<()> {
    let loaded = flags.clone().load()?;
    let set_filter = logging::start(loaded.run.log_filter())?;
    let problems = ProblemMetrics::default();
    let (reload, reloaded) = Reload::new(flags, &loaded, set_filter, problems.clone())?;
    let run = &loaded.run;
    let _lock = lock::take(&run.place.run_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting tokio")?;
    runtime.block_on(serve(run, reload, reloaded, problems))
}

/// What runs, once it has been set up.
struct Parts {
    sync: Sync<Kernel>,
    attacher: Attacher,
    /// Set when programs are on all devices.
    owns_devices: Arc<AtomicBool>,
    /// Of the thread that ends flows.
    flows: watch::Receiver<FlowReport>,
    /// Of the thread that closes sockets.
    closer: Option<Wake>,
    closed: watch::Receiver<ClosingReport>,
    preparations: Preparations,
    /// Whether the maps are those of an earlier run.
    adopted: bool,
    log: Option<Log>,
}

/// Hands on what the programs log.
type Log = Pin<Box<dyn Future<Output = ()>>>;

/// Loads the programs, reads the maps, and starts ending flows.
fn set_up(run: &Run) -> Result<Parts> {
    let pins = Pins::new(&run.place.bpffs);
    let features = Features::probe_used()?;
    features.require()?;
    let method = run.attach.method(&features);
    let settings = settings(run)?;
    let preparations = Preparations::make(&settings.snat_ports, &run.netfilter(), &run.place)?;
    let measures = sweep::Settings {
        timeouts: run.timeouts(),
        snat_ports: settings.snat_ports.clone(),
        owns_devices: Arc::default(),
    };
    let owns_devices = Arc::clone(&measures.owns_devices);
    let mut loaded = object::load(&Options {
        pins: pins.clone(),
        sizes: Sizes {
            max_flows: run.max_flows,
            max_backends: run.max_backends,
            max_affinities: run.max_affinities,
        },
        log_decisions: run.log_decisions,
        has_fast_lane: !run.fast_lane.is_off(),
        has_random_in_packet: false,
        features: features.clone(),
    })?;
    let log = run
        .log_decisions
        .then(|| object::log_decisions(&mut loaded.programs))
        .transpose()?;
    let sync = Sync::new(settings, loaded.kernel).context("reading the maps")?;
    let has_rows = sync.has_found_rows();
    let (sweep, flows) = Sweep::open(&pins, &mut loaded.programs, measures)?;
    sweep.start()?;
    let (closer, closed) = start_closer(&pins, &features, &mut loaded.programs);
    Ok(Parts {
        sync,
        attacher: Attacher::new(loaded.programs, pins, method)?,
        owns_devices,
        flows,
        closer,
        closed,
        preparations,
        // Maps without a row may be those of an agent that did not get as far as filling them.
        adopted: loaded.adopted && has_rows,
        log: log.map(|log| Box::pin(log) as Log),
    })
}

/// Without it sockets stay open: no reason not to start.
fn start_closer(
    pins: &Pins,
    features: &Features,
    programs: &mut Ebpf,
) -> (Option<Wake>, watch::Receiver<ClosingReport>) {
    let opened = Closer::open(pins, features, programs);
    match opened.and_then(|(closer, closed)| Ok((closer.start()?, closed))) {
        Ok((wake, closed)) => (Some(wake), closed),
        Err(error) => {
            let problem = format!("{error:#}");
            warn!("sockets whose backend is gone stay open: {problem}");
            let report = ClosingReport {
                problem: Some(problem),
                ..ClosingReport::default()
            };
            (None, watch::channel(report).1)
        }
    }
}

async fn serve(
    run: &Run,
    reload: Reload,
    reloaded: Reloaded,
    problems: ProblemMetrics,
) -> Result<()> {
    let started = SystemTime::now();
    // Settings that are wrong must not get as far as the maps.
    let name = run.node_name()?;
    let Following {
        origin,
        events,
        watches,
        notices,
        until,
    } = follow(&run.source, &name).await?;
    let parts = set_up(run)?;
    // Before the first write: what the node answers itself must not be taken from it for a moment.
    let (addresses_in, addresses) = watch::channel(devices::local_addresses().await?);
    let (requests_in, requests) = mpsc::channel(4);
    let (device_events_in, device_events) = mpsc::channel(64);
    let (device_reports_in, device_reports) = mpsc::channel(4);
    let ready = (!parts.adopted).then(|| parts.sync.vitals());
    let (sockets_in, sockets) = watch::channel(SocketReport::new(run.socket_lb));
    let (exempt_in, exempt) = watch::channel(Vec::new());
    let pins = Pins::new(&run.place.bpffs);
    let opted_out = parts.sync.opted_out();
    let pods = sockets::follow_pods(&pins, opted_out, sockets.clone(), &exempt_in);
    let closing = parts.closer.as_ref().map(|_| parts.closed.clone());
    let device_metrics = DeviceMetrics::default();
    let (marked, following) = marked::follow(run.fast_lane.clone(), reloaded.followed.clone());
    let sources = Sources {
        sync: parts.sync.metrics(),
        probes: ProbeMetrics::default(),
        problems: problems.clone(),
        devices: device_metrics.clone(),
        pins: pins.clone(),
        flows: parts.flows.clone(),
        snat_ports: parts.preparations.snat_ports.clone(),
        closed: parts.closed.clone(),
        exempt: exempt.clone(),
        watches: watches.clone(),
        started,
    };
    let doctor = listeners::doctor(run, parts.sync.vitals());
    let checks = parts.sync.health_checks();
    let health_checks = HealthCheckServers::new(checks, doctor.clone(), &name, notices);
    let listeners = Listeners::new(run, doctor, health_checks, sources);
    let server = report::Server {
        socket: report::socket(&run.place.run_dir),
        sync: requests_in,
        devices: device_reports_in,
        preparations: parts.preparations,
        flows: parts.flows.clone(),
        sockets,
        exempt,
        closed: parts.closed,
        watches,
        settings: reloaded.warnings,
        unbound: listeners.unbound(),
    };
    let take_sockets = |attacher: &mut Attacher| {
        let taken = sockets::take(run, &pins, attacher.programs());
        problems.set(Part::Sockets, taken.problem.is_some());
        sockets_in.send_replace(taken);
    };
    let wake = move || {
        // Full: it has been told already.
        let _ = parts.closer.as_ref().map(|closer| closer.try_send(()));
    };
    info!("node {name}: following {origin}");
    tokio::select! {
        _ = parts.sync.run(events, requests, addresses, reloaded.followed, wake) => bail!("nothing tells of objects any more"),
        outcome = until => outcome,
        outcome = pods => outcome.context("following pods that have opted out"),
        outcome = devices::follow(device_events_in, addresses_in, marked) => outcome.context("following devices"),
        outcome = attach(parts.attacher, take_sockets, device_events, device_reports, ready, &parts.owns_devices, &device_metrics) => outcome,
        // A task of its own: probes are answered while a turn of the sync loop takes long.
        outcome = tokio::spawn(listeners.serve()) => outcome.context("serving health and metrics")?,
        outcome = server.run() => {
            outcome.context("serving requests")?;
            info!("asked to stop; programs and maps stay in force");
            Ok(())
        }
        () = ended(Some(parts.flows)) => bail!("the sweep thread has ended"),
        () = ended(closing) => bail!("the thread that closes sockets has ended"),
        () = following => bail!("nobody follows which devices are those of pods any more"),
        () = reload.run() => bail!("nobody follows the configuration file any more"),
        () = forever(parts.log) => bail!("the programs' log has ended"),
        name = told_to_stop() => {
            info!("{}: stopping; programs and maps stay in force", name?);
            Ok(())
        }
    }
}

fn settings(run: &Run) -> Result<Settings> {
    Ok(Settings {
        node_name: run.node_name()?,
        node_addresses: run.node_addresses(),
        followed: run.followed()?,
        snat_ports: run.snat_ports()?,
        sockets: sockets::settings(run),
        first_generation: first_generation(),
    })
}

/// Flows remember a generation: after a restart another backend must not look the same.
fn first_generation() -> u32 {
    let random = RandomState::new().build_hasher().finish() as u32;
    random.max(1)
}

/// Attaches the programs to cgroups, and to devices as they come. New maps are filled first: programs of an earlier
/// run must not be replaced by ones that know no services yet.
async fn attach(
    mut attacher: Attacher,
    take_sockets: impl FnOnce(&mut Attacher),
    mut events: mpsc::Receiver<DeviceEvent>,
    mut reports: mpsc::Receiver<report::DeviceRequest>,
    ready: Option<watch::Receiver<Vitals>>,
    owns_devices: &AtomicBool,
    metrics: &DeviceMetrics,
) -> Result<()> {
    if let Some(mut vitals) = ready {
        let mut synced = pin!(vitals.wait_for(|vitals| vitals.synced));
        loop {
            tokio::select! {
                outcome = &mut synced => break drop(outcome.context("the sync loop has ended")?),
                Some(reply) = reports.recv() => {
                    let _ = reply.send(attacher.report());
                }
            }
        }
    }
    take_sockets(&mut attacher);
    loop {
        metrics.set(&attacher.report());
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    let is_whole = matches!(event, DeviceEvent::All(_));
                    attacher.apply(event).await;
                    owns_devices.fetch_or(is_whole, Ordering::Relaxed);
                }
                None => bail!("no more news of devices"),
            },
            () = attacher.settled() => attacher.take_settled().await,
            Some(reply) = reports.recv() => {
                // The asker may have given up.
                let _ = reply.send(attacher.report());
            }
        }
    }
}

/// Waits for the end of whoever reports; for ever if there is nobody.
async fn ended<T>(reports: Option<watch::Receiver<T>>) {
    match reports {
        Some(mut reports) => while reports.changed().await.is_ok() {},
        None => std::future::pending().await,
    }
}

async fn forever(log: Option<Log>) {
    match log {
        Some(log) => log.await,
        None => std::future::pending().await,
    }
}

/// Waits for SIGTERM or SIGINT, and says which.
///
/// # Errors
/// Signals can't be waited for.
pub async fn told_to_stop() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}
