//! Which programs can be passed a socket of the bootloader, and which ones it has to relay to.
//!
//! Where a `bind` can be answered, any program gets its socket, but for those that have done something with their
//! own before. Where it cannot, whether a program takes what it is given (`LISTEN_FDS`) is found out by trying: one
//! that was launched with its socket and did not serve is relayed to the next time.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use crate::supervisor::Plan;

/// Of how many plans something is remembered. Releases come and go; only those that may come again soon matter.
const KEPT: usize = 16;

/// How a launch of a plan gets its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By a socket of its own.
    Passed,
    /// The bootloader accepts, and relays to a private port.
    Relayed {
        /// This has just been found out.
        new: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It was launched with a socket, and has not served yet.
    Tried,
    /// It served with it.
    Takes,
    /// It cannot have it.
    Unfit,
}

/// What is known of the plans of a member.
#[derive(Debug, Clone, Default)]
pub struct Passing {
    /// The one that was heard of last is at the end.
    plans: VecDeque<(Arc<Plan>, Known)>,
}

impl Passing {
    /// A plan is about to be launched; `answered`: what it binds can be answered.
    pub fn launch(&mut self, plan: &Arc<Plan>, answered: bool) -> Way {
        match self.known(plan) {
            Some(Known::Unfit) => Way::Relayed { new: false },
            Some(Known::Tried) if !answered => {
                self.note(plan, Known::Unfit);
                Way::Relayed { new: true }
            }
            None if !answered => {
                self.note(plan, Known::Tried);
                Way::Passed
            }
            None | Some(Known::Tried | Known::Takes) => Way::Passed,
        }
    }

    /// A generation of this plan serves with what it was given.
    pub fn serves(&mut self, plan: &Arc<Plan>) {
        if self.known(plan) == Some(Known::Tried) {
            self.note(plan, Known::Takes);
        }
    }

    /// A generation of this plan cannot have a socket that is not its own.
    pub fn is_unfit(&mut self, plan: &Arc<Plan>) {
        self.note(plan, Known::Unfit);
    }

    fn known(&self, plan: &Arc<Plan>) -> Option<Known> {
        self.plans.iter().find(|(known, _)| known == plan).map(|(_, known)| *known)
    }

    fn note(&mut self, plan: &Arc<Plan>, found: Known) {
        self.plans.retain(|(known, _)| known != plan);
        self.plans.push_back((plan.clone(), found));
        let surplus = self.plans.len().saturating_sub(KEPT);
        self.plans.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunSettings;
    use crate::supervisor::Running;

    fn plan(name: &str) -> Arc<Plan> {
        let settings = RunSettings::for_command(std::vec![name.into()]);
        Arc::new(Plan::new(Running::Image, settings))
    }

    const RELAYED: Way = Way::Relayed { new: false };
    const RELAYED_FROM_NOW: Way = Way::Relayed { new: true };

    #[test]
    fn what_becomes_of_a_plan_by_what_was_seen_of_it() {
        type Step = fn(&mut Passing, &Arc<Plan>);
        let answered: Step = |passing, plan| assert_eq!(passing.launch(plan, true), Way::Passed);
        let tried: Step = |passing, plan| assert_eq!(passing.launch(plan, false), Way::Passed);
        let serves: Step = Passing::serves;
        let unfit: Step = Passing::is_unfit;
        // What was seen, how it is launched where binds are answered, and where not.
        let table: [(&str, &[Step], Way, Way); 7] = [
            ("nothing", &[], Way::Passed, Way::Passed),
            ("launched where binds are answered", &[answered], Way::Passed, Way::Passed),
            ("tried, and never healthy", &[tried], Way::Passed, RELAYED_FROM_NOW),
            ("tried, and served", &[tried, serves], Way::Passed, Way::Passed),
            ("served without ever being tried", &[serves], Way::Passed, Way::Passed),
            ("unfit", &[unfit], RELAYED, RELAYED),
            ("unfit, and served by relay", &[unfit, serves], RELAYED, RELAYED),
        ];
        for (seen, steps, with, without) in table {
            for (answered, expected) in [(true, with), (false, without)] {
                let (mut passing, plan) = (Passing::default(), plan("web"));
                steps.iter().for_each(|step| step(&mut passing, &plan));
                assert_eq!(passing.launch(&plan, answered), expected, "{seen}, answered: {answered}");
            }
        }
    }

    #[test]
    fn it_is_told_once_that_a_plan_is_relayed_to() {
        let (mut passing, plan) = (Passing::default(), plan("web"));
        let ways: [Way; 3] = core::array::from_fn(|_| passing.launch(&plan, false));
        assert_eq!(ways, [Way::Passed, RELAYED_FROM_NOW, RELAYED]);
    }

    #[test]
    fn other_plans_are_forgotten_in_time_and_the_memory_stays_bounded() {
        let mut passing = Passing::default();
        passing.is_unfit(&plan("first"));
        for number in 0..KEPT {
            assert_eq!(passing.launch(&plan("first"), true), RELAYED, "after {number} others");
            passing.is_unfit(&plan(&std::format!("other {number}")));
        }
        assert_eq!(passing.launch(&plan("first"), true), Way::Passed);
        assert_eq!(passing.plans.len(), KEPT);
    }
}
