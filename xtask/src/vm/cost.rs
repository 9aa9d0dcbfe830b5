//! What the verifier makes of the programs, compared with what docs/performance.md says of it.

use crate::workspace;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;

/// Before the first and after the last line of the table.
const MARKS: [&str; 2] = ["<!-- verifier: begin -->", "<!-- verifier: end -->"];
const DOCUMENT: &str = "docs/performance.md";
/// Growth that is taken without a word, in percent.
const TOLERANCE: u64 = 10;

/// The price of one program on one kernel; docs/operations.md says what the numbers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    program: String,
    verified: u64,
    stack: String,
    translated: u64,
    jited: u64,
}

impl Cost {
    /// As `ferrule check -o json` gives the programs.
    pub(super) fn read(json: &str) -> Result<Vec<Self>> {
        let programs: Vec<Value> = serde_json::from_str(json).context("reading the costs")?;
        programs.iter().map(Self::of).collect()
    }

    fn of(program: &Value) -> Result<Self> {
        let number = |name: &str| {
            let number = program[name].as_u64();
            number.with_context(|| format!("the report has no {name}"))
        };
        let frames = program["stack"].as_array().context("no stack")?;
        let mut frames = frames.iter().filter_map(Value::as_u64);
        let own = frames.next().unwrap_or(0);
        Ok(Self {
            program: program["program"].as_str().context("no name")?.to_owned(),
            verified: number("verified")?,
            stack: format!("{own} + {}", frames.max().unwrap_or(0)),
            translated: number("translated")?,
            jited: number("jited")?,
        })
    }

    fn row(&self, series: &str) -> String {
        let Self {
            program,
            verified,
            stack,
            translated,
            jited,
        } = self;
        format!("| {series} | {program} | {verified} | {stack} | {translated} | {jited} |")
    }
}

/// The rows of the document: series, program, and the row as it is.
struct Stored {
    text: String,
    rows: Vec<(String, String, String)>,
}

/// What is to be done about a kernel whose costs are not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Say so.
    Tell,
    /// Fail.
    Refuse,
    /// Store them, and whatever else has changed.
    Accept,
}

/// Compares, prints and, if that is wanted, stores; returns how many programs cost too much.
pub(super) fn check(measured: &[(String, Vec<Cost>)], missing: Missing) -> Result<u64> {
    let path = workspace::root()?.join(DOCUMENT);
    let mut stored = Stored::read(fs::read_to_string(&path)?)?;
    let mut objections = 0;
    println!("\nverifier, compared with {DOCUMENT}");
    for (series, costs) in measured {
        for cost in costs {
            let (words, is_fine) = stored.compare(series, cost, missing);
            println!(
                "  {:>5} {:16} {:>6} {words}",
                series, cost.program, cost.verified
            );
            objections += u64::from(!is_fine);
            stored.put(series, cost);
        }
    }
    if missing == Missing::Accept {
        fs::write(&path, stored.render())?;
        println!("  stored in {DOCUMENT}");
    }
    Ok(objections)
}

impl Stored {
    fn read(text: String) -> Result<Self> {
        let [begin, end] = MARKS.map(|mark| text.find(mark));
        let (begin, end) = begin
            .zip(end)
            .with_context(|| format!("{DOCUMENT} has no marks"))?;
        ensure!(
            begin < end,
            "the marks in {DOCUMENT} are in the wrong order"
        );
        let lines = text[begin..end]
            .lines()
            .filter(|line| line.starts_with("| "));
        let rows = lines.skip(1).map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let mut cell = || cells.next().unwrap_or_default().to_owned();
            (cell(), cell(), line.to_owned())
        });
        let rows = rows.collect();
        Ok(Self { text, rows })
    }

    /// What to say of a program, and whether its cost is fine.
    fn compare(&self, series: &str, cost: &Cost, missing: Missing) -> (String, bool) {
        let Some(before) = self.verified(series, &cost.program) else {
            let accept = format!("cargo xtask vm {series} --complexity --accept");
            let words = match missing {
                Missing::Accept => "new".to_owned(),
                Missing::Tell => format!("not stored: {accept}"),
                Missing::Refuse => format!("REFUSED: not stored: {accept}"),
            };
            return (words, missing != Missing::Refuse);
        };
        let has_grown = cost.verified * 100 > before * (100 + TOLERANCE);
        let is_fine = !has_grown || missing == Missing::Accept;
        let refused = if is_fine { "" } else { "REFUSED: " };
        (format!("{refused}stored {before}"), is_fine)
    }

    fn verified(&self, series: &str, program: &str) -> Option<u64> {
        let rows = &mut self.rows.iter();
        let (_, _, row) = rows.find(|(of, name, _)| of == series && name == program)?;
        row.split('|').nth(3)?.trim().parse().ok()
    }

    fn put(&mut self, series: &str, cost: &Cost) {
        let row = (series.to_owned(), cost.program.clone(), cost.row(series));
        let rows = &mut self.rows;
        match rows
            .iter_mut()
            .find(|(of, name, _)| *of == row.0 && *name == row.1)
        {
            Some(old) => *old = row,
            None => rows.push(row),
        }
    }

    fn render(&self) -> String {
        let header = "| kernel | program | instructions verified | stack: own, largest function | \
                      bytes | bytes of machine code |\n|---|---|---|---|---|---|\n";
        let rows = self.rows.iter().map(|(_, _, row)| format!("{row}\n"));
        let before = self.text.split(MARKS[0]).next().unwrap_or_default();
        let after = self.text.split(MARKS[1]).nth(1).unwrap_or_default();
        let table = format!("{header}{}", rows.collect::<String>());
        format!("{before}{}\n{table}{}{after}", MARKS[0], MARKS[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "before\n<!-- verifier: begin -->\n| kernel | program | verified |\n|---|---|---|\n\
                        | 5.10 | ingress | 1000 | 96 + 48 | 8 | 4 |\n<!-- verifier: end -->\nafter\n";

    fn cost(verified: u64) -> Cost {
        Cost {
            program: "ingress".into(),
            verified,
            stack: "96 + 48".into(),
            translated: 8,
            jited: 4,
        }
    }

    #[test]
    fn growth_over_a_tenth_is_refused_and_can_be_accepted() {
        let stored = Stored::read(TEXT.into()).unwrap();
        assert!(stored.compare("5.10", &cost(1100), Missing::Tell).1);
        assert!(!stored.compare("5.10", &cost(1101), Missing::Tell).1);
        assert!(stored.compare("5.10", &cost(1101), Missing::Accept).1);
    }

    #[test]
    fn a_new_kernel_is_refused_where_that_is_wanted() {
        let stored = Stored::read(TEXT.into()).unwrap();
        assert!(stored.compare("7.3", &cost(1), Missing::Tell).1);
        assert!(!stored.compare("7.3", &cost(1), Missing::Refuse).1);
        assert!(stored.compare("7.3", &cost(1), Missing::Accept).1);
    }

    #[test]
    fn what_is_stored_is_found_again_and_the_rest_of_the_document_stays() {
        let mut stored = Stored::read(TEXT.into()).unwrap();
        stored.put("5.10", &cost(900));
        stored.put("7.2", &cost(800));
        let text = stored.render();
        assert!(
            text.starts_with("before\n") && text.ends_with("\nafter\n"),
            "{text}"
        );
        let again = Stored::read(text).unwrap();
        assert_eq!(again.verified("5.10", "ingress"), Some(900));
        assert_eq!(again.verified("7.2", "ingress"), Some(800));
    }
}
