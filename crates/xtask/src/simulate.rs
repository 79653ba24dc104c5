//! Many simulated rollouts, with their worst figures.

use std::any::Any;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Context;
use baton_core::simulate::{self, End, Outcome, SEEDS, SMALL_FLEETS, Scenario};
use baton_core::units::Millis;

/// The size of the fleets that are not small.
const MEMBERS: u32 = 4000;
/// After how many seeds it is told how far it is.
const TOLD_EVERY: u64 = 1000;
/// More than a few failures tell nothing new, and each is found again by its seed.
const SHOWN_MAX: usize = 20;

/// Reads which seeds are meant: `1000` for the first thousand, or `1000..5000`.
///
/// # Errors
/// Says what can be written.
pub fn seeds(text: &str) -> anyhow::Result<Range<u64>> {
    let (from, to) = text.split_once("..").unwrap_or(("0", text));
    let number = |text: &str| text.parse().context("SEEDS is a number, or two such as 1000..5000");
    Ok(number(from)?..number(to)?)
}

/// Simulates each seed twice, with a large fleet and with a small one, on all cores, and prints what was run
/// and the worst of it.
///
/// # Errors
/// Names the seeds and scenarios that broke an invariant or ended as they should not have.
pub fn run(seeds: &Range<u64>) -> anyhow::Result<()> {
    let Checked { rows, mut wrong } = check_all(seeds);
    let many = seeds.end.saturating_sub(seeds.start);
    println!("Simulated {many} rollouts over {MEMBERS} members and {many} over {SMALL_FLEETS:?} members.");
    println!("Every invariant was checked at every step. The last columns are the worst of all runs: the");
    println!("longest in virtual time, and how many members tried the release, in all and at once.\n");
    println!("{:<36}   runs  {:<44} {:>14}  tried in all  at once", "", "how they ended", "longest");
    for (name, row) in rows {
        println!("{name}  {row}");
    }
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.sort_by_key(|wrong| wrong.seed);
    let shown: Vec<_> = wrong.iter().take(SHOWN_MAX).map(|wrong| wrong.what.as_str()).collect();
    let smallest = |wrong: &Wrong| simulate::smallest(wrong.seed, &wrong.scenario);
    if let Some(script) = wrong.iter().filter(|wrong| !wrong.panicked).find_map(smallest) {
        println!(
            "\nThe smallest script that breaks the same invariant; `baton simulate --script FILE` plays it:\n"
        );
        println!("{}", script.play().transcript);
    }
    anyhow::bail!("{} rollouts went wrong:\n{}", wrong.len(), shown.join("\n"))
}

/// A rollout that went wrong.
struct Wrong {
    seed: u64,
    scenario: Scenario,
    what: String,
    /// It did not come to any end.
    panicked: bool,
}

/// What came of many rollouts. Of those that went well only the sums are kept.
#[derive(Default)]
struct Checked {
    rows: BTreeMap<String, Row>,
    wrong: Vec<Wrong>,
}

impl Checked {
    fn check(&mut self, seed: u64, members: u32) {
        let scenario = Scenario::drawn(seed, members);
        let (what, panicked) = match catch_unwind(AssertUnwindSafe(|| simulate::check(seed, &scenario))) {
            Ok(Ok(outcome)) => return self.rows.entry(name_of(&scenario)).or_default().add(&outcome),
            Ok(Err(what)) => (what, false),
            Err(panic) => (format!("seed {seed} ({scenario}): panic: {}", said(panic.as_ref())), true),
        };
        self.wrong.push(Wrong { seed, scenario, what, panicked });
    }

    fn add(&mut self, other: Self) {
        for (name, row) in other.rows {
            self.rows.entry(name).or_default().merge(row);
        }
        self.wrong.extend(other.wrong);
    }
}

fn name_of(scenario: &Scenario) -> String {
    let size = if scenario.members == MEMBERS { "4000 members" } else { "1-10 members" };
    format!("{size:<12}  {:<22}", format!("{:?}", scenario.trouble))
}

/// What a panic has said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

fn check_all(seeds: &Range<u64>) -> Checked {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let small = |seed: u64| SMALL_FLEETS[(seed / SEEDS) as usize % SMALL_FLEETS.len()];
    // Some seeds take far longer than others: whoever is done with one takes the next.
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut checked = Checked::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return checked;
            }
            checked.check(seed, MEMBERS);
            checked.check(seed, small(seed));
            let done = seed + 1 - seeds.start;
            if done.is_multiple_of(TOLD_EVERY) {
                eprintln!("{done} of {} seeds", seeds.end - seeds.start);
            }
        }
    };
    let mut all = Checked::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            // What panics in a rollout is caught there; anything else goes on from here.
            all.add(worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
    all
}

/// What came out of all runs of one kind.
#[derive(Default)]
struct Row {
    runs: u64,
    ends: BTreeMap<End, u64>,
    longest: Millis,
    touched: u32,
    on_trial: u32,
}

impl Row {
    fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        *self.ends.entry(outcome.end).or_default() += 1;
        self.longest = self.longest.max(outcome.took);
        self.touched = self.touched.max(outcome.touched);
        self.on_trial = self.on_trial.max(outcome.on_trial_most);
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        for (end, runs) in other.ends {
            *self.ends.entry(end).or_default() += runs;
        }
        self.longest = self.longest.max(other.longest);
        self.touched = self.touched.max(other.touched);
        self.on_trial = self.on_trial.max(other.on_trial);
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends: Vec<_> = self.ends.iter().map(|(end, runs)| format!("{runs} {end:?}")).collect();
        let (ends, longest) = (ends.join(", "), self.longest.to_string());
        write!(f, "{:>5}  {ends:<44} {longest:>14}", self.runs)?;
        write!(f, "  {:>12}  {:>7}", self.touched, self.on_trial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_the_first_so_many_or_those_from_one_to_another() {
        assert_eq!(seeds("24").unwrap(), 0..24);
        assert_eq!(seeds("24..48").unwrap(), 24..48);
        for bad in ["", "..", "24..", "a", "-1"] {
            assert!(seeds(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_seed_is_checked_with_both_fleets_and_counted_once() {
        let mut all = Checked::default();
        for part in [0..2_u64, 2..3] {
            let mut checked = Checked::default();
            part.for_each(|seed| checked.check(seed, 3));
            all.add(checked);
        }
        assert_eq!(all.rows.values().map(|row| row.runs).sum::<u64>(), 3);
        assert_eq!(all.rows.values().flat_map(|row| row.ends.values()).sum::<u64>(), 3);
        assert!(all.wrong.is_empty());
    }
}
