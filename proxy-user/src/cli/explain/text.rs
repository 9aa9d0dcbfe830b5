//! An answer for people.

use crate::explain::{Answer, Fate};
use std::fmt::{Error, Write as _};
use std::net::SocketAddr;

/// So many backends are named, the others counted.
const NAMED: usize = 16;

/// The answer in lines.
pub(super) fn render(answer: &Answer) -> Result<String, Error> {
    let mut text = String::new();
    let fate = match answer.verdict {
        Fate::Forward => "forward",
        Fate::Pass => "pass",
        Fate::Drop => "drop",
        Fate::Reject => "reject",
    };
    writeln!(text, "{fate} ({})", answer.reason)?;
    if let Some(dialled) = &answer.frontend {
        let at = SocketAddr::new(dialled.address, dialled.port);
        let service = answer.service.as_deref().unwrap_or("not known");
        writeln!(text, "service:   {service}")?;
        writeln!(
            text,
            "frontend:  {} {at}/{}",
            dialled.kind, dialled.protocol
        )?;
    }
    if answer.verdict == Fate::Forward {
        writeln!(text, "backends:  {}", backends(&answer.backends))?;
        writeln!(text, "affinity:  {}", yes(answer.affinity))?;
        writeln!(
            text,
            "kube-proxy would masquerade:  {}",
            yes(answer.masquerade)
        )?;
        writeln!(
            text,
            "client's address is kept:     {}",
            yes(answer.client_address_kept)
        )?;
    }
    text.push_str("because:\n");
    for (number, step) in (1..).zip(&answer.steps) {
        writeln!(text, "  {number}. {step}")?;
    }
    Ok(text)
}

fn backends(all: &[String]) -> String {
    let named = all.iter().take(NAMED).map(String::as_str);
    let text = named.collect::<Vec<_>>().join(" ");
    match all.len().saturating_sub(NAMED) {
        0 => text,
        others => format!("{text} and {others} others"),
    }
}

const fn yes(it: bool) -> &'static str {
    if it { "yes" } else { "no" }
}
