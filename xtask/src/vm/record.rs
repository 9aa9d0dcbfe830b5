//! What a guest says of itself, line by line.

use super::cost::Cost;
use super::guest;
use super::machine::End;
use super::plan::Step;
use crate::test::Tally;
use std::time::Instant;

/// The results of one guest, printed as they come.
pub(super) struct Record<'a> {
    series: &'a str,
    steps: &'a [Step],
    start: Instant,
    started: usize,
    closed: usize,
    tally: Tally,
    /// Things that went wrong besides tests.
    broken: u64,
    costs: Vec<Cost>,
}

impl<'a> Record<'a> {
    pub(super) fn start(series: &'a str, steps: &'a [Step]) -> Self {
        Self {
            series,
            steps,
            start: Instant::now(),
            started: 0,
            closed: 0,
            tally: Tally::default(),
            broken: 0,
            costs: Vec::new(),
        }
    }

    /// Takes a line of the results.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(json) = line.strip_prefix(guest::COSTS) {
            match Cost::read(json) {
                Ok(costs) => self.costs = costs,
                Err(error) => self.say_broken(&format!("{error:#}")),
            }
            return;
        }
        self.say(line);
        self.started += usize::from(line.starts_with(guest::STEP));
        self.broken += u64::from(line.starts_with(guest::BROKEN));
        if line.starts_with("test result: ") {
            self.close(Tally::of_line(line));
        }
    }

    /// Takes the guest's end, and returns the sums and what the verifier made of the programs.
    pub(super) fn finish(mut self, end: &End) -> (Tally, Vec<Cost>) {
        match end {
            End::Broken(why) => self.say_broken(why),
            End::Done if self.broken == 0 && self.closed < self.steps.len() => {
                self.say_broken("a part of the plan has no results");
            }
            End::Done => {}
        }
        // A test program that crashed has no closing line; a failed test makes its program fail too.
        self.tally.failed = self.tally.failed.max(self.broken);
        let seconds = self.start.elapsed().as_secs_f64();
        println!("{}: {} ({seconds:.1} s)", self.series, self.tally);
        (self.tally, self.costs)
    }

    /// A test that was renamed or is ignored would not be missed otherwise.
    fn close(&mut self, tally: Tally) {
        self.tally += tally;
        self.closed += 1;
        let step = self
            .started
            .checked_sub(1)
            .and_then(|at| self.steps.get(at));
        let wanted = step.and_then(|step| step.tests);
        if wanted.is_some_and(|wanted| wanted != tally.passed + tally.failed) {
            self.say_broken("not all tests that the plan names: see xtask/src/vm/plan.rs");
        }
    }

    fn say_broken(&mut self, why: &str) {
        self.broken += 1;
        self.say(&format!("{}{why}", guest::BROKEN));
    }

    fn say(&self, line: &str) {
        if !line.is_empty() {
            let seconds = self.start.elapsed().as_secs();
            println!("{:>5} {seconds:>3} s | {line}", self.series);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(lines: &[&str], end: &End) -> Tally {
        let steps = [Step {
            command: "/bin/netns --exact a b".into(),
            tests: Some(2),
        }];
        let mut record = Record::start("5.10", &steps);
        lines.iter().for_each(|line| record.line(line));
        record.finish(end).0
    }

    const RESULT: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured";

    #[test]
    fn results_are_summed() {
        let lines = ["guest: runs /bin/netns", RESULT];
        assert_eq!(sums(&lines, &End::Done).to_string(), "2 passed, 0 failed");
    }

    #[test]
    fn whatever_goes_wrong_besides_tests_is_a_failure() {
        let lines = ["guest: runs /bin/netns", RESULT];
        let broken = End::Broken("no end after 60 s".into());
        assert_eq!(sums(&lines, &broken).failed, 1);
        assert_eq!(sums(&[], &End::Done).failed, 1, "nothing was run");
        let ignored = "test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured";
        let fewer = ["guest: runs /bin/netns", ignored];
        assert_eq!(sums(&fewer, &End::Done).failed, 1, "a test was not run");
        let crashed = [
            "guest: runs /bin/netns",
            "guest: broken: /bin/netns: signal 11",
        ];
        assert_eq!(sums(&crashed, &End::Done).failed, 1);
    }
}
