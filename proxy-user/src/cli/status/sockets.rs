//! What `ferrule status` says of sockets.

use crate::agent::SocketReport;
use crate::cli::table::table;
use crate::config::SocketLb;
use crate::datapath::closing::ClosingReport;
use crate::datapath::exempt::{ExemptReport, Mark};
use std::fmt::Write as _;

pub(super) fn render(
    text: &mut String,
    sockets: &SocketReport,
    closed: &ClosingReport,
) -> std::fmt::Result {
    render_sockets(text, sockets)?;
    render_closed(text, closed)?;
    render_exempt(text, &sockets.exempt)
}

fn render_sockets(text: &mut String, sockets: &SocketReport) -> std::fmt::Result {
    let whose = match sockets.mode {
        SocketLb::Full => "of all processes",
        SocketLb::HostOnly => "in the node's own network namespace",
        SocketLb::Off => "none (--socket-lb off)",
    };
    write!(text, "\nSockets that get a backend: {whose}")?;
    match (&sockets.cgroup, &sockets.problem) {
        (Some(cgroup), _) => writeln!(text, ", below {}", cgroup.display()),
        (None, Some(problem)) => writeln!(text, "; devices do it instead: {problem}"),
        (None, None) => writeln!(text),
    }
}

fn render_exempt(text: &mut String, exempt: &[ExemptReport]) -> std::fmt::Result {
    if exempt.is_empty() {
        return Ok(());
    }
    let row = |it: &ExemptReport| {
        let by = match it.by {
            Some(Mark::Cgroup) => "cgroup",
            Some(Mark::Netns) => "network namespace",
            None => "not found on this node yet",
        };
        [it.name.clone(), by.to_owned()]
    };
    let rows: Vec<[String; 2]> = exempt.iter().map(row).collect();
    write!(text, "\n{}", table(["left alone", "told by"], &rows))
}

fn render_closed(text: &mut String, closed: &ClosingReport) -> std::fmt::Result {
    let ClosingReport { closed, problem } = closed;
    writeln!(
        text,
        "Sockets closed because their backend had gone: {closed}"
    )?;
    match problem {
        Some(problem) => writeln!(text, "Warning: some stay open: {problem}"),
        None => Ok(()),
    }
}
