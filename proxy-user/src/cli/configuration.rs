//! `ferrule run --check-config`: what a configuration file means here, and nothing else is touched.

use super::say;
use super::status::Output;
use super::table::table;
use crate::config::{FieldReport, File, Run};
use crate::frontend::DetectLocal;
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Flags for looking at a configuration file.
#[derive(Clone, Debug, Args)]
pub struct CheckConfig {
    /// Only print what this configuration file means here, and fail if something in it is wrong.
    #[arg(long, value_name = "FILE")]
    pub check_config: Option<PathBuf>,
    /// How to print it.
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        requires = "check_config"
    )]
    pub output: Output,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Whole {
    /// The file as it was named.
    file: PathBuf,
    /// What is wrong; the file is not taken then.
    problems: Vec<String>,
    /// What is no mistake for kube-proxy either.
    warnings: Vec<String>,
    /// The fields that are set.
    fields: Vec<FieldReport>,
    /// What comes of it, if nothing is wrong.
    #[serde(flatten)]
    outcome: Option<Outcome>,
}

/// What the fields come to, together with flags and defaults.
#[derive(Serialize)]
struct Outcome {
    /// On which of the node's addresses NodePorts are served.
    nodeports: String,
    /// How pods are known, and by what.
    detect_local: DetectedBy,
    /// Whether all flows to ClusterIPs are masked.
    masquerade_all: bool,
    /// Whether Services are served on their externalIPs.
    external_ips: bool,
    /// What is asked of netfilter's conntrack on this machine, where it is there.
    conntrack: BTreeMap<&'static str, u32>,
}

/// A mode, and what belongs to it.
#[derive(Serialize)]
struct DetectedBy {
    mode: String,
    /// Ranges, where they are found, or devices.
    by: Vec<String>,
}

impl Outcome {
    fn of(run: &Run) -> Result<Self> {
        let followed = run.followed()?;
        let by = match &followed.detect_local {
            DetectLocal::NodeCidr => vec!["podCIDRs of the Node object".to_owned()],
            others => others.names(&followed.cluster_cidrs),
        };
        let mode = followed.detect_local.to_string();
        Ok(Self {
            nodeports: followed.node_ports.to_string(),
            detect_local: DetectedBy { mode, by },
            masquerade_all: followed.masquerade_all,
            external_ips: followed.external_ips,
            conntrack: run.netfilter().settings().collect(),
        })
    }

    fn render(&self, text: &mut String) -> std::fmt::Result {
        let DetectedBy { mode, by } = &self.detect_local;
        let yes = |it| if it { "yes" } else { "no" };
        writeln!(text, "NodePorts on: {}", self.nodeports)?;
        let by = match by.is_empty() {
            true => "none".to_owned(),
            false => by.join(", "),
        };
        writeln!(text, "Pods known by: {mode}, {by}")?;
        let all = yes(self.masquerade_all);
        writeln!(text, "All flows to ClusterIPs masked: {all}")?;
        writeln!(text, "ExternalIPs served: {}", yes(self.external_ips))?;
        for (name, value) in &self.conntrack {
            writeln!(text, "Where conntrack is there: {name} = {value}")?;
        }
        Ok(())
    }
}

/// Prints what the file means for an agent with these flags.
///
/// # Errors
/// Something in it is wrong.
pub fn run(check: &CheckConfig, file: &Path, flags: &Run) -> Result<()> {
    let whole = look(file, flags);
    let text = match check.output {
        Output::Json => serde_json::to_string_pretty(&whole)? + "\n",
        Output::Table => render(&whole)?,
    };
    say(&text);
    if !whole.problems.is_empty() {
        bail!("{} is not a configuration to run with", file.display());
    }
    Ok(())
}

fn look(path: &Path, flags: &Run) -> Whole {
    let mut whole = Whole {
        file: path.to_owned(),
        problems: Vec::new(),
        warnings: Vec::new(),
        fields: Vec::new(),
        outcome: None,
    };
    match File::read(path, flags.localhost_nodeports) {
        Ok(file) => {
            whole.warnings.clone_from(&file.warnings);
            whole.fields = file.report();
            match Outcome::of(&flags.clone().with_file(&file)) {
                Ok(outcome) => whole.outcome = Some(outcome),
                Err(error) => whole.problems.push(error.to_string()),
            }
        }
        Err(wrong) => whole.problems = wrong.problems,
    }
    whole
}

fn render(whole: &Whole) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for problem in &whole.problems {
        writeln!(text, "Wrong: {problem}")?;
    }
    for warning in &whole.warnings {
        writeln!(text, "Warning: {warning}")?;
    }
    if let Some(outcome) = &whole.outcome {
        outcome.render(&mut text)?;
    }
    let rows = whole.fields.iter().map(|field| {
        let value = match field.value.as_str() {
            Some(text) => text.to_owned(),
            None => field.value.to_string(),
        };
        let why = field.why.replace('`', "");
        [
            field.field.to_owned(),
            value,
            field.treatment.to_owned(),
            why,
        ]
    });
    let rows: Vec<[String; 4]> = rows.collect();
    if !rows.is_empty() {
        writeln!(text)?;
        text += &table(["field", "value", "here", "why"], &rows);
    }
    Ok(text)
}
