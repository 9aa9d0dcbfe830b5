//! Rust files as the rules see them: the lines as they are, and their code without comments and
//! without the content of strings.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// One Rust file.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Relative to the top of the repository, with forward slashes.
    pub(super) path: String,
    pub(super) lines: Vec<String>,
    /// The same lines, comments and strings blanked out.
    pub(super) code: Vec<String>,
    /// Whether the line is in a module that exists in tests only.
    pub(super) is_test: Vec<bool>,
}

impl Source {
    pub(super) fn parse(path: &str, text: &str) -> Self {
        let code: Vec<String> = blank(text).lines().map(str::to_owned).collect();
        Self {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            is_test: test_lines(path, &code),
            code,
        }
    }

    /// Lines outside test modules: number from zero, and code.
    pub(super) fn product_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().map(String::as_str).enumerate();
        lines.filter(|(line, _)| !self.is_test[*line])
    }
}

/// All Rust files of the repository, in the order of their paths.
pub(super) fn read_all(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for member in ["proxy-common", "proxy-ebpf", "proxy-user", "xtask"] {
        read_folder(root, &root.join(member), &mut sources)?;
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(sources)
}

fn read_folder(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            read_folder(root, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            sources.push(Source::parse(&name, &text));
        }
    }
    Ok(())
}

/// Marks the lines of `#[cfg(test)] mod x { .. }`; in a file of tests, all lines.
fn test_lines(path: &str, code: &[String]) -> Vec<bool> {
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return vec![true; code.len()];
    }
    let mut marks = vec![false; code.len()];
    let mut line = 0;
    while line < code.len() {
        let end = if code[line].trim() == "#[cfg(test)]" {
            test_module_end(code, line)
        } else {
            None
        };
        match end {
            Some(end) => {
                marks[line..=end].fill(true);
                line = end + 1;
            }
            None => line += 1,
        }
    }
    marks
}

/// The last line of the module whose attribute stands on `start`; formatted code closes it at the
/// same indentation.
fn test_module_end(code: &[String], start: usize) -> Option<usize> {
    let indentation = code[start].len() - code[start].trim_start().len();
    let opening = (start + 1..code.len()).find(|line| !code[*line].trim().starts_with("#["))?;
    let words = code[opening].trim();
    if !words.starts_with("mod ") && !words.starts_with("pub") {
        return None;
    }
    if words.ends_with(';') || words.ends_with("{}") {
        return Some(opening);
    }
    let closing = format!("{}}}", " ".repeat(indentation));
    (opening..code.len()).find(|line| code[*line].trim_end() == closing)
}

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    /// Nesting depth.
    BlockComment(u32),
    Text,
    /// Number of hashes that close it.
    RawText(usize),
}

/// Replaces comments and the content of strings by spaces; lines stay lines.
fn blank(text: &str) -> String {
    let mut state = State::Code;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, next) = step(state, rest, first);
        for character in rest[..length].chars() {
            let keep = state == State::Code && next == State::Code;
            out.push(if character == '\n' || keep {
                character
            } else {
                ' '
            });
        }
        state = next;
        rest = &rest[length..];
    }
    out
}

/// How many bytes belong together, and the state after them.
fn step(state: State, rest: &str, first: char) -> (usize, State) {
    match state {
        State::Code => step_code(rest, first),
        State::LineComment if first == '\n' => (1, State::Code),
        State::BlockComment(depth) if rest.starts_with("/*") => (2, State::BlockComment(depth + 1)),
        State::BlockComment(1) if rest.starts_with("*/") => (2, State::Code),
        State::BlockComment(depth) if rest.starts_with("*/") => (2, State::BlockComment(depth - 1)),
        State::Text if first == '\\' => {
            let escaped = rest[1..].chars().next().map_or(0, char::len_utf8);
            (1 + escaped, State::Text)
        }
        State::Text if first == '"' => (1, State::Code),
        State::RawText(hashes) if closes_raw(rest, hashes) => (1 + hashes, State::Code),
        other => (first.len_utf8(), other),
    }
}

fn step_code(rest: &str, first: char) -> (usize, State) {
    if rest.starts_with("//") {
        return (2, State::LineComment);
    }
    if rest.starts_with("/*") {
        return (2, State::BlockComment(1));
    }
    if first == '"' {
        return (1, State::Text);
    }
    if first == 'r'
        && let Some(hashes) = opens_raw(rest)
    {
        return (2 + hashes, State::RawText(hashes));
    }
    if first.is_alphanumeric() || first == '_' {
        let word = rest.find(|next: char| !next.is_alphanumeric() && next != '_');
        return (word.unwrap_or(rest.len()), State::Code);
    }
    (
        character_literal(rest).unwrap_or(first.len_utf8()),
        State::Code,
    )
}

fn opens_raw(rest: &str) -> Option<usize> {
    let after = rest[1..].trim_start_matches('#');
    after.starts_with('"').then(|| rest.len() - 1 - after.len())
}

fn closes_raw(rest: &str, hashes: usize) -> bool {
    rest.strip_prefix('"').is_some_and(|after| {
        after
            .bytes()
            .take(hashes)
            .filter(|byte| *byte == b'#')
            .count()
            == hashes
    })
}

/// The length of a literal like `'"'`; a lifetime is none.
fn character_literal(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    let escaped = if first == '\\' {
        1 + inner[1..].chars().next()?.len_utf8()
    } else {
        first.len_utf8()
    };
    inner[escaped..].starts_with('\'').then_some(escaped + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "let a = \"unsafe // no\"; // unsafe\nlet b = r#\"x\"unsafe\"#; let c = '\"'; /* unsafe */ d";
        let code = blank(text);
        assert!(!code.contains("unsafe"), "{code}");
        assert!(code.contains("let b ="), "{code}");
        assert!(code.ends_with(" d"), "{code}");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn lifetimes_do_not_open_characters() {
        assert_eq!(blank("fn a<'a>(b: &'a str) {}"), "fn a<'a>(b: &'a str) {}");
    }

    #[test]
    fn test_modules_are_marked_and_what_follows_is_not() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let source = Source::parse("x/src/lib.rs", text);
        assert_eq!(source.is_test, [false, true, true, true, true, false]);
        let product: Vec<&str> = source.product_code().map(|(_, code)| code).collect();
        assert_eq!(product, ["fn a() {}", "fn c() {}"]);
    }
}
