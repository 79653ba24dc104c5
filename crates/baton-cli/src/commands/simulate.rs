//! `baton simulate`: what a rollout would do, in virtual time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use baton_core::deploy::Policy;
use baton_core::settings::Settings;
use baton_core::simulate::{self, End, Flaws, Outcome, Program, Scenario, Script, Trouble};
use baton_core::target::Target;
use clap::ValueEnum;
use serde::Serialize;

use crate::args::Simulate;
use crate::failure::Failure;
use crate::policy;
use crate::project::Project;
use crate::render::count;
use crate::render::simulated::{self, Simulated};
use crate::ui::Ui;

/// Simulates and prints what came out.
pub fn run(args: &Simulate, ui: &Ui) -> Result<(), Failure> {
    if let Some(path) = &args.script {
        return play(path, ui);
    }
    let settings = Project::read(Path::new("."))?.map(|project| project.settings);
    let scenario = scenario(args, settings)?;
    let outcomes = simulate(args, &scenario)?;
    outcomes.iter().try_for_each(holds)?;
    let simulated = told(args, &scenario, &outcomes);
    if let Some(path) = &args.svg {
        let drawn = simulated::svg(&simulated);
        fs::write(path, drawn).map_err(|source| Failure::Write { path: path.clone(), source })?;
    }
    ui.result(&simulated, |simulated| simulated::text(simulated, ui.width))
}

/// Every invariant holds, or it is a mistake of Baton's.
fn holds(outcome: &Outcome) -> Result<(), Failure> {
    let Some(broken) = &outcome.broken else { return Ok(()) };
    Err(Failure::Simulated(format!(
        "{} does not hold after {}: {}; this is a mistake of Baton's, please report it with this command",
        broken.invariant, broken.at, broken.what
    )))
}

/// Plays a script.
fn play(path: &Path, ui: &Ui) -> Result<(), Failure> {
    let text = fs::read_to_string(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    let script: Script =
        text.parse().map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    let played = script.play();
    let Outcome { end, took, .. } = &played.outcome;
    let told = Played { transcript: played.transcript, end: word(*end), took_ms: took.0 };
    ui.result(&told, |told| told.transcript.clone())?;
    holds(&played.outcome)
}

/// What came of a script.
#[derive(Debug, Serialize)]
struct Played {
    /// The script, with what came out below each line.
    transcript: String,
    end: &'static str,
    took_ms: u64,
}

/// What was asked about, as a scenario: the policy of the settings, and the pace that was typed.
fn scenario(args: &Simulate, settings: Option<Settings>) -> Result<Scenario, Failure> {
    let from = if settings.is_some() { "as baton.toml says" } else { "safe" };
    let policy_name = args.policy.and_then(|name| name.to_possible_value());
    let policy_name = policy_name.map_or(from.to_owned(), |name| name.get_name().to_owned());
    let overlap = !args.no_overlap && settings.as_ref().is_none_or(|settings| settings.run.overlap);
    let policy = settings.map(|settings| settings.policy);
    let policy = policy::paced(policy, args.policy, args.max_unhealthy, args.bake);
    // The simulated members are those that the rollout is for.
    let policy = Policy { target: Target::ALL, ..policy };
    policy.check()?;
    if let Some(limit) = policy.limits.that_blocks(args.members) {
        let members = count(u64::from(args.members), "member");
        return Err(Failure::Usage(format!(
            "of {members} none could ever try a release: {limit}; give another --members, or another limit in baton.toml"
        )));
    }
    Ok(Scenario {
        members: args.members,
        policy_name,
        policy,
        trouble: Trouble::None,
        overlap,
        program: Program { traffic: args.traffic, ..Program::starting_in(args.startup, args.fetch) },
        flaws: Flaws { crashes: args.crash_rate, crashes_after: args.crash_after, ..Flaws::NONE },
        restarts: false,
    })
}

/// All runs, on all cores.
///
/// # Errors
/// A run did not come to its end.
fn simulate(args: &Simulate, scenario: &Scenario) -> Result<Vec<Outcome>, Failure> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let seeds: Vec<u64> = (0..u64::from(args.runs)).map(|run| args.seed.wrapping_add(run)).collect();
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let parts = seeds.chunks(seeds.len().div_ceil(cores));
        let part = |seeds: &'_ [u64]| {
            let run = |seed: &u64| simulate::run(*seed, scenario);
            seeds.iter().map(run).collect::<Vec<_>>()
        };
        let workers: Vec<_> = parts.map(|seeds| scope.spawn(move || part(seeds))).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
    });
    if outcomes.len() == seeds.len() {
        return Ok(outcomes);
    }
    let (ended, runs) = (outcomes.len(), count(u64::from(args.runs), "run"));
    Err(Failure::Simulated(format!(
        "only {ended} of {runs} came to an end, as is told above; this is a mistake of Baton's, please report it \
         with this command"
    )))
}

fn told(args: &Simulate, scenario: &Scenario, outcomes: &[Outcome]) -> Simulated {
    let mut took: Vec<u64> = outcomes.iter().map(|outcome| outcome.took.0).collect();
    took.sort_unstable();
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for outcome in outcomes {
        *ends.entry(word(outcome.end).to_owned()).or_default() += 1;
    }
    let at = |part: usize| took.get((took.len().saturating_sub(1)) * part / 2).copied().unwrap_or(0);
    let first = outcomes.first().map(|outcome| outcome.timeline.as_slice()).unwrap_or_default();
    Simulated {
        members: scenario.members,
        policy: scenario.policy_name.clone(),
        startup_ms: args.startup.0,
        ends,
        took_ms: [at(0), at(1), at(2)],
        touched_most: outcomes.iter().map(|outcome| outcome.touched).max().unwrap_or(0),
        exposed_most: outcomes.iter().map(exposed_most).max().unwrap_or(0),
        on_trial_most: outcomes.iter().map(|outcome| outcome.on_trial_most).max().unwrap_or(0),
        timeline: first.iter().map(simulated::moment).collect(),
    }
}

fn exposed_most(outcome: &Outcome) -> u32 {
    outcome.timeline.iter().map(|moment| moment.exposed).max().unwrap_or(0)
}

const fn word(end: End) -> &'static str {
    match end {
        End::Switched => "switched",
        End::RolledBack => "rolled back",
        End::Halted => "halted",
        End::Incomplete => "incomplete",
        End::Waiting => "waiting",
        End::Broken => "broken",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    /// What is simulated for these arguments where the settings have these lines for the rollout.
    fn asked(arguments: &str, rollout: &str) -> Result<(Simulate, Scenario), String> {
        let typed = ["baton", "simulate"].into_iter().chain(arguments.split_whitespace());
        let Command::Simulate(args) = Cli::try_parse_from(typed).unwrap().command else {
            panic!("{arguments}")
        };
        let text = format!("service = \"web\"\n[run]\ncommand = [\"true\"]\n[rollout]\n{rollout}\n");
        let settings =
            baton_core::settings::parse("baton.toml", &text).map_err(|error| error.0[0].to_string())?;
        let scenario = scenario(&args, Some(settings)).map_err(|failure| failure.message())?;
        Ok((args, scenario))
    }

    #[test]
    fn whatever_settings_allow_is_simulated_without_a_mistake() {
        for (arguments, rollout) in [
            ("", "target = \"10%\""),
            ("", "target = 3"),
            ("", "label = \"canary\""),
            ("", "max_unhealthy = \"50%\""),
            ("--policy fast", "never_more_than = 41"),
            ("--policy fast", "max_connections_budget = 205\nconnections_each = 5"),
            ("", "min_available = 39"),
            ("--no-overlap --policy fast", "min_available = 30"),
            ("--bake 2h", ""),
            ("--startup 1h", ""),
            ("--bake 24h --policy careful", ""),
            ("--startup 10s --crash-after 3s", "auto_rollback = false"),
            ("--crash-rate 100% --startup 1h", ""),
        ] {
            let arguments = format!("--members 40 --runs 3 {arguments}");
            let (args, scenario) = asked(&arguments, rollout).unwrap();
            for outcome in simulate(&args, &scenario).unwrap() {
                assert_eq!(outcome.broken, None, "{arguments} with {rollout}");
                assert_ne!(outcome.end, End::Broken, "{arguments} with {rollout}");
            }
        }
    }

    #[test]
    fn a_limit_that_leaves_so_many_members_no_turn_is_told_with_what_to_do() {
        for (rollout, expected) in [
            ("never_more_than = 40", "40 generations run or drain, and never_more_than is 40"),
            ("never_more_than = 12", "and never_more_than is 12; give another --members"),
            ("max_connections_budget = 204\nconnections_each = 5", "and max_connections_budget is 204"),
            ("min_available = 100", "40 members serve, and min_available is 100"),
        ] {
            let refused = asked("--members 40", rollout).unwrap_err();
            assert!(
                refused.starts_with("of 40 members none could") && refused.contains(expected),
                "{refused}"
            );
        }
    }

    #[test]
    fn the_policy_is_that_of_a_deploy_but_for_whom_it_is_meant() {
        let (_, scenario) =
            asked("--policy careful --bake 7s", "target = 3\nmax_unhealthy = \"10%\"").unwrap();
        assert_eq!(
            (scenario.policy_name.as_str(), scenario.policy.max_unhealthy.ppm()),
            ("careful", 100_000)
        );
        assert!(scenario.policy.target.is_all() && scenario.policy.phases.len() == 4);
        assert!(scenario.policy.phases.iter().all(|phase| phase.bake.0 == 7000));
        assert_eq!(asked("", "").unwrap().1.policy_name, "as baton.toml says");
    }
}
