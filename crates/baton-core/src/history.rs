//! The log of a service's deploys: what may be added to it, and what follows from it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::deploy::{Deploy, InvalidPolicy, Kind, Policy};
use crate::ids::{DeployId, Epoch, ReleaseId, ServiceName};
use crate::units::Share;

/// All deploys of one service, oldest first. It only grows; the last one is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    service: ServiceName,
    past: Vec<Past>,
}

/// One deploy of the log and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The deploy.
    pub deploy: Deploy,
    /// Whether its target was reached once (see [`crate::verdict::Verdict::Done`]).
    pub switched: bool,
}

/// What somebody asks for: a deploy that has no epoch yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The id that the deploy will have.
    pub id: DeployId,
    /// The deploy that the proposer believes to be in force.
    pub parent: Option<DeployId>,
    /// What shall happen.
    pub wish: Wish,
    /// Why, in the words of whoever asks.
    pub reason: String,
    /// Who asks: a person's name, or `baton`.
    pub actor: String,
    /// Milliseconds since 1970, for people.
    pub created: u64,
}

/// What shall happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Bring a release to the fleet.
    Rollout {
        /// The release.
        release: ReleaseId,
        /// How.
        policy: Policy,
        /// Whether a release that was rolled back before is wanted all the same.
        again: bool,
    },
    /// Stop what is under way.
    Halt {
        /// Whether members on trial give up the release at once.
        hand_back: bool,
    },
    /// Go on with what was halted.
    Resume,
    /// Take back what is in force.
    RollBack {
        /// Where to; the fallback of the deploy in force when not given.
        to: Option<ReleaseId>,
    },
}

/// Why a proposal is refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Somebody else was faster, or the proposer looked at an old state.
    #[error("another deploy came first ({}): look at the status and try again", named(*.in_force))]
    Conflict {
        /// The deploy that is in force.
        in_force: Option<DeployId>,
    },
    /// The policy makes no sense.
    #[error("the rollout policy is not usable")]
    Policy(#[from] InvalidPolicy),
    /// The release was rolled back before.
    #[error("release {} was rolled back before: deploy it with --again if you mean it", .release.short())]
    Marked {
        /// The release.
        release: ReleaseId,
    },
    /// Nothing is under way.
    #[error("no rollout is under way: there is nothing to halt")]
    NothingToHalt,
    /// It is halted already.
    #[error(
        "it is halted already, by {by}: go on with `baton resume`, or take it back with `baton rollback`"
    )]
    HaltedAlready {
        /// Who halted it.
        by: String,
    },
    /// The deploy in force is not a halt.
    #[error("the service is not halted: there is nothing to resume")]
    NothingToResume,
    /// The service has no deploy.
    #[error("nothing was ever deployed: there is nothing to roll back")]
    NothingToRollBack,
    /// There is no release to go back to.
    #[error("there is no release to fall back to: {}", name_or_deploy(.choices))]
    NoFallback {
        /// Releases that a rollback may go to, newest first.
        choices: Vec<ReleaseId>,
    },
    /// A rollback skips the phases, which only a release that once went through them may.
    #[error(
        "release {} never reached its whole target here: deploy it{}",
        .release.short(), or_roll_back(.choices)
    )]
    NeverSwitched {
        /// The release that was asked for.
        release: ReleaseId,
        /// Releases that a rollback may go to, newest first.
        choices: Vec<ReleaseId>,
    },
}

fn named(deploy: Option<DeployId>) -> String {
    deploy.map_or_else(|| "none is in force".into(), |id| id.short())
}

fn name_or_deploy(choices: &[ReleaseId]) -> String {
    match choices {
        [] => "no other one has reached its whole target here, so deploy one that works".into(),
        choices => format!("name one with --to ({})", list(choices)),
    }
}

fn or_roll_back(choices: &[ReleaseId]) -> String {
    match choices {
        [] => String::new(),
        choices => format!(", or roll back to one that did ({})", list(choices)),
    }
}

fn list(releases: &[ReleaseId]) -> String {
    releases.iter().map(ReleaseId::short).collect::<Vec<_>>().join(", ")
}

impl History {
    /// The log with these deploys, oldest first.
    pub const fn new(service: ServiceName, past: Vec<Past>) -> Self {
        Self { service, past }
    }

    /// The deploys, oldest first.
    pub fn past(&self) -> &[Past] {
        &self.past
    }

    /// The deploy in force.
    pub fn in_force(&self) -> Option<&Deploy> {
        self.past.last().map(|past| &past.deploy)
    }

    /// The deploy with this id.
    pub fn find(&self, id: DeployId) -> Option<&Deploy> {
        // Backwards, because what is asked for is nearly always recent.
        self.past.iter().rev().map(|past| &past.deploy).find(|deploy| deploy.id == id)
    }

    /// Adds a deploy that [`History::propose`] returned.
    pub fn add(&mut self, deploy: Deploy) {
        self.past.push(Past { deploy, switched: false });
    }

    /// Notes that a deploy has reached its target. Doing so twice changes nothing.
    pub fn note_switched(&mut self, id: DeployId) {
        for past in &mut self.past {
            past.switched |= past.deploy.id == id;
        }
    }

    /// Whether a release was rolled back and not asked for again since.
    pub fn is_marked(&self, release: ReleaseId) -> bool {
        let marks = |deploy: &Deploy| match deploy.kind {
            Kind::Rollout if deploy.release == release => Some(false),
            Kind::Rollback { of } if self.find(of).is_some_and(|of| of.release == release) => Some(true),
            Kind::Rollout | Kind::Halt { .. } | Kind::Rollback { .. } => None,
        };
        self.past.iter().rev().find_map(|past| marks(&past.deploy)).unwrap_or(false)
    }

    /// What a member that has just joined starts: the release of the last deploy that reached the whole
    /// fleet, never one that is still on trial, was meant for a part of the fleet only, or was rolled back.
    pub fn release_for_new_member(&self) -> Option<ReleaseId> {
        self.reached_all().find(|&release| !self.is_marked(release))
    }

    /// Releases that reached the whole fleet, newest first.
    fn reached_all(&self) -> impl Iterator<Item = ReleaseId> {
        let whole = |past: &&Past| past.switched && past.deploy.policy.target == Share::ALL;
        self.past.iter().rev().filter(whole).map(|past| past.deploy.release)
    }

    /// Where a rollback may go, newest first, each once; not to any of `except`.
    fn ways_back(&self, except: &[ReleaseId]) -> Vec<ReleaseId> {
        let mut ways = Vec::new();
        for release in self.reached_all() {
            if !except.contains(&release) && !ways.contains(&release) && !self.is_marked(release) {
                ways.push(release);
            }
        }
        ways
    }

    /// Turns a proposal into the next deploy. It is in force once it was added and stored, both in one step
    /// with this check. `seen` is the highest epoch that any member has reported: a store that lost its last
    /// deploys must not number new ones below what members obey already.
    ///
    /// # Errors
    /// Says why the proposal is refused.
    pub fn propose(&self, proposal: Proposal, seen: Epoch) -> Result<Deploy, ProposeError> {
        let current = self.in_force();
        if proposal.parent != current.map(|deploy| deploy.id) {
            return Err(ProposeError::Conflict { in_force: current.map(|deploy| deploy.id) });
        }
        let Plan { kind, release, policy, taken_back } = match proposal.wish {
            Wish::Rollout { release, policy, again } => self.plan_rollout(release, policy, again)?,
            Wish::Halt { hand_back } => self.plan_halt(hand_back)?,
            Wish::Resume => self.plan_resume()?,
            Wish::RollBack { to } => self.plan_rollback(to)?,
        };
        let highest = self.past.iter().map(|past| past.deploy.epoch).max().unwrap_or_default().max(seen);
        Ok(Deploy {
            id: proposal.id,
            service: self.service.clone(),
            epoch: highest.next(),
            kind,
            parent: proposal.parent,
            release,
            fallback: self.ways_back(&[release, taken_back.unwrap_or(release)]).first().copied(),
            policy,
            reason: proposal.reason,
            actor: proposal.actor,
            created: proposal.created,
        })
    }

    fn plan_rollout(&self, release: ReleaseId, policy: Policy, again: bool) -> Result<Plan, ProposeError> {
        policy.check()?;
        if self.is_marked(release) && !again {
            return Err(ProposeError::Marked { release });
        }
        Ok(Plan { kind: Kind::Rollout, release, policy, taken_back: None })
    }

    fn plan_halt(&self, hand_back: bool) -> Result<Plan, ProposeError> {
        let under_way = self.past.last().filter(|past| !past.switched).map(|past| &past.deploy);
        match under_way.map(|deploy| (deploy, deploy.kind)) {
            Some((deploy, Kind::Rollout | Kind::Rollback { .. })) => {
                Ok(Plan::like(deploy, Kind::Halt { of: deploy.id, hand_back }))
            }
            Some((deploy, Kind::Halt { .. })) => {
                Err(ProposeError::HaltedAlready { by: deploy.actor.clone() })
            }
            None => Err(ProposeError::NothingToHalt),
        }
    }

    fn plan_resume(&self) -> Result<Plan, ProposeError> {
        let halted = match self.in_force().map(|deploy| deploy.kind) {
            Some(Kind::Halt { of, .. }) => self.find(of),
            Some(Kind::Rollout | Kind::Rollback { .. }) | None => None,
        };
        let halted = halted.ok_or(ProposeError::NothingToResume)?;
        Ok(Plan::like(halted, halted.kind))
    }

    fn plan_rollback(&self, to: Option<ReleaseId>) -> Result<Plan, ProposeError> {
        let current = self.in_force().ok_or(ProposeError::NothingToRollBack)?;
        let of = match current.kind {
            Kind::Halt { of, .. } => of,
            Kind::Rollout | Kind::Rollback { .. } => current.id,
        };
        let choices = self.ways_back(&[current.release]);
        let release = match to.or(current.fallback) {
            None => return Err(ProposeError::NoFallback { choices }),
            Some(release) if self.is_marked(release) => return Err(ProposeError::Marked { release }),
            Some(release) if !choices.contains(&release) => {
                return Err(ProposeError::NeverSwitched { release, choices });
            }
            Some(release) => release,
        };
        let policy = Policy { target: Share::ALL, ..current.policy.clone() };
        Ok(Plan { kind: Kind::Rollback { of }, release, policy, taken_back: Some(current.release) })
    }
}

/// What a wish comes to.
struct Plan {
    kind: Kind,
    release: ReleaseId,
    policy: Policy,
    taken_back: Option<ReleaseId>,
}

impl Plan {
    fn like(deploy: &Deploy, kind: Kind) -> Self {
        Self { kind, release: deploy.release, policy: deploy.policy.clone(), taken_back: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const A: ReleaseId = ReleaseId::from_bytes([0xa; 32]);
    const B: ReleaseId = ReleaseId::from_bytes([0xb; 32]);
    const C: ReleaseId = ReleaseId::from_bytes([0xc; 32]);

    fn history() -> History {
        History::new("web".parse().unwrap(), Vec::new())
    }

    fn proposal(history: &History, wish: Wish) -> Proposal {
        Proposal {
            id: DeployId::from_bytes([history.past().len() as u8 + 1; 16]),
            parent: history.in_force().map(|deploy| deploy.id),
            wish,
            reason: String::new(),
            actor: "ada".into(),
            created: 0,
        }
    }

    fn rollout(release: ReleaseId) -> Wish {
        Wish::Rollout { release, policy: Policy::safe(), again: false }
    }

    /// Proposes, adds, and returns the new deploy.
    fn deploy(history: &mut History, wish: Wish) -> Result<Deploy, ProposeError> {
        let deploy = history.propose(proposal(history, wish), Epoch(0))?;
        history.add(deploy.clone());
        Ok(deploy)
    }

    fn switch(history: &mut History, wish: Wish) -> Deploy {
        let deploy = deploy(history, wish).unwrap();
        history.note_switched(deploy.id);
        deploy
    }

    #[test]
    fn p12_every_deploy_has_a_greater_epoch_than_the_log_and_any_member() {
        let mut history = history();
        assert_eq!(deploy(&mut history, rollout(A)).unwrap().epoch, Epoch(1));
        let next = history.propose(proposal(&history, rollout(B)), Epoch(41)).unwrap();
        assert_eq!(next.epoch, Epoch(42));
        history.add(next);
        assert_eq!(deploy(&mut history, rollout(C)).unwrap().epoch, Epoch(43));
    }

    #[test]
    fn p12_a_proposal_that_looked_at_an_old_state_is_refused() {
        let mut history = history();
        let late = proposal(&history, rollout(B));
        let first = deploy(&mut history, rollout(A)).unwrap();
        let refused = history.propose(late, Epoch(0));
        assert_eq!(refused, Err(ProposeError::Conflict { in_force: Some(first.id) }));
    }

    #[test]
    fn a_rollback_goes_to_the_fallback_and_from_there_to_the_one_before() {
        let mut history = history();
        for release in [A, B, C] {
            switch(&mut history, rollout(release));
        }
        let back = deploy(&mut history, Wish::RollBack { to: None }).unwrap();
        assert_eq!((back.release, back.fallback), (B, Some(A)));
        let further = deploy(&mut history, Wish::RollBack { to: None }).unwrap();
        assert_eq!((further.release, further.fallback), (A, None));
        let refused = deploy(&mut history, Wish::RollBack { to: None });
        assert_eq!(refused, Err(ProposeError::NoFallback { choices: vec![] }));
    }

    #[test]
    fn a_rollback_goes_only_where_the_whole_fleet_has_been() {
        let mut history = history();
        assert_eq!(deploy(&mut history, Wish::RollBack { to: None }), Err(ProposeError::NothingToRollBack));
        switch(&mut history, rollout(A));
        let part = Policy { target: Share::from_percent(10), ..Policy::safe() };
        switch(&mut history, Wish::Rollout { release: B, policy: part, again: false });
        deploy(&mut history, rollout(C)).unwrap();
        let refused = history.propose(proposal(&history, Wish::RollBack { to: Some(B) }), Epoch(0));
        assert_eq!(refused, Err(ProposeError::NeverSwitched { release: B, choices: vec![A] }));
        assert_eq!(deploy(&mut history, Wish::RollBack { to: None }).unwrap().release, A);
    }

    #[test]
    fn a_refused_rollback_says_where_to_go_instead() {
        let (some, none) = (vec![A, B], Vec::new());
        for (error, text) in [
            (
                ProposeError::NoFallback { choices: some.clone() },
                "there is no release to fall back to: name one with --to (0a0a0a0a0a0a, 0b0b0b0b0b0b)",
            ),
            (
                ProposeError::NoFallback { choices: none.clone() },
                "there is no release to fall back to: no other one has reached its whole target here, \
                 so deploy one that works",
            ),
            (
                ProposeError::NeverSwitched { release: C, choices: some },
                "release 0c0c0c0c0c0c never reached its whole target here: deploy it, or roll back to one \
                 that did (0a0a0a0a0a0a, 0b0b0b0b0b0b)",
            ),
            (
                ProposeError::NeverSwitched { release: C, choices: none },
                "release 0c0c0c0c0c0c never reached its whole target here: deploy it",
            ),
        ] {
            assert_eq!(alloc::string::ToString::to_string(&error), text);
        }
    }

    #[test]
    fn a_release_that_was_rolled_back_is_marked_until_it_is_asked_for_again() {
        let mut history = history();
        switch(&mut history, rollout(A));
        deploy(&mut history, rollout(B)).unwrap();
        deploy(&mut history, Wish::RollBack { to: None }).unwrap();
        assert!(history.is_marked(B));
        assert_eq!(deploy(&mut history, rollout(B)), Err(ProposeError::Marked { release: B }));
        let again = Wish::Rollout { release: B, policy: Policy::safe(), again: true };
        deploy(&mut history, again).unwrap();
        assert!(!history.is_marked(B));
    }

    #[test]
    fn halting_and_resuming_keep_release_policy_and_kind() {
        let mut history = history();
        assert_eq!(deploy(&mut history, Wish::Halt { hand_back: false }), Err(ProposeError::NothingToHalt));
        switch(&mut history, rollout(A));
        assert_eq!(deploy(&mut history, Wish::Halt { hand_back: false }), Err(ProposeError::NothingToHalt));
        let first = deploy(&mut history, rollout(B)).unwrap();
        assert_eq!(deploy(&mut history, Wish::Resume), Err(ProposeError::NothingToResume));
        let halt = deploy(&mut history, Wish::Halt { hand_back: false }).unwrap();
        assert_eq!(halt.kind, Kind::Halt { of: first.id, hand_back: false });
        let halted = Err(ProposeError::HaltedAlready { by: "ada".into() });
        assert_eq!(deploy(&mut history, Wish::Halt { hand_back: true }), halted);
        let resumed = deploy(&mut history, Wish::Resume).unwrap();
        assert_eq!((resumed.kind, resumed.release, resumed.policy), (Kind::Rollout, B, first.policy));
        let back = deploy(&mut history, Wish::RollBack { to: None }).unwrap();
        deploy(&mut history, Wish::Halt { hand_back: false }).unwrap();
        let resumed = deploy(&mut history, Wish::Resume).unwrap();
        assert_eq!((resumed.kind, resumed.release), (back.kind, A));
    }

    #[test]
    fn p17_a_new_member_starts_what_the_whole_fleet_last_reached() {
        let mut history = history();
        assert_eq!(history.release_for_new_member(), None);
        switch(&mut history, rollout(A));
        deploy(&mut history, rollout(B)).unwrap();
        assert_eq!(history.release_for_new_member(), Some(A), "B is still on trial");
        let part = Policy { target: Share::from_percent(10), ..Policy::safe() };
        switch(&mut history, Wish::Rollout { release: C, policy: part, again: false });
        assert_eq!(history.release_for_new_member(), Some(A), "C is for a part of the fleet");
        switch(&mut history, rollout(C));
        assert_eq!(history.release_for_new_member(), Some(C));
        deploy(&mut history, Wish::RollBack { to: None }).unwrap();
        assert_eq!(history.release_for_new_member(), Some(A), "C is being taken back");
    }

    #[test]
    fn p11_no_policy_tries_the_whole_fleet_at_once() {
        let all = Policy { max_unhealthy: Share::ALL, ..Policy::fast() };
        let wish = Wish::Rollout { release: A, policy: all, again: false };
        assert_eq!(deploy(&mut history(), wish), Err(InvalidPolicy::AllAtOnce.into()));
    }
}
