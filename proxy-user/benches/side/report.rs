//! Tables of what was measured.

use crate::contestant::{Contestant, Environment, Setting};
use crate::costs;
use crate::estimate::Estimate;
use crate::load::Kind;
use crate::results::{Heat, Results};
use crate::wanted::{ALL, Wanted};
use std::fmt::Write as _;

/// All as Markdown.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::new();
    for heat in &results.heats {
        let _ = writeln!(
            text,
            "## {}\n\n{}\n{}\n{}",
            title(heat.setting),
            rates(heat),
            costs::table(heat),
            verdicts(heat)
        );
    }
    text
}

/// The setting in words.
pub(crate) fn title(setting: Setting) -> String {
    let nodes = match setting.nodes {
        1 => "one node, 4 hooks a round trip",
        _ => "two nodes, 8 hooks a round trip",
    };
    let environment = match setting.environment {
        Environment::Bare => "bare nodes",
        Environment::Tracking => "nodes with conntrack on",
    };
    format!(
        "{} Services, {environment}, {nodes}",
        grouped(setting.services)
    )
}

fn grouped(number: u32) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", number / 1000, number % 1000),
    }
}

/// Rates, and in brackets what part of direct they are.
fn rates(heat: &Heat) -> String {
    let mut text = format!("| {:24}", "");
    for kind in Kind::ALL {
        let _ = write!(text, "| {:26}", format!("{}, {}", kind.name(), kind.unit()));
    }
    let _ = writeln!(text, "| programming |");
    let _ = writeln!(text, "|---|---|---|---|---|---|---|");
    for (contestant, outcome) in &heat.outcomes {
        let _ = write!(text, "| {:24}", contestant.name());
        if let Some(problem) = &outcome.problem {
            let _ = writeln!(text, "| {problem} | | | | | |");
            continue;
        }
        for kind in Kind::ALL {
            let _ = write!(text, "| {:26}", cell(heat, *contestant, kind));
        }
        let seconds = outcome.programming;
        let seconds = seconds.map_or(String::new(), |it| format!("{it:.3} s"));
        let _ = writeln!(text, "| {seconds:11} |");
    }
    text
}

fn cell(heat: &Heat, contestant: Contestant, kind: Kind) -> String {
    let Some(rate) = heat.rate(contestant, kind) else {
        return String::new();
    };
    let share = heat.ratio([contestant, Contestant::Direct], kind);
    let share = share.map_or(String::new(), |it| format!(" ({:.3})", it.median));
    format!("{:.0}{share}", rate.median)
}

/// What was wanted, and what came of it.
fn verdicts(heat: &Heat) -> String {
    let setting = heat.setting;
    let mut text = String::from(
        "| figure | against | wanted | found (95 %) | | by CPU time (95 %) | |\n|---|---|---|---|---|---|---|\n",
    );
    let wanted = ALL.iter();
    let wanted = wanted.filter(|it| it.applies(setting.environment, setting.services));
    for (wanted, kind) in wanted.flat_map(|it| it.kinds.iter().map(move |kind| (it, *kind))) {
        text.push_str(&verdict(heat, wanted, kind).unwrap_or_default());
    }
    text
}

fn verdict(heat: &Heat, wanted: &Wanted, kind: Kind) -> Option<String> {
    let pair = [wanted.of, wanted.against];
    let found = judged(heat.ratio(pair, kind)?, wanted.at_least);
    let by_cpu = heat.cpu_ratio(pair, kind);
    let by_cpu = by_cpu.map_or("| |".to_owned(), |it| judged(it, wanted.at_least));
    Some(format!(
        "| {}: {} | {} | >= {:.2} {found} {}\n",
        wanted.of.name(),
        kind.name(),
        wanted.against.name(),
        wanted.at_least,
        by_cpu.trim_start_matches("| "),
    ))
}

/// What was found, and what that means.
fn judged(found: Estimate, at_least: f64) -> String {
    let word = match () {
        () if found.low >= at_least => "ok",
        () if found.high < at_least => "missed",
        () if found.median >= at_least => "ok, unresolved",
        () => "missed, unresolved",
    };
    let Estimate { median, low, high } = found;
    format!("| {median:.3} ({low:.3}-{high:.3}) | {word} |")
}
