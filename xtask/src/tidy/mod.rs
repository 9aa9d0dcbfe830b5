//! `cargo xtask tidy`: the rules of the repository, as code.

mod dependencies;
mod paths;
mod rules;
mod source;

use crate::workspace;
use anyhow::{Result, bail};
use clap::Args;
use source::Source;
use std::fmt;
use std::path::Path;

/// Flags of `cargo xtask tidy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask tidy

Prints file:line: rule for each place that breaks a rule.")]
pub struct Options {}

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    /// File, and line where there is one.
    place: String,
    rule: String,
}

impl Violation {
    fn file(path: &str, rule: impl Into<String>) -> Self {
        let (place, rule) = (path.to_owned(), rule.into());
        Self { place, rule }
    }

    /// Lines are counted from zero here and from one in the message.
    fn line(path: &str, line: usize, rule: impl Into<String>) -> Self {
        Self::file(&format!("{path}:{}", line + 1), rule)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.rule)
    }
}

/// Checks every rule.
///
/// # Errors
/// When a rule is broken, after each place was printed, or when a file can't be read.
pub fn run(_options: &Options) -> Result<()> {
    let root = workspace::root()?;
    let sources = source::read_all(&root)?;
    let violations = violations(&root, &sources)?;
    for violation in &violations {
        println!("{violation}");
    }
    if !violations.is_empty() {
        bail!("{} places break a rule", violations.len());
    }
    println!("tidy: {} source files keep the rules", sources.len());
    Ok(())
}

fn violations(root: &Path, sources: &[Source]) -> Result<Vec<Violation>> {
    let mut found = Vec::new();
    for source in sources {
        found.extend(dependencies::check(source));
        found.extend(rules::length(source));
        found.extend(rules::name(source));
        found.extend(rules::marks(source));
        found.extend(rules::unsafe_code(source));
    }
    found.extend(rules::maps(root, sources)?);
    found.extend(rules::top_level(root)?);
    Ok(found)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_is_tidy() {
        if let Err(error) = super::run(&super::Options {}) {
            panic!("{error}, see above");
        }
    }
}
