//! Whole rollouts in virtual time: members, servers, a store and a bad network around the pure functions, from a
//! seed. What a seed shows once it shows for ever.

mod member;
mod network;
mod observer;
mod play;
mod prng;
mod queue;
mod release;
mod scenario;
mod script;
mod server;
mod shrink;
mod store;
mod world;

use alloc::string::String;
use alloc::vec::Vec;

pub use observer::Broken;
pub use play::Played;
pub use release::{Flaws, Program, Release};
pub use scenario::{SEEDS, SMALL_FLEETS, Scenario, Trouble};
pub use script::{Script, ScriptError};
pub use shrink::smallest;

use crate::rollout::slots;
use crate::units::Millis;

/// How often members give a sign of life: one may be lost within a lease.
const HEARTBEAT: Millis = Millis::from_secs(4);

/// What came out of a simulated rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The seed that shows it again.
    pub seed: u64,
    /// How it ended.
    pub end: End,
    /// How long it took in virtual time.
    pub took: Millis,
    /// How many members ever started the new release.
    pub touched: u32,
    /// How many were on trial at once at most.
    pub on_trial_most: u32,
    /// How many things happened.
    pub events: u64,
    /// How it went, at every look of control at which that had changed.
    pub timeline: Vec<Moment>,
    /// The first invariant that did not hold.
    pub broken: Option<Broken>,
}

/// How far a simulated rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Millis,
    /// How many members serve with something new.
    pub exposed: u32,
    /// How many members try a release, or bake one.
    pub on_trial: u32,
}

/// How a simulated rollout ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Everybody has proven what was last wished for.
    Switched,
    /// Everybody is back on the old release.
    RolledBack,
    /// It is halted, and nobody is on trial.
    Halted,
    /// Only members are left that refuse.
    Incomplete,
    /// It has not come to an end: it was not awaited, or nothing happens any more by itself.
    Waiting,
    /// An invariant did not hold.
    Broken,
}

/// Simulates one rollout.
pub fn run(seed: u64, scenario: &Scenario) -> Outcome {
    scenario.script(seed).run()
}

/// How many members each phase of a scenario lets try at once, and how long they bake.
pub fn phases(scenario: &Scenario) -> Vec<(u32, Millis)> {
    let size = |size| slots(size, scenario.policy.max_unhealthy, scenario.members);
    scenario.policy.phases.iter().map(|phase| (size(phase.size), phase.bake)).collect()
}

/// Simulates one rollout and says what is wrong with it, if anything: an invariant that broke, or an end
/// that the scenario does not allow.
///
/// # Errors
/// One line with the seed and the scenario.
pub fn check(seed: u64, scenario: &Scenario) -> Result<Outcome, String> {
    let outcome = run(seed, scenario);
    let wrong = match &outcome.broken {
        Some(broken) => {
            Err(alloc::format!("{} broke after {}: {}", broken.invariant, broken.at, broken.what))
        }
        None => scenario.check(&outcome),
    };
    match wrong {
        Ok(()) => Ok(outcome),
        Err(wrong) => Err(alloc::format!("seed {seed} ({scenario}): {wrong}")),
    }
}
