//! Queries from standard input, answers to standard output, line by line.

use super::Source;
use crate::explain::{Answer, Query};
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::io::{BufRead as _, ErrorKind, Write as _, stdin, stdout};

/// What a line is answered by.
#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Answer(Answer),
    Error { error: String },
}

/// Answers until there are no more queries, or nobody reads.
///
/// # Errors
/// A query could not be answered, or standard input not be read.
pub(super) fn run(source: &mut Source) -> Result<()> {
    let (mut queries, mut wrong) = (0_u64, 0_u64);
    let mut input = stdin().lock();
    let mut line = Vec::new();
    while input
        .read_until(b'\n', &mut line)
        .context("reading standard input")?
        > 0
    {
        let answer = answer(source, line.trim_ascii());
        queries += 1;
        wrong += u64::from(matches!(answer, Line::Error { .. }));
        if !tell(&answer)? {
            break;
        }
        line.clear();
    }
    if wrong > 0 {
        bail!("{wrong} of {queries} queries could not be answered");
    }
    Ok(())
}

fn answer(source: &mut Source, line: &[u8]) -> Line {
    let query = Query::from_json(line).map_err(anyhow::Error::from);
    match query.and_then(|query| source.explain(&query)) {
        Ok(answer) => Line::Answer(answer),
        Err(error) => Line::Error {
            error: format!("{error:#}"),
        },
    }
}

/// Whether somebody still reads. Each line is written at once: who asks may wait for it.
fn tell(line: &Line) -> Result<bool> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut output = stdout().lock();
    match output.write_all(&text).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing answers"),
    }
}
