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
/// More instructions than that are too many on any kernel.
const MOST: u64 = 90_000;

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

/// What is to be done about costs that are not stored, or are higher than what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Fail.
    Refuse,
    /// Store them.
    Accept,
    /// Store them, and forget the kernels that were not measured.
    AcceptAll,
}

/// Compares, prints and, if that is wanted, stores; returns how many programs cost too much.
pub(super) fn check(measured: &[(String, Vec<Cost>)], change: Change) -> Result<u64> {
    let path = workspace::root()?.join(DOCUMENT);
    let mut stored = Stored::read(fs::read_to_string(&path)?)?;
    let mut objections = 0;
    println!("\nverifier, compared with {DOCUMENT}");
    for (series, costs) in measured {
        for cost in costs {
            let objection = stored.objection(series, cost)?;
            let words = match &objection {
                None => "ok".to_owned(),
                Some(objection) if change == Change::Refuse => format!("REFUSED: {objection}"),
                Some(objection) => format!("accepted: {objection}"),
            };
            let Cost {
                program, verified, ..
            } = cost;
            println!("  {series:>5} {program:16} {verified:>6} {words}");
            objections += u64::from(objection.is_some());
        }
    }
    if change == Change::Refuse {
        return Ok(objections);
    }
    for (series, costs) in measured {
        ensure!(
            !costs.is_empty(),
            "nothing is stored: no figures of {series}"
        );
        let giant = costs.iter().find(|cost| cost.verified > MOST);
        ensure!(
            giant.is_none(),
            "nothing is stored: {series} has a program over {MOST}"
        );
    }
    if change == Change::AcceptAll {
        stored.rows.clear();
    }
    for (series, costs) in measured {
        costs.iter().for_each(|cost| stored.put(series, cost));
    }
    fs::write(&path, stored.render())?;
    println!("  stored in {DOCUMENT}");
    Ok(0)
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

    /// What speaks against the cost of a program.
    fn objection(&self, series: &str, cost: &Cost) -> Result<Option<String>> {
        let accept = format!("cargo xtask vm {series} --complexity --accept");
        if cost.verified > MOST {
            return Ok(Some(format!("over {MOST}")));
        }
        let Some(before) = self.verified(series, &cost.program)? else {
            return Ok(Some(format!("nothing is stored; {accept}")));
        };
        let has_grown = cost.verified * 100 > before * (100 + TOLERANCE);
        Ok(has_grown.then(|| format!("{before} is stored; {accept}")))
    }

    fn verified(&self, series: &str, program: &str) -> Result<Option<u64>> {
        let mut rows = self.rows.iter();
        let Some((_, _, row)) = rows.find(|(of, name, _)| of == series && name == program) else {
            return Ok(None);
        };
        let cell = row.split('|').nth(3).unwrap_or_default().trim();
        let number = cell.parse();
        number
            .map(Some)
            .with_context(|| format!("{DOCUMENT}: '{cell}' in '{row}'"))
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
    fn growth_over_a_tenth_is_refused() {
        let stored = Stored::read(TEXT.into()).unwrap();
        assert_eq!(stored.objection("5.10", &cost(1100)).unwrap(), None);
        let refused = stored.objection("5.10", &cost(1101)).unwrap();
        assert!(refused.unwrap().contains("1000 is stored"));
    }

    #[test]
    fn a_kernel_of_which_nothing_is_stored_and_a_giant_are_refused() {
        let stored = Stored::read(TEXT.into()).unwrap();
        let refused = stored.objection("7.3", &cost(1)).unwrap();
        assert!(
            refused
                .unwrap()
                .contains("cargo xtask vm 7.3 --complexity --accept")
        );
        let giant = stored.objection("5.10", &cost(MOST + 1)).unwrap();
        assert_eq!(giant.unwrap(), format!("over {MOST}"));
        let damaged = TEXT.replace("1000", "a lot");
        let stored = Stored::read(damaged).unwrap();
        assert!(stored.objection("5.10", &cost(1)).is_err());
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
        assert_eq!(again.verified("5.10", "ingress").unwrap(), Some(900));
        assert_eq!(again.verified("7.2", "ingress").unwrap(), Some(800));
    }
}
