//! `ferrule run --check-config`: what a configuration file means here, and nothing else is touched.

use super::say;
use super::status::Output;
use super::table::table;
use crate::config::{FieldReport, File, Run};
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
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
    /// On which of the node's addresses NodePorts are served.
    nodeports: Option<String>,
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
        nodeports: None,
    };
    match File::read(path, flags.localhost_nodeports) {
        Ok(file) => {
            whole.warnings.clone_from(&file.warnings);
            whole.fields = file.report();
            match flags.clone().with_file(&file).followed() {
                Ok(followed) => whole.nodeports = Some(followed.node_ports.to_string()),
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
    if let Some(nodeports) = &whole.nodeports {
        writeln!(text, "NodePorts on: {nodeports}")?;
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
