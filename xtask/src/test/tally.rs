//! Sums of passed and failed tests, read from the lines that libtest closes with.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// The sums of a closing line; zero for any other line.
    pub(crate) fn of_line(line: &str) -> Self {
        let Some(sums) = line.strip_prefix("test result: ") else {
            return Self::default();
        };
        let number_before = |word: &str| {
            let words: Vec<&str> = sums.split([' ', ';', '.']).collect();
            let place = words.iter().position(|other| *other == word);
            place
                .and_then(|place| words.get(place.checked_sub(1)?)?.parse().ok())
                .unwrap_or(0)
        };
        Self {
            passed: number_before("passed"),
            failed: number_before("failed"),
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_summed_and_others_ignored() {
        let mut total = Tally::default();
        for line in [
            "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test passed ... ok",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            total += Tally::of_line(line);
        }
        assert_eq!(total.to_string(), "9 passed, 3 failed");
    }
}
