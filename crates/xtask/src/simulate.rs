//! Many simulated rollouts, with their worst figures.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};

use baton_core::simulate::{self, End, Outcome, SEEDS, SMALL_FLEETS, Scenario};
use baton_core::units::Millis;

/// The size of the fleets that are not small.
const MEMBERS: u32 = 4000;

/// Simulates each seed twice, with a large fleet and with a small one, on all cores, and prints what was run
/// and the worst of it.
///
/// # Errors
/// Names the seeds and scenarios that broke an invariant or ended as they should not have.
pub fn run(seeds: u64) -> anyhow::Result<()> {
    let checked = check_all(seeds);
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut wrong = Vec::new();
    for checked in checked {
        match checked {
            Ok((scenario, outcome)) => {
                let size = if scenario.members == MEMBERS { "4000 members" } else { "1-10 members" };
                let name = format!("{size:<12}  {:<22}", format!("{:?}", scenario.trouble));
                rows.entry(name).or_default().add(&outcome);
            }
            Err(what) => wrong.push(what),
        }
    }
    println!("Simulated {seeds} rollouts over {MEMBERS} members and {seeds} over {SMALL_FLEETS:?} members.");
    println!("Every invariant was checked at every step. The last columns are the worst of all runs: the");
    println!("longest in virtual time, and how many members tried the release, in all and at once.\n");
    println!("{:<36}   runs  {:<44} {:>14}  tried in all  at once", "", "how they ended", "longest");
    for (name, row) in rows {
        println!("{name}  {row}");
    }
    if wrong.is_empty() {
        return Ok(());
    }
    // More than a few tell nothing new, and each is found again by its seed.
    let shown: Vec<_> = wrong.iter().take(20).map(|wrong| wrong.what.as_str()).collect();
    if let Some(script) = wrong.iter().find_map(|wrong| simulate::smallest(wrong.seed, &wrong.scenario)) {
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
}

type Checked = Result<(Scenario, Outcome), Box<Wrong>>;

fn check_all(seeds: u64) -> Vec<Checked> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let check = |seed, members| {
        let scenario = Scenario::drawn(seed, members);
        match simulate::check(seed, &scenario) {
            Ok(outcome) => Ok((scenario, outcome)),
            Err(what) => Err(Box::new(Wrong { seed, scenario, what })),
        }
    };
    let every_nth = |first: usize| {
        let seeds = (first as u64..seeds).step_by(cores);
        let small = |seed: u64| SMALL_FLEETS[(seed / SEEDS) as usize % SMALL_FLEETS.len()];
        seeds.flat_map(|seed| [check(seed, MEMBERS), check(seed, small(seed))]).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|first| scope.spawn(move || every_nth(first))).collect();
        // A panic was printed when it happened, and goes on from here.
        let join =
            |worker: ScopedJoinHandle<'_, _>| worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        workers.into_iter().flat_map(join).collect()
    })
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
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends: Vec<_> = self.ends.iter().map(|(end, runs)| format!("{runs} {end:?}")).collect();
        let (ends, longest) = (ends.join(", "), self.longest.to_string());
        write!(f, "{:>5}  {ends:<44} {longest:>14}", self.runs)?;
        write!(f, "  {:>12}  {:>7}", self.touched, self.on_trial)
    }
}
