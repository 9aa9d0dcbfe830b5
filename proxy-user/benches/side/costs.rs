//! Tables of what it takes: CPU time, time until the first answer, memory.

use crate::clock::Spent;
use crate::contestant::Contestant;
use crate::estimate::Estimate;
use crate::load::Kind;
use crate::results::{Heat, Outcome};
use std::fmt::Write as _;

/// Kinds, what they are called by what one is, and packets of one.
const CPU: [(Kind, &str, f64); 4] = [
    (Kind::Datagram, "a packet", 2.0),
    (Kind::Request, "a request", 1.0),
    (Kind::Short, "a connection", 1.0),
    (Kind::FirstDatagram, "a first datagram", 1.0),
];
const FIRST: [(Kind, &str); 2] = [
    (Kind::Short, "TCP connect"),
    (Kind::FirstDatagram, "first datagram"),
];

/// CPU time in microseconds, and in brackets how many times that of direct; microseconds until the answer to a first
/// packet; what the kernel says of maps.
pub(crate) fn table(heat: &Heat) -> String {
    let mut text = format!("| {:24}", "");
    for (_, name, _) in CPU {
        let _ = write!(text, "| {:18}", format!("CPU us, {name}"));
    }
    text.push_str("| idle, others ");
    for (_, name) in FIRST {
        let _ = write!(text, "| {name}, us: p50, p99 ");
    }
    let _ = writeln!(text, "| maps, MB |\n|---|---|---|---|---|---|---|---|---|");
    for (contestant, outcome) in &heat.outcomes {
        if outcome.problem.is_none() {
            text.push_str(&row(heat, *contestant, outcome));
        }
    }
    text
}

fn row(heat: &Heat, contestant: Contestant, outcome: &Outcome) -> String {
    let mut text = format!("| {:24}", contestant.name());
    for (kind, _, packets) in CPU {
        let cell = cpu(heat, contestant, kind, packets).unwrap_or_default();
        let _ = write!(text, "| {cell:18}");
    }
    let _ = write!(text, "| {:13}", shares(outcome.spent));
    for (kind, _) in FIRST {
        let _ = write!(text, "| {:22}", first(outcome, kind).unwrap_or_default());
    }
    let maps = outcome.maps.map(|bytes| bytes as f64 / 1e6);
    let maps = maps.map_or(String::new(), |it| format!("{it:.1}"));
    let _ = writeln!(text, "| {maps:9}|");
    text
}

fn cpu(heat: &Heat, contestant: Contestant, kind: Kind, packets: f64) -> Option<String> {
    let of = |contestant| heat.outcomes.get(&contestant)?.cpu.get(&kind);
    let (own, direct) = (of(contestant)?, of(Contestant::Direct)?);
    let times = own.iter().zip(direct).map(|(own, direct)| own / direct);
    let (one, times) = (Estimate::of(own.clone())?, Estimate::of(times.collect())?);
    Some(format!("{:.2} ({:.3})", one.median / packets, times.median))
}

/// Of the time of all turns, in which the CPU did nothing, and did something else.
fn shares(spent: Spent) -> String {
    let share = |seconds: f64| 100.0 * (seconds / spent.whole).clamp(0.0, 1.0);
    let others = spent.whole - spent.used - spent.idle;
    match spent.whole > 0.0 {
        true => format!("{:.1} %, {:.1} %", share(spent.idle), share(others)),
        false => String::new(),
    }
}

fn first(outcome: &Outcome, kind: Kind) -> Option<String> {
    let rounds = outcome.latencies.get(&kind)?;
    let middle = |index: usize| Estimate::of(rounds.iter().map(|it| it[index]).collect());
    Some(format!(
        "{:.1}, {:.1}",
        middle(0)?.median,
        middle(1)?.median
    ))
}
