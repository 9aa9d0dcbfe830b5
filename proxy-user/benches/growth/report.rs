//! Tables and figures of what was measured.

use super::axis::{Axis, Point};
use super::contest::{Outcome, ratio, samples};
use super::packets::names;
use super::stats::Samples;
use anyhow::Result;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Costs along one axis.
#[derive(Debug, Serialize)]
pub(crate) struct Course {
    pub(crate) axis: Axis,
    pub(crate) lines: Vec<Line>,
}

/// Costs of one kind of packet.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) costs: Vec<Cost>,
}

/// Nanoseconds at one number.
#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) at: u32,
    pub(crate) median: f64,
    pub(crate) quarter: f64,
    pub(crate) three_quarters: f64,
    pub(crate) least: f64,
    /// Median of the rounds' ratios to the first number.
    pub(crate) to_first: f64,
}

/// All that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) courses: Vec<Course>,
}

impl Course {
    /// Of what was measured at these numbers.
    pub(crate) fn of(axis: Axis, points: &[Point], outcomes: &[Vec<Outcome>]) -> Result<Self> {
        let line = |name: &&str| {
            let all = outcomes.iter().map(|it| samples(it, name));
            let all = all.collect::<Result<Vec<_>>>()?;
            let costs = points.iter().zip(&all);
            let costs = costs.map(|(point, samples)| cost(point.at, samples, all[0]));
            Ok(Line {
                name: (*name).into(),
                costs: costs.collect(),
            })
        };
        Ok(Self {
            axis,
            lines: names(axis).iter().map(line).collect::<Result<_>>()?,
        })
    }
}

fn cost(at: u32, samples: &Samples, first: &Samples) -> Cost {
    Cost {
        at,
        median: samples.quantile(0.5),
        quarter: samples.quantile(0.25),
        three_quarters: samples.quantile(0.75),
        least: samples.quantile(0.0),
        to_first: ratio(samples, first),
    }
}

impl Results {
    /// Writes table and figures.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let tables: Vec<String> = self.courses.iter().map(markdown).collect();
        fs::write(folder.join("table.md"), tables.join("\n"))?;
        fs::write(folder.join("growth.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

/// Nanoseconds, and in brackets how many times those at the first number.
pub(crate) fn markdown(course: &Course) -> String {
    let heading = format!("ns a packet, by {}", course.axis.name());
    let mut text = format!("| {heading:32}");
    let costs = course.lines.first().map_or(&[][..], |line| &line.costs);
    for cost in costs {
        let _ = write!(text, "| {:13}", grouped(cost.at));
    }
    let _ = writeln!(text, "|\n|---{}|", "|---".repeat(costs.len()));
    for line in &course.lines {
        let _ = write!(text, "| {:32}", line.name);
        for cost in &line.costs {
            let cell = format!("{:.0} ({:.2})", cost.median, cost.to_first);
            let _ = write!(text, "| {cell:13}");
        }
        text.push_str("|\n");
    }
    text
}

fn grouped(number: u32) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{},{:03}", number / 1_000, number % 1_000),
        _ => {
            let (millions, rest) = (number / 1_000_000, number % 1_000_000);
            format!("{millions},{:03},{:03}", rest / 1_000, rest % 1_000)
        }
    }
}
