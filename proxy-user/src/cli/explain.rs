//! `ferrule explain`: what would become of a packet on this node, and why.

mod batch;
mod live;
mod node;
mod text;

use super::say;
use crate::config::Place;
use crate::explain::{Answer, Offline, Query};
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use live::Live;
use node::NodeFlags;
use std::path::PathBuf;

/// Flags of `ferrule explain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  ferrule explain --from 10.244.1.9 --to 10.96.0.10:53 --proto udp
  ferrule explain --from 203.0.113.7:40000 --to 192.0.2.1:30080 --iif eth0 -o json
  ferrule explain --from fd00:10:244::9 --to '[fd00:10:96::a]:80'
  ferrule explain --manifests ./objects --node-name node-1 --node-address 192.0.2.1 \\
      --cluster-cidr 10.244.0.0/16 --from 10.244.1.9 --to 10.96.0.10:80
  echo '{\"from\": \"10.244.1.9\", \"to\": \"10.96.0.10:53\", \"proto\": \"udp\"}' | ferrule explain --batch

It asks about the first packet of a connection, runs the datapath's own decision over this node's maps (or over
maps made of manifests, which takes neither root nor a kernel with BPF), and changes nothing. The source may be any
address; one of this node's own stands for its processes. With --batch each line of standard input is a query and each
line of standard output its answer, in the same order; a query that makes no sense is answered by {\"error\": \"...\"},
and makes the command fail in the end.")]
pub struct Explain {
    /// The packet's source.
    #[arg(long, value_name = "ADDR[:PORT]", required_unless_present = "batch")]
    pub from: Option<String>,
    /// Its destination.
    #[arg(long, value_name = "ADDR:PORT", required_unless_present = "batch")]
    pub to: Option<String>,
    /// Its protocol: tcp, udp or sctp. [default: tcp]
    #[arg(long, value_name = "PROTOCOL")]
    pub proto: Option<String>,
    /// The device that it comes in by; it matters where pods are known by their devices.
    #[arg(long, value_name = "DEV")]
    pub iif: Option<String>,
    /// How to print the answer.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
    /// Answer queries from standard input, one a line, as JSON.
    #[arg(long, conflicts_with_all = ["from", "to", "proto", "iif"])]
    pub batch: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub place: Place,
    /// Ask about the objects in this folder instead of this node's maps.
    #[arg(long, value_name = "DIR", help_heading = MANIFESTS)]
    pub manifests: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own fields are documented")]
    pub node: NodeFlags,
}

/// Heading of the flags that go with it.
const MANIFESTS: &str = "Manifests instead of maps";

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Who answers.
enum Source {
    Live(Box<Live>),
    Offline(Box<Offline>),
}

impl Source {
    fn explain(&mut self, query: &Query) -> Result<Answer> {
        match self {
            Self::Live(live) => live.explain(query),
            Self::Offline(offline) => Ok(offline.explain(query)),
        }
    }
}

/// Answers.
///
/// # Errors
/// There are no maps or no manifests; a query makes no sense.
pub fn run(explain: &Explain) -> Result<()> {
    // What is wrong with the question is said before what is wrong with the node.
    let query = if explain.batch {
        None
    } else {
        Some(explain.query()?)
    };
    let mut source = explain.source()?;
    let Some(query) = query else {
        return batch::run(&mut source);
    };
    let answer = source.explain(&query)?;
    say(&match explain.output {
        Output::Json => serde_json::to_string(&answer)? + "\n",
        Output::Text => text::render(&answer).context("printing")?,
    });
    Ok(())
}

impl Explain {
    fn query(&self) -> Result<Query> {
        let text = |flag: &Option<String>| flag.clone().unwrap_or_default();
        let (from, to) = (text(&self.from), text(&self.to));
        let query = Query::new(&from, &to, self.proto.as_deref(), self.iif.as_deref());
        query.map_err(|error| anyhow::anyhow!("--{error}"))
    }

    fn source(&self) -> Result<Source> {
        Ok(match &self.manifests {
            Some(folder) => Source::Offline(Box::new(self.node.read(folder)?)),
            None => Source::Live(Box::new(Live::open(&self.place)?)),
        })
    }
}
