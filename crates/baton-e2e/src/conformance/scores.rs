//! How several inits did, beside each other.

use std::fmt::Write;

use serde::Serialize;

use super::check::{Outcome, Verdict};

/// What came of one check of an init.
#[derive(Debug, Serialize)]
pub struct Scored {
    /// Which.
    pub check: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How one init did in all checks.
#[derive(Debug, Serialize)]
pub struct Scores {
    /// Whose.
    pub init: String,
    /// What it says about its version.
    pub version: String,
    /// In the order of the checks.
    pub results: Vec<Scored>,
}

impl Scores {
    /// How many checks ended like this.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.results.iter().filter(|result| result.outcome.verdict == verdict).count()
    }

    /// Those that were failed.
    pub fn failed(&self) -> Vec<&Scored> {
        self.results.iter().filter(|result| result.outcome.verdict == Verdict::Failed).collect()
    }
}

/// The verdicts in the order of the last rows.
const VERDICTS: [Verdict; 4] = [Verdict::Passed, Verdict::ByDesign, Verdict::Failed, Verdict::NotApplicable];

/// A table of checks and inits, and beneath it what was seen where not all is well. All were held against the
/// same checks.
pub fn table(all: &[Scores]) -> String {
    let heads = all.iter().map(|scores| scores.init.clone());
    let mut rows = vec![std::iter::once("check".to_owned()).chain(heads).collect::<Vec<_>>()];
    let checks = all.first().map_or(0, |scores| scores.results.len());
    for index in 0..checks {
        let outcomes = all.iter().filter_map(|scores| scores.results.get(index));
        let name = all[0].results[index].check.to_owned();
        rows.push(std::iter::once(name).chain(outcomes.map(|result| cell(&result.outcome))).collect());
    }
    for verdict in VERDICTS {
        let counts = all.iter().map(|scores| scores.count(verdict).to_string());
        rows.push(std::iter::once(format!("**{verdict}**")).chain(counts).collect());
    }
    let mut text = markdown(&rows);
    for scores in all {
        let notes: Vec<&Scored> =
            scores.results.iter().filter(|result| !result.outcome.seen.is_empty()).collect();
        if !notes.is_empty() {
            let version = if scores.version.is_empty() { "of unknown version" } else { &scores.version };
            let _ = write!(text, "\n{} ({version})\n\n", scores.init);
        }
        for Scored { check, outcome } in notes {
            let _ = writeln!(text, "- {check}: {outcome}");
        }
    }
    text
}

fn cell(outcome: &Outcome) -> String {
    let separator = if outcome.figure.is_empty() { "" } else { ", " };
    format!("{}{separator}{}", outcome.verdict, outcome.figure)
}

/// Rows as a table in Markdown, the first as its head, in columns that a terminal shows as such.
fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.len()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
        if index == 0 {
            let lines = widths.iter().map(|width| "-".repeat(*width));
            let _ = writeln!(text, "| {} |", lines.collect::<Vec<_>>().join(" | "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inits_stand_beside_each_other_and_what_was_seen_beneath() {
        let results = |outcome| vec![Scored { check: "graceful", outcome }];
        let all = [
            Scores { init: "a".into(), version: "a 1".into(), results: results(Outcome::passed("15 of 15")) },
            Scores {
                init: "b".into(),
                version: "b 2".into(),
                results: results(Outcome::failed("0 of 15", "killed")),
            },
        ];
        let expected = "\
| check         | a            | b               |
| ------------- | ------------ | --------------- |
| graceful      | ok, 15 of 15 | FAILED, 0 of 15 |
| **ok**        | 1            | 0               |
| **by design** | 0            | 0               |
| **FAILED**    | 0            | 1               |
| **n/a**       | 0            | 0               |

b (b 2)

- graceful: FAILED, 0 of 15: killed
";
        assert_eq!(table(&all), expected);
        assert_eq!(all[1].failed().len(), 1);
    }
}
