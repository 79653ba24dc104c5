//! How a program's end becomes the init's.

use std::collections::BTreeSet;
use std::process::ExitStatus;

use baton_core::signal::Signal;
use baton_sys::process;

use crate::conformance::check::{Check, Outcome};

/// After so many wrong ones the rest would tell nothing new.
const WRONG_MAX: usize = 3;

/// Signals that do not end a process that does nothing about them (`man 7 signal`).
pub const NOT_DEADLY: &str = "CHLD CONT STOP TSTP TTIN TTOU URG WINCH";

/// All 256 exit codes.
pub const EXIT_CODES: Check = Check {
    name: "exit-codes",
    proves: "each of the 256 exit codes of the program is the init's",
    matters: "the platform decides by it whether to restart, and people what went wrong",
    quick: true,
    run: |bench| {
        let mut tally = Tally::default();
        for code in 0..=255_i32 {
            let status = bench.nasty(&["exit", &code.to_string()])?.end()?;
            if !tally.goes_on(&format!("code {code}"), code, status) {
                break;
            }
        }
        Ok(tally.outcome())
    },
};

/// 128 + n.
pub const EXIT_SIGNALS: Check = Check {
    name: "exit-signals",
    proves: "the end by signal n becomes exit code 128 + n, for every signal that ends a program",
    matters: "137 and 139 are how out of memory and a crash are told from an exit",
    quick: true,
    run: |bench| {
        let mut tally = Tally::default();
        let not_deadly: BTreeSet<Signal> =
            NOT_DEADLY.split(' ').filter_map(|name| name.parse().ok()).collect();
        let numbers = (1..=31).chain(34..=64);
        for signal in numbers.filter_map(Signal::from_number).filter(|signal| !not_deadly.contains(signal)) {
            // A plain program of C: what Rust adds to signals is not in the way.
            let mut run = bench.run(&["sleep", "1000"])?;
            process::signal(run.program("sleep")?, signal)?;
            let status = run.end()?;
            if !tally.goes_on(&signal.to_string(), 128 + signal.number(), status) {
                break;
            }
        }
        Ok(tally.outcome())
    },
};

/// 127 and 126.
pub const CANNOT_RUN: Check = Check {
    name: "cannot-run",
    proves: "a program that is missing ends the init with 127, one that cannot be executed with 126",
    matters: "a wrong command is found at once, in the words that shells and Docker use",
    quick: true,
    run: |bench| {
        let mut tally = Tally::default();
        let missing = bench.run(&["/no/such/program"])?.end()?;
        // A file of every system that is there and nobody may execute.
        let not_executable = bench.run(&["/etc/passwd"])?.end()?;
        tally.goes_on("missing", 127, missing);
        tally.goes_on("not executable", 126, not_executable);
        Ok(tally.outcome())
    },
};

/// Ends that were looked at.
#[derive(Default)]
struct Tally {
    right: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Adds one, and says whether the next one is worth a try.
    fn goes_on(&mut self, what: &str, expected: i32, status: ExitStatus) -> bool {
        if status.code() == Some(expected) {
            self.right += 1;
        } else {
            self.wrong.push(format!("{what} came out as {status}"));
        }
        self.wrong.len() < WRONG_MAX
    }

    fn outcome(self) -> Outcome {
        let tried = self.right + self.wrong.len();
        let figure = format!("{} of {tried}", self.right);
        Outcome::of(self.wrong.is_empty(), figure, self.wrong.join(", "))
    }
}
