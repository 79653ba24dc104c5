//! `baton simulate`: what a rollout would do, in virtual time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use baton_core::deploy::Policy;
use baton_core::simulate::{self, End, Outcome, Program, Scenario, Trouble};

use crate::args::{PolicyName, Simulate};
use crate::failure::Failure;
use crate::policy;
use crate::project::Project;
use crate::render::simulated::{self, Simulated};
use crate::ui::Ui;

/// Simulates and prints what came out.
pub fn run(args: &Simulate, ui: &Ui) -> Result<(), Failure> {
    let scenario = scenario(args)?;
    let outcomes = simulate(args, &scenario);
    if let Some(broken) = outcomes.iter().find_map(|outcome| outcome.broken.as_ref()) {
        return Err(Failure::Simulated(format!(
            "{} does not hold after {}: {}; this is a mistake of Baton's, please report it with this command",
            broken.invariant, broken.at, broken.what
        )));
    }
    let simulated = told(args, &scenario, &outcomes);
    if let Some(path) = &args.svg {
        let drawn = simulated::svg(&simulated);
        fs::write(path, drawn).map_err(|source| Failure::Write { path: path.clone(), source })?;
    }
    ui.result(&simulated, |simulated| simulated::text(simulated, ui.width))
}

fn scenario(args: &Simulate) -> Result<Scenario, Failure> {
    let settings = Project::read(Path::new("."))?.map(|project| project.settings.policy);
    let (name, policy) = match (args.policy, settings) {
        (Some(name), _) => (name_of(name), policy::named(name)),
        (None, Some(policy)) => ("the policy of baton.toml", policy),
        (None, None) => ("safe", Policy::safe()),
    };
    let mut policy = Policy { max_unhealthy: args.max_unhealthy.unwrap_or(policy.max_unhealthy), ..policy };
    for phase in &mut policy.phases {
        phase.bake = args.bake.unwrap_or(phase.bake);
    }
    policy.check()?;
    let program = Program {
        start_crashes: args.crash_rate,
        crashes_after: args.crash_after,
        ..Program::starting_in(args.startup, args.fetch)
    };
    Ok(Scenario {
        members: args.members,
        policy_name: name,
        policy,
        trouble: Trouble::None,
        overlap: !args.no_overlap,
        program: Some(program),
    })
}

const fn name_of(name: PolicyName) -> &'static str {
    match name {
        PolicyName::Safe => "safe",
        PolicyName::Fast => "fast",
        PolicyName::Careful => "careful",
    }
}

/// All runs, on all cores.
fn simulate(args: &Simulate, scenario: &Scenario) -> Vec<Outcome> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let seeds: Vec<u64> = (0..u64::from(args.runs)).map(|run| args.seed.wrapping_add(run)).collect();
    thread::scope(|scope| {
        let parts = seeds.chunks(seeds.len().div_ceil(cores));
        let part = |seeds: &'_ [u64]| {
            let run = |seed: &u64| simulate::run(*seed, scenario);
            seeds.iter().map(run).collect::<Vec<_>>()
        };
        let workers: Vec<_> = parts.map(|seeds| scope.spawn(move || part(seeds))).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
    })
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
        policy: scenario.policy_name.to_owned(),
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
        End::Broken => "broken",
    }
}
