//! Makes a script small that shows something wrong: fewer members, fewer troubles, shorter.

use alloc::vec::Vec;

use super::network::Network;
use super::script::{Cut, NamedPolicy, Script, Setup, Step, Until};
use super::{Outcome, Scenario};
use crate::target::Amount;
use crate::units::Millis;

/// How many scripts are tried: a minute or two for large fleets.
const TRIES_MAX: u32 = 2000;

/// The smallest script found in which the same invariant breaks as in the scenario of a seed; none where none breaks.
pub fn smallest(seed: u64, scenario: &Scenario) -> Option<Script> {
    let script = scenario.script(seed);
    let invariant = script.run().broken?.invariant;
    let same =
        |outcome: &Outcome| outcome.broken.as_ref().is_some_and(|broken| broken.invariant == invariant);
    Some(script.shrunk(same))
}

impl Script {
    /// The smallest script found of whose outcome the same holds, found by leaving things out as long as that goes.
    #[must_use]
    pub fn shrunk(&self, holds: impl Fn(&Outcome) -> bool) -> Self {
        let mut search = Search { best: self.clone(), tries: 0, holds };
        loop {
            let before = search.best.clone();
            search.setup();
            search.without_steps();
            search.smaller_steps();
            if search.best == before || search.tries >= TRIES_MAX {
                return search.best;
            }
        }
    }
}

struct Search<F> {
    best: Script,
    tries: u32,
    holds: F,
}

impl<F: Fn(&Outcome) -> bool> Search<F> {
    /// Goes on with this, if it shows the same.
    fn take(&mut self, setup: Setup, steps: Vec<Step>) -> bool {
        if self.tries >= TRIES_MAX || setup.members == 0 {
            return false;
        }
        let script = Script::new(setup, steps);
        if script.lines == self.best.lines {
            return false;
        }
        self.tries += 1;
        let holds = (self.holds)(&script.run());
        if holds {
            self.best = script;
        }
        holds
    }

    fn steps(&self) -> Vec<Step> {
        self.best.steps().cloned().collect()
    }

    fn with_setup(&mut self, change: impl FnOnce(&mut Setup)) -> bool {
        let mut setup = self.best.setup.clone();
        change(&mut setup);
        self.take(setup, self.steps())
    }

    fn setup(&mut self) {
        for members in [1, 2, 3, 5, 10, 40] {
            if members < self.best.setup.members && self.with_setup(|setup| setup.members = members) {
                break;
            }
        }
        while self.best.setup.members > 1 && self.with_setup(|setup| setup.members /= 2) {}
        while self.best.setup.members > 1 && self.with_setup(|setup| setup.members -= 1) {}
        self.with_setup(|setup| setup.network = Network::Good);
        self.with_setup(|setup| setup.overlap = true);
        self.with_setup(|setup| setup.labels.clear());
        let named = self.best.steps().filter_map(server_of).max().unwrap_or(0);
        if self.best.setup.servers > named + 1 {
            self.with_setup(|setup| setup.servers = named + 1);
        }
    }

    /// Leaves steps out, many at once first.
    fn without_steps(&mut self) {
        let mut many = self.steps().len();
        while many > 0 {
            let mut from = 0;
            while from < self.steps().len() {
                let mut steps = self.steps();
                steps.drain(from..(from + many).min(steps.len()));
                if !self.take(self.best.setup.clone(), steps) {
                    from += many;
                }
            }
            many /= 2;
        }
    }

    /// Makes what is left shorter and smaller.
    fn smaller_steps(&mut self) {
        for index in 0..self.steps().len() {
            // As long as it gets smaller.
            while self.steps().get(index).into_iter().flat_map(smaller).any(|step| {
                let mut steps = self.steps();
                steps[index] = step;
                self.take(self.best.setup.clone(), steps)
            }) {}
        }
    }
}

const fn server_of(step: &Step) -> Option<usize> {
    match step {
        Step::Server { number, .. } | Step::Isolate(number) => Some(*number),
        Step::Cut(cut) => cut.server,
        _ => None,
    }
}

/// What is less than a step, the least first.
fn smaller(step: &Step) -> Vec<Step> {
    let amounts = |amount: Amount| match amount {
        Amount::Members(0 | 1) => Vec::new(),
        Amount::Members(n) => alloc::vec![Amount::Members(1), Amount::Members(n / 2)],
        Amount::Share(_) => alloc::vec![Amount::Members(1)],
    };
    match step {
        Step::Run(Until::After(time)) if time.0 > 1000 => {
            let second = Millis(time.0 - time.0 % 1000);
            let halves = [Millis(second.0 / 2000 * 1000), second];
            let fewer = halves.into_iter().filter(|less| less < time && less.0 > 0);
            fewer.map(|less| Step::Run(Until::After(less))).collect()
        }
        Step::Policy(named) => {
            let plain = NamedPolicy::named(named.name).filter(|plain| plain != named);
            plain.map(Step::Policy).into_iter().collect()
        }
        Step::Join(members) if *members > 1 => alloc::vec![Step::Join(1)],
        Step::Leave { members, goodbye } => {
            let leave = |members| Step::Leave { members, goodbye: *goodbye };
            amounts(*members).into_iter().map(leave).collect()
        }
        Step::Refuse(release, members) => {
            amounts(*members).into_iter().map(|members| Step::Refuse(*release, members)).collect()
        }
        Step::Unfetchable(release, members) => {
            amounts(*members).into_iter().map(|members| Step::Unfetchable(*release, members)).collect()
        }
        Step::Restart(members) => amounts(*members).into_iter().map(Step::Restart).collect(),
        Step::Cut(cut) => {
            amounts(cut.members).into_iter().map(|members| Step::Cut(Cut { members, ..*cut })).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::simulate::{End, Trouble};

    #[test]
    fn what_shows_something_is_made_small_and_shows_it_again() {
        let scenario = Scenario::drawn(8, 200).with(Trouble::CrashAtStart);
        let back = |outcome: &Outcome| outcome.end == End::RolledBack;
        let script = scenario.script(8);
        assert!(back(&script.run()));
        let small = script.shrunk(back);
        assert_eq!(
            small.to_string(),
            "seed 8\nfleet 1\ncrash r2 100%\ndeploy r2 again\nrun until quiet\n",
            "{script}"
        );
        assert!(back(&small.to_string().parse::<Script>().unwrap().run()), "it is read as it was written");
    }

    #[test]
    fn troubles_that_matter_stay() {
        let scenario = Scenario::drawn(3, 40).with(Trouble::JoinsAndLeaves);
        let script = scenario.script(3);
        let most = |outcome: &Outcome| outcome.touched > 20 && outcome.end == End::Switched;
        let small = script.shrunk(most);
        assert!(most(&small.run()) && small.setup.members <= 21, "{small}");
        assert!(small.steps().count() <= 4, "{small}");
    }

    #[test]
    fn a_scenario_that_keeps_every_invariant_has_no_smallest_failure() {
        assert_eq!(smallest(1, &Scenario::drawn(1, 10)), None);
    }
}
