//! `ferrule check`: what this kernel has of what Ferrule can use, and what it makes of the programs.

use super::say;
use super::status::Output;
use super::table::table;
use crate::agent::is_running;
use crate::datapath::cgroup::mounted_root;
use crate::datapath::cost::{Cost, costs};
use crate::datapath::features::{Feature, Features, Without, add_hint};
use crate::datapath::firewall::{Forwarding, Obstacle, Refusal, forwarding};
use crate::datapath::others::warnings;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Flags of `ferrule check`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  ferrule check
  ferrule check -o json | jq '.features[] | select(.present | not)'

Every feature is tried, not read from a version number, and the programs are loaded and dropped
again. The command fails on a kernel that lacks something without which Ferrule can't run. Firewalls
of this network namespace that drop forwarded packets are named, and so are kube-proxy, what it has left
behind, and other service proxies; they are no failure.")]
pub struct Check {
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    /// Mount of bpffs, where other service proxies pin their maps, too.
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// Folder of the agent's socket, by which a running agent is told from kube-proxy.
    #[arg(long, value_name = "PATH", default_value = "/run/ferrule")]
    pub run_dir: PathBuf,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Whole {
    /// The kernel, as it calls itself.
    kernel: String,
    /// Whether Ferrule runs here: nothing is missing, and the programs load.
    supported: bool,
    /// One for each feature.
    features: Vec<Row>,
    /// One for each program; none on a kernel that is not supported.
    programs: Vec<Cost>,
    /// Where the programs of sockets belong; a warning, no failure.
    sockets: Sockets,
    /// Who else serves Services here, or has left rules behind; warnings, no failure.
    others: Vec<String>,
    /// What firewalls do to packets that this node forwards; a warning, no failure.
    forwarding: Forwarding,
}

/// The root of cgroup v2.
#[derive(Serialize)]
struct Sockets {
    /// Where it is mounted; null: nowhere.
    cgroup: Option<PathBuf>,
    /// Whether version 1 is mounted, too.
    is_hybrid: bool,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    /// Linux version or option of its configuration.
    needed_from: &'static str,
    /// Null: it could not be asked.
    present: Option<bool>,
    /// What is used here.
    used: &'static str,
}

/// Prints what the kernel has, and fails on one that lacks what is needed or refuses a program.
///
/// # Errors
/// What is missing, or why the kernel could not be asked.
pub fn run(check: &Check) -> Result<()> {
    let features = Features::probe()?;
    let supported = features.require();
    let costs = supported.is_ok().then(|| costs(&features)).transpose();
    let (programs, loaded) = match costs {
        Ok(programs) => (programs.unwrap_or_default(), Ok(())),
        Err(error) => (Vec::new(), Err(add_hint(error))),
    };
    let whole = Whole {
        kernel: features.release().to_owned(),
        supported: supported.is_ok() && loaded.is_ok(),
        features: Feature::ALL.map(|feature| row(feature, &features)).into(),
        programs,
        sockets: sockets()?,
        others: warnings(&check.bpffs, is_running(&check.run_dir)),
        forwarding: forwarding(),
    };
    let text = match check.output {
        Output::Json => serde_json::to_string_pretty(&whole)? + "\n",
        Output::Table => render(&whole),
    };
    say(&text);
    supported.and(loaded)
}

fn sockets() -> Result<Sockets> {
    let root = mounted_root()?;
    Ok(Sockets {
        is_hybrid: root.as_ref().is_some_and(|root| root.is_hybrid),
        cgroup: root.map(|root| root.path),
    })
}

fn row(feature: Feature, features: &Features) -> Row {
    let present = features.knows(feature);
    let used = match feature.without() {
        Without::Unused => "not used by this version",
        _ if present == Some(true) => "it",
        Without::Refuse => "nothing can stand in for it",
        Without::Instead(other) => other,
    };
    Row {
        name: feature.name(),
        needed_from: feature.since(),
        present,
        used,
    }
}

fn render(whole: &Whole) -> String {
    let rows: Vec<[String; 4]> = whole.features.iter().map(cells).collect();
    let header = ["feature", "needed from", "present", "used"];
    let verdict = if whole.supported {
        "Ferrule runs here"
    } else {
        "Ferrule does not run here"
    };
    let kernel = &whole.kernel;
    let features = table(header, &rows);
    let programs = render_programs(&whole.programs);
    let sockets = render_sockets(&whole.sockets);
    let forwarding = render_forwarding(&whole.forwarding);
    let others = whole.others.iter();
    let others: String = others
        .map(|warning| format!("\nWarning: {warning}\n"))
        .collect();
    format!("Linux {kernel}: {verdict}.\n\n{features}{programs}{sockets}{others}{forwarding}")
}

fn render_sockets(sockets: &Sockets) -> String {
    let beside = match sockets.is_hybrid {
        true => ", beside cgroup v1",
        false => "",
    };
    match &sockets.cgroup {
        Some(cgroup) => format!(
            "\nSockets: the root of cgroup v2 is {}{beside}\n",
            cgroup.display()
        ),
        None => {
            "\nSockets: the root of cgroup v2 is not mounted here; ferrule run mounts it, with \
                 CAP_SYS_ADMIN\n"
                .to_owned()
        }
    }
}

fn render_forwarding(forwarding: &Forwarding) -> String {
    let mut text = String::new();
    if !forwarding.obstacles.is_empty() {
        text += "\nForwarded packets are dropped unless a rule accepts them:\n";
        text.extend(forwarding.obstacles.iter().map(obstacle));
        text += ADVICE;
    }
    let unread = forwarding.unread.iter();
    text.extend(unread.map(|what| format!("\nNot known of firewalls: {what}\n")));
    text
}

/// What an operator who allows Services' addresses would not guess.
const ADVICE: &str = "Accept there what goes to the pods' addresses and what comes from them, in the \
chains named:\npackets to Services pass them as client -> pod and pod -> client. For example\n  \
ip daddr PODS accept\n  ip saddr PODS accept\n";

fn obstacle(obstacle: &Obstacle) -> String {
    let Obstacle {
        family,
        table,
        chain,
        by,
    } = obstacle;
    let by = match by {
        Refusal::Policy => "its policy",
        Refusal::LastRule => "its last rule",
    };
    format!("  table {family} {table}, chain {chain}: {by}\n")
}

/// The program's own frame and the largest of its functions.
fn stack(frames: &[u32]) -> String {
    let (own, functions) = frames.split_first().unwrap_or((&0, &[]));
    let largest = functions.iter().max().unwrap_or(&0);
    format!("{own} + {largest}")
}

fn render_programs(programs: &[Cost]) -> String {
    if programs.is_empty() {
        return String::new();
    }
    let rows: Vec<[String; 4]> = programs
        .iter()
        .map(|cost| {
            [
                cost.program.clone(),
                cost.verified.to_string(),
                stack(&cost.stack),
                format!("{} / {}", cost.translated, cost.jited),
            ]
        })
        .collect();
    let header = [
        "program",
        "instructions verified",
        "stack",
        "bytes / of machine code",
    ];
    format!("\n{}", table(header, &rows))
}

fn cells(row: &Row) -> [String; 4] {
    let present = match row.present {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    };
    [row.name, row.needed_from, present, row.used].map(str::to_owned)
}
