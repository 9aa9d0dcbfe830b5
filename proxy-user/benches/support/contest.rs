//! Contestants measured in turns, round after round, so that what disturbs one disturbs all.

use super::lab::{Lab, Trial};
use super::stats::Samples;
use anyhow::{Context as _, Result};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds, each of which measures everything once.
    pub(crate) rounds: u32,
    /// Runs of a program for one of the calls that make a sample.
    pub(crate) repeat: u32,
}

/// Nanoseconds above those of a baseline, round by round.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// What was measured.
    pub(crate) name: String,
    /// One sample for each round.
    pub(crate) net: Samples,
}

/// Measures the trials in turns; the first is what is subtracted from the others.
pub(crate) fn round(
    lab: &mut Lab,
    trials: &[(&str, Trial)],
    effort: Effort,
) -> Result<Vec<Outcome>> {
    let mut gross = Vec::new();
    for (name, trial) in trials {
        let (time, _) = lab
            .measure(trial, effort.repeat)
            .with_context(|| format!("{name}, {} services", lab.services))?;
        gross.push((*name, time));
    }
    let baseline = gross.first().map_or(0.0, |(_, time)| *time);
    let outcomes = gross.into_iter().skip(1).map(|(name, time)| Outcome {
        name: name.into(),
        net: Samples(vec![time - baseline]),
    });
    Ok(outcomes.collect())
}

/// Adds a round's outcomes to those of earlier ones.
pub(crate) fn merge(all: &mut Vec<Outcome>, round: Vec<Outcome>) {
    for outcome in round {
        match all.iter_mut().find(|known| known.name == outcome.name) {
            Some(known) => known.net.0.extend(outcome.net.0),
            None => all.push(outcome),
        }
    }
}

/// `a` by `b` in the middle one of all rounds.
pub(crate) fn ratio(a: &Samples, b: &Samples) -> f64 {
    let ratios = a.0.iter().zip(&b.0).map(|(a, b)| a / b);
    Samples(ratios.collect()).quantile(0.5)
}

/// The samples of this name.
pub(crate) fn samples<'a>(outcomes: &'a [Outcome], name: &str) -> Result<&'a Samples> {
    let found = outcomes.iter().find(|outcome| outcome.name == name);
    Ok(&found
        .with_context(|| format!("nothing measured as {name}"))?
        .net)
}

/// Median, and in brackets the middle half and the least.
pub(crate) fn cell(samples: &Samples) -> String {
    let median = samples.quantile(0.5);
    let decimals = usize::from(median < 1000.0);
    format!(
        "{median:5.decimals$} ({:.0}-{:.0}, {:.0})",
        samples.quantile(0.25),
        samples.quantile(0.75),
        samples.quantile(0.0),
    )
}
