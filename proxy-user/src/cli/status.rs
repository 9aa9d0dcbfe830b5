//! `ferrule status`: the pinned maps, and the agent's view if one is running.

mod sockets;
mod watches;

use super::say;
use super::table::table;
use crate::agent::{AgentReport, ask};
use crate::config::Place;
use crate::datapath::attach::DeviceReport;
use crate::datapath::pins::Pins;
use crate::datapath::readings::{Readings, read};
use crate::flows::{Busiest, FlowReport, TableReport};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Flags of `ferrule status`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  ferrule status
  ferrule status -o json | jq .readings.drops
  ferrule status --synced

The last one is for readiness probes and scripts: it says whether all has been written and attached, and
fails if not.")]
pub struct Status {
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    /// Only say whether the agent is in sync; fail if it is not, or if none runs.
    #[arg(long, conflicts_with = "output")]
    pub synced: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub place: Place,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For machines.
    Json,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Whole {
    /// Whether an agent runs, has written all there is and attached its programs wherever they belong.
    synced: bool,
    /// The agent's view; null when none is running.
    agent: Option<AgentReport>,
    /// The maps; null when there are none.
    readings: Option<Readings>,
}

/// Prints the state of this node.
///
/// # Errors
/// There is neither an agent nor a datapath, or one of them can't be read.
pub fn run(status: &Status) -> Result<()> {
    let pins = Pins::new(&status.place.bpffs);
    let agent = ask(&status.place.run_dir)?;
    if status.synced {
        return require_synced(agent.as_ref());
    }
    let readings = read(&pins)?;
    if agent.is_none() && readings.is_none() {
        bail!(
            "no agent in {} and no maps in {}",
            status.place.run_dir.display(),
            pins.root().display()
        );
    }
    let synced = agent.as_ref().is_some_and(AgentReport::is_synced);
    let whole = Whole {
        synced,
        agent,
        readings,
    };
    let text = match status.output {
        Output::Json => serde_json::to_string_pretty(&whole)? + "\n",
        Output::Table => render(&whole)?,
    };
    say(&text);
    Ok(())
}

fn require_synced(agent: Option<&AgentReport>) -> Result<()> {
    match agent {
        Some(agent) if agent.is_synced() => {
            say("synced\n");
            Ok(())
        }
        Some(_) => bail!("at work: not everything is written or attached"),
        None => bail!("no agent is running"),
    }
}

fn render(whole: &Whole) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    match &whole.agent {
        Some(agent) => render_agent(&mut text, agent)?,
        None => writeln!(
            text,
            "Agent: not running; the datapath goes on with what it has."
        )?,
    }
    if let Some(readings) = &whole.readings {
        render_readings(&mut text, readings)?;
    }
    Ok(text)
}

fn render_agent(text: &mut String, agent: &AgentReport) -> std::fmt::Result {
    let AgentReport {
        version,
        pid,
        snat_ports: (min, max),
        reserved_ports,
        warnings,
        sync,
        devices,
        sockets,
        closed_sockets,
        flows,
        watches,
    } = agent;
    let state = if agent.is_synced() {
        "synced"
    } else {
        "at work: not everything is written or attached"
    };
    writeln!(text, "Agent: {state} (version {version}, process {pid})")?;
    let addresses: Vec<String> = sync
        .node
        .node_port_addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    let known = if sync.node.known {
        ""
    } else {
        " (no Node object)"
    };
    writeln!(
        text,
        "Node: {}{known}, NodePorts on {}",
        sync.node.name,
        or_none(&addresses.join(", "))
    )?;
    let known_by = sync.node.pods_known_by.join(", ");
    let (mode, known_by) = (&sync.node.detect_local, or_none(&known_by));
    writeln!(text, "Pods known by: {mode}, {known_by}")?;
    writeln!(text, "Masked flows: source ports {min}-{max}")?;
    let reserved = reserved_ports.as_deref().unwrap_or("not by Ferrule");
    writeln!(text, "Reserved ports: {reserved}")?;
    writeln!(text, "Services: {}", sync.services)?;
    for warning in warnings {
        writeln!(text, "Warning: {warning}")?;
    }
    watches::render(text, watches)?;
    render_counts(text, sync)?;
    if let Some(error) = &sync.last_error {
        writeln!(
            text,
            "\nLast error: {error} ({} services waiting for a retry)",
            sync.pending
        )?;
    }
    sockets::render(text, sockets, closed_sockets)?;
    render_devices(text, devices)?;
    render_objects(text, sync)?;
    render_flows(text, flows)
}

fn render_counts(text: &mut String, sync: &crate::sync::Report) -> std::fmt::Result {
    let row = |name: &str, count: crate::sync::PerFamily| {
        [name.to_owned(), count.v4.to_string(), count.v6.to_string()]
    };
    let rows = [
        row("service ports", sync.service_ports),
        row("frontends", sync.frontends),
        row("backends", sync.backends),
    ];
    write!(text, "\n{}", table(["", "IPv4", "IPv6"], &rows))
}

fn render_devices(text: &mut String, devices: &[DeviceReport]) -> std::fmt::Result {
    let rows: Vec<[String; 3]> = devices.iter().flat_map(device_rows).collect();
    let header = ["device", "attached", "masks by, or why not"];
    write!(text, "\n{}", table(header, &rows))
}

/// Addresses below each other: those of IPv6 are long.
fn device_rows(device: &DeviceReport) -> Vec<[String; 3]> {
    let attached = device.attached.map_or("-".to_owned(), |method| {
        let lane = if device.is_fast { ", fast lane" } else { "" };
        format!(
            "{} ingress, egress{lane}",
            format!("{method:?}").to_lowercase()
        )
    });
    let mut details: Vec<String> = match &device.why_not {
        Some(why_not) => vec![why_not.clone()],
        None => device.sources.iter().map(ToString::to_string).collect(),
    };
    let first = if details.is_empty() {
        String::new()
    } else {
        details.remove(0)
    };
    let more = details.into_iter();
    let more = more.map(|detail| [String::new(), String::new(), detail]);
    [[device.name.clone(), attached, first]]
        .into_iter()
        .chain(more)
        .collect()
}

fn render_objects(text: &mut String, sync: &crate::sync::Report) -> std::fmt::Result {
    if !sync.skipped.is_empty() {
        writeln!(text, "\nSkipped:")?;
    }
    for skipped in &sync.skipped {
        writeln!(
            text,
            "  {}: {}: {}",
            skipped.object, skipped.field, skipped.why
        )?;
    }
    for problem in sync.problems.values().flatten() {
        writeln!(text, "Problem: {problem}")?;
    }
    let rows: Vec<[String; 3]> = sync
        .maps
        .iter()
        .map(|map| {
            [
                map.map.clone(),
                map.used.to_string(),
                map.capacity.to_string(),
            ]
        })
        .collect();
    write!(text, "\n{}", table(["map", "used", "of"], &rows))
}

fn render_flows(text: &mut String, flows: &FlowReport) -> std::fmt::Result {
    let rows: Vec<[String; 8]> = flows.tables.iter().map(cells).collect();
    let header = [
        "flows",
        "TCP half-open",
        "established",
        "half-closed",
        "closing",
        "UDP unanswered",
        "answered",
        "masked",
    ];
    if !rows.is_empty() {
        write!(text, "\n{}", table(header, &rows))?;
    }
    let rows: Vec<[String; 3]> = flows.busiest.iter().map(port_cells).collect();
    if !rows.is_empty() {
        let header = ["most ports in use towards", "ports", "of"];
        write!(text, "\n{}", table(header, &rows))?;
    }
    Ok(())
}

fn cells(report: &TableReport) -> [String; 8] {
    let counts = &report.counts;
    [
        report.map.clone(),
        counts.half_open.to_string(),
        counts.established.to_string(),
        counts.half_closed.to_string(),
        counts.closing.to_string(),
        counts.unanswered.to_string(),
        counts.answered.to_string(),
        counts.masked.to_string(),
    ]
}

fn port_cells(busiest: &Busiest) -> [String; 3] {
    let backend = SocketAddr::new(busiest.address, busiest.port);
    let warning = if busiest.is_scarce() { ", scarce" } else { "" };
    [
        format!("{} {backend}", busiest.protocol),
        busiest.used.to_string(),
        format!("{}{warning}", busiest.of),
    ]
}

fn render_readings(text: &mut String, readings: &Readings) -> std::fmt::Result {
    let flows: Vec<[String; 3]> = readings
        .flows
        .iter()
        .map(|flows| {
            [
                flows.map.clone(),
                flows.used.to_string(),
                flows.capacity.to_string(),
            ]
        })
        .collect();
    write!(text, "\n{}", table(["flow table", "rows", "of"], &flows))?;
    let counted = |counters: &std::collections::BTreeMap<String, u64>| -> Vec<[String; 2]> {
        counters
            .iter()
            .map(|(name, count)| [name.clone(), count.to_string()])
            .collect()
    };
    write!(
        text,
        "\n{}",
        table(["passed", "packets"], &counted(&readings.passed))
    )?;
    write!(
        text,
        "\n{}",
        table(["dropped", "packets"], &counted(&readings.drops))
    )?;
    write!(
        text,
        "\n{}",
        table(["sockets", "calls"], &counted(&readings.sockets))
    )
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
