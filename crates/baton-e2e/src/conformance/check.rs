//! A check, and what comes of it.

use std::fmt;

use serde::Serialize;

use super::run::{Bench, NotSeen};

/// One thing that a PID 1 must do.
#[derive(Debug)]
pub struct Check {
    /// What it is called on the command line and in the table.
    pub name: &'static str,
    /// What holds if it is passed.
    pub proves: &'static str,
    /// What goes wrong without it.
    pub matters: &'static str,
    /// It takes no more than a few seconds, so that it can be among the tests of every change.
    pub quick: bool,
    /// Makes it.
    pub run: fn(&Bench<'_>) -> anyhow::Result<Outcome>,
}

impl Check {
    /// Makes it. That something expected did not happen is a failure of the init; what it documents to do
    /// otherwise is shown as such.
    ///
    /// # Errors
    /// What keeps the check from being made.
    pub fn against(&self, bench: &Bench<'_>) -> anyhow::Result<Outcome> {
        if let Some(why) = bench.init().cannot(self.name) {
            return Ok(Outcome::not_applicable(why));
        }
        let outcome = (self.run)(bench).or_else(|error| match error.downcast::<NotSeen>() {
            Ok(not_seen) => Ok(Outcome::failed("", not_seen.to_string())),
            Err(error) => Err(error),
        })?;
        match bench.init().does_otherwise(self.name) {
            Some(why) if outcome.verdict == Verdict::Failed => Ok(outcome.excused(why)),
            _ => Ok(outcome),
        }
    }
}

/// How an init did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should.
    Passed,
    /// Otherwise, and its documentation says so.
    ByDesign,
    /// Otherwise.
    Failed,
    /// It has nothing that the check could be about.
    NotApplicable,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// How the init did.
    pub verdict: Verdict,
    /// The same as a number, where there is one: `15 of 15`.
    pub figure: String,
    /// What was seen, unless all is well; for what is by design, also why.
    pub seen: String,
}

impl Outcome {
    /// All is well.
    pub fn passed(figure: impl Into<String>) -> Self {
        Self { verdict: Verdict::Passed, figure: figure.into(), seen: String::new() }
    }

    /// It is not, for what was seen.
    pub fn failed(figure: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, figure: figure.into(), seen: seen.into() }
    }

    /// It is otherwise, as documented.
    pub fn by_design(figure: impl Into<String>, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::ByDesign, figure: figure.into(), seen: why.into() }
    }

    /// There is nothing to check.
    pub fn not_applicable(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotApplicable, figure: String::new(), seen: why.into() }
    }

    /// Passed, or failed for what was seen.
    pub fn of(held: bool, figure: impl Into<String>, seen: impl Into<String>) -> Self {
        if held { Self::passed(figure) } else { Self::failed(figure, seen) }
    }

    fn excused(self, why: &str) -> Self {
        Self { verdict: Verdict::ByDesign, seen: format!("{why} ({})", self.seen), ..self }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "ok",
            Self::ByDesign => "by design",
            Self::Failed => "FAILED",
            Self::NotApplicable => "n/a",
        })
    }
}

impl fmt::Display for Outcome {
    /// `ok, 15 of 15` or `FAILED: what was seen`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        if !self.figure.is_empty() {
            write!(f, ", {}", self.figure)?;
        }
        if !self.seen.is_empty() {
            write!(f, ": {}", self.seen)?;
        }
        Ok(())
    }
}
