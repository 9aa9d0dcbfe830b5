//! What was measured, kept in a file so that a run that was broken off goes on.

use crate::clock::Spent;
use crate::contestant::{Contestant, Setting};
use crate::estimate::Estimate;
use crate::load::Kind;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What a contestant has done in a setting.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// By kind, one a round.
    pub(crate) rates: BTreeMap<Kind, Vec<f64>>,
    /// Microseconds of CPU time of one, or of a megabyte, one a round.
    #[serde(default)]
    pub(crate) cpu: BTreeMap<Kind, Vec<f64>>,
    /// Seconds of all that was measured.
    #[serde(default)]
    pub(crate) spent: Spent,
    /// Microseconds until the first answer, one pair a round: the median, and 99 of 100.
    #[serde(default)]
    pub(crate) latencies: BTreeMap<Kind, Vec<[f64; 2]>>,
    /// Bytes of all maps of a node.
    #[serde(default)]
    pub(crate) maps: Option<u64>,
    /// Seconds until the Services were there.
    pub(crate) programming: Option<f64>,
    /// Why it did not take part.
    pub(crate) problem: Option<String>,
}

/// All that has been measured in one setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Heat {
    pub(crate) setting: Setting,
    pub(crate) outcomes: BTreeMap<Contestant, Outcome>,
}

/// All settings so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) heats: Vec<Heat>,
}

impl Heat {
    /// How much faster one is than another, round by round.
    pub(crate) fn ratio(&self, [of, against]: [Contestant; 2], kind: Kind) -> Option<Estimate> {
        let rates = |contestant| self.outcomes.get(&contestant)?.rates.get(&kind);
        let pairs = rates(of)?.iter().zip(rates(against)?);
        Estimate::of(pairs.map(|(of, against)| of / against).collect())
    }

    /// How much less CPU time one takes than another, round by round: what the rates would be without others on the
    /// CPU.
    pub(crate) fn cpu_ratio(&self, [of, against]: [Contestant; 2], kind: Kind) -> Option<Estimate> {
        let times = |contestant| self.outcomes.get(&contestant)?.cpu.get(&kind);
        let pairs = times(of)?.iter().zip(times(against)?);
        Estimate::of(pairs.map(|(of, against)| against / of).collect())
    }

    pub(crate) fn rate(&self, contestant: Contestant, kind: Kind) -> Option<Estimate> {
        Estimate::of(self.outcomes.get(&contestant)?.rates.get(&kind)?.clone())
    }
}

impl Results {
    const FILE: &'static str = "results.json";

    /// Of an earlier run in this folder, if there was one.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        match fs::read(folder.join(Self::FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).context("reading earlier results"),
            Err(_) => Ok(Self::default()),
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let draft = folder.join("results.draft");
        fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(draft, folder.join(Self::FILE))?)
    }

    pub(crate) fn has(&self, setting: Setting) -> bool {
        self.heats.iter().any(|heat| heat.setting == setting)
    }
}
