//! What `ferrule status` says of the watches on the API server.

use crate::cli::table::table;
use crate::source::kube::WatchReport;
use std::fmt::Write as _;

pub(super) fn render(text: &mut String, watches: &[WatchReport]) -> std::fmt::Result {
    if watches.is_empty() {
        return Ok(());
    }
    let header = ["watched", "objects", "heard of", "state"];
    let rows: Vec<_> = watches.iter().map(row).collect();
    write!(text, "\n{}", table(header, &rows))
}

fn row(watch: &WatchReport) -> [String; 4] {
    let state = match &watch.problem {
        Some(problem) => problem.clone(),
        None if watch.is_synced => "in sync".to_owned(),
        None => "not listed yet".to_owned(),
    };
    [
        watch.kind.clone(),
        watch.objects.to_string(),
        format!("{:.0} s ago", watch.age_seconds),
        state,
    ]
}
