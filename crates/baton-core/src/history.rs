//! The log of a service's deploys: what may be added to it, and what follows from it.

mod lock;
mod settle;
mod tag;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::blame::Blame;
use crate::deploy::{Deploy, InvalidPolicy, Kind, Policy};
use crate::ids::{DeployId, Epoch, ReleaseId, ServiceName};
use crate::target::Target;
use crate::trust::{Signed, Warrant};

pub use lock::Lock;
pub use settle::{Settled, settle};
pub use tag::{InvalidTag, TAGS_MAX, Tag, TagName, Tags};

/// All deploys of one service, oldest first. It only grows; the last one is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    service: ServiceName,
    past: Vec<Past>,
    lock: Option<Lock>,
    tags: Tags,
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
    /// Who answers for it.
    pub backing: Backing,
    /// What has stopped the deploy in force, where control proposes.
    pub blame: Option<Blame>,
}

/// Who answers for a proposal, in a fleet whose members trust keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Backing {
    /// Whoever signed the deploy in force, as far as that goes: for a halt and a return to its fallback. Where that one is
    /// not signed, nobody has to.
    #[default]
    InForce,
    /// Whoever signed this.
    Signed(Signed<Warrant>),
    /// Nobody, on purpose.
    Nobody,
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
    /// Take back the rollout that is under way or halted.
    Abort,
    /// Take back what is in force.
    RollBack {
        /// Where to; the fallback of the deploy in force when not given.
        to: Option<ReleaseId>,
    },
}

impl Wish {
    /// Whether it exposes nobody to anything new: stopping, and the way back, must work when little else does.
    pub const fn only_stops(&self) -> bool {
        match self {
            Self::Halt { .. } | Self::Abort | Self::RollBack { to: None } => true,
            Self::Rollout { .. } | Self::Resume | Self::RollBack { to: Some(_) } => false,
        }
    }
}

impl Wish {
    /// The release that it names.
    pub const fn release(&self) -> Option<ReleaseId> {
        match self {
            Self::Rollout { release, .. } => Some(*release),
            Self::RollBack { to } => *to,
            Self::Halt { .. } | Self::Resume | Self::Abort => None,
        }
    }

    /// Whether a deploy is what this led to: a call is repeated with the wish of the first one.
    pub fn led_to(&self, deploy: &Deploy) -> bool {
        match (self, deploy.kind) {
            (Self::Rollout { release, policy, again: _ }, Kind::Rollout) => {
                deploy.release == *release && deploy.policy == *policy
            }
            (Self::Halt { hand_back: wanted }, Kind::Halt { hand_back, .. }) => *wanted == hand_back,
            (Self::Resume, Kind::Rollout | Kind::Rollback { .. }) => true,
            (Self::Abort, Kind::Rollback { .. }) => true,
            (Self::RollBack { to }, Kind::Rollback { .. }) => to.is_none_or(|to| to == deploy.release),
            (Self::Rollout { .. }, Kind::Halt { .. } | Kind::Rollback { .. })
            | (Self::Halt { .. }, Kind::Rollout | Kind::Rollback { .. })
            | (Self::Resume, Kind::Halt { .. })
            | (Self::Abort | Self::RollBack { .. }, Kind::Rollout | Kind::Halt { .. }) => false,
        }
    }
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
    /// The deploy in force is signed, and this one is not and needs to be.
    #[error(
        "the deploys of this service are signed: deploy with --key, or with --unsigned if no member trusts keys any more"
    )]
    Unsigned,
    /// What was signed is not what is proposed; mostly because something has changed since.
    #[error("the {what} that was signed is not that of the deploy: sign it anew")]
    OtherWarrant {
        /// What differs.
        what: &'static str,
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
    /// The service takes no new release for now.
    #[error(
        "service {service} is locked by {actor}: {reason}; when that is over, `baton unlock --service {service}`"
    )]
    Locked {
        /// This one, or one that it is a flavor of.
        service: ServiceName,
        /// Why.
        reason: String,
        /// By whom.
        actor: String,
    },
    /// The service is not locked.
    #[error("the service is not locked: there is nothing to unlock")]
    NotLocked,
    /// The service has no such tag.
    #[error("there is no tag {tag}: see `baton releases tags`")]
    NoSuchTag {
        /// Which.
        tag: TagName,
    },
    /// The service has as many tags as it may.
    #[error("the service has {TAGS_MAX} tags already: take one away with `baton releases untag`")]
    TooManyTags,
    /// Nothing is under way.
    #[error("no rollout is under way: there is nothing to halt")]
    NothingToHalt,
    /// Nothing is under way that could be taken back.
    #[error("no rollout is under way: take back what is everywhere with `baton rollback`")]
    NothingToAbort,
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
        Self { service, past, lock: None, tags: Tags::new() }
    }

    /// Whose they are.
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The deploys, oldest first.
    pub fn past(&self) -> &[Past] {
        &self.past
    }

    /// What control has stopped by itself, where nobody has decided since what follows: it does nothing more. The way back has
    /// failed too, or there was none, or the policy wants a person to look.
    pub fn stuck(&self) -> Option<&Deploy> {
        match self.in_force()?.kind {
            // A person's halt hands nothing back.
            Kind::Halt { of, hand_back: true } => self.find(of),
            Kind::Halt { hand_back: false, .. } | Kind::Rollout | Kind::Rollback { .. } => None,
        }
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

    /// Adds a deploy that [`History::propose`] returned. A rollback may lock the service.
    pub fn add(&mut self, deploy: Deploy) {
        self.lock = self.lock.take().or_else(|| Lock::left_by(&deploy));
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
        self.reached_all().map(|deploy| deploy.release).find(|&release| !self.is_marked(release))
    }

    /// Deploys that reached the whole fleet, newest first.
    fn reached_all(&self) -> impl Iterator<Item = &Deploy> {
        let whole = |past: &&Past| past.switched && past.deploy.policy.target.is_all();
        self.past.iter().rev().filter(whole).map(|past| &past.deploy)
    }

    /// The releases of which [`History::is_marked`] holds, found in one pass: a log grows for years.
    fn marked(&self) -> BTreeSet<ReleaseId> {
        let (mut releases, mut marked) = (BTreeMap::new(), BTreeSet::new());
        for Past { deploy, .. } in &self.past {
            releases.insert(deploy.id, deploy.release);
            match deploy.kind {
                Kind::Rollout => drop(marked.remove(&deploy.release)),
                Kind::Rollback { of } => marked.extend(releases.get(&of)),
                Kind::Halt { .. } => {}
            }
        }
        marked
    }

    /// Where a rollback may go, newest first, each once; not to any of `except`. Under `singleton`, only to what was
    /// deployed so: other releases may run beside what they replace.
    fn ways_back(&self, except: &[ReleaseId], policy: &Policy) -> Vec<ReleaseId> {
        let mut passed = self.marked();
        passed.extend(except);
        let alone = |deploy: &&Deploy| deploy.policy.limits.singleton || !policy.limits.singleton;
        let releases = self.reached_all().filter(alone).map(|deploy| deploy.release);
        releases.filter(|release| passed.insert(*release)).collect()
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
        self.check_own_lock(&proposal.wish)?;
        let Plan { kind, release, policy, taken_back } = match proposal.wish {
            Wish::Rollout { release, policy, again } => self.plan_rollout(release, policy, again)?,
            Wish::Halt { hand_back } => self.plan_halt(hand_back)?,
            Wish::Resume => self.plan_resume()?,
            Wish::Abort => self.plan_abort()?,
            Wish::RollBack { to } => self.plan_rollback(to)?,
        };
        let highest = self.past.iter().map(|past| past.deploy.epoch).max().unwrap_or_default().max(seen);
        let mut deploy = Deploy {
            id: proposal.id,
            service: self.service.clone(),
            epoch: highest.next(),
            kind,
            parent: proposal.parent,
            release,
            fallback: self.ways_back(&[release, taken_back.unwrap_or(release)], &policy).first().copied(),
            policy,
            reason: proposal.reason,
            actor: proposal.actor,
            created: proposal.created,
            warrant: None,
            blame: proposal.blame,
        };
        deploy.warrant = self.backed(&deploy, proposal.backing)?;
        if let Some(Signed { of: warrant, .. }) = &deploy.warrant {
            // Members go nowhere else.
            deploy.fallback = warrant.fallback.filter(|_| warrant.release == deploy.release);
        }
        Ok(deploy)
    }

    /// The warrant that a deploy stands on.
    fn backed(&self, deploy: &Deploy, by: Backing) -> Result<Option<Signed<Warrant>>, ProposeError> {
        match by {
            Backing::Nobody => Ok(None),
            Backing::Signed(signed) => match differs(deploy, &signed.of) {
                None => Ok(Some(signed)),
                Some(what) => Err(ProposeError::OtherWarrant { what }),
            },
            Backing::InForce => {
                let Some(signed) = self.in_force().and_then(|in_force| in_force.warrant.as_ref()) else {
                    return Ok(None);
                };
                let covers = match deploy.kind {
                    Kind::Halt { .. } => signed.of.names(deploy.release),
                    Kind::Rollback { .. } => signed.of.fallback == Some(deploy.release),
                    Kind::Rollout => false,
                };
                if covers { Ok(Some(signed.clone())) } else { Err(ProposeError::Unsigned) }
            }
        }
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
        let halted = self.halted().ok_or(ProposeError::NothingToResume)?;
        Ok(Plan::like(halted, halted.kind))
    }

    /// What goes on when somebody resumes.
    pub fn halted(&self) -> Option<&Deploy> {
        match self.in_force().map(|deploy| deploy.kind) {
            Some(Kind::Halt { of, .. }) => self.find(of),
            Some(Kind::Rollout | Kind::Rollback { .. }) | None => None,
        }
    }

    fn plan_abort(&self) -> Result<Plan, ProposeError> {
        let under_way = self.past.last().filter(|past| !past.switched).map(|past| &past.deploy);
        let stopped = match under_way.map(|deploy| deploy.kind) {
            Some(Kind::Rollout) => under_way,
            Some(Kind::Halt { of, .. }) => self.find(of).filter(|of| of.kind == Kind::Rollout),
            Some(Kind::Rollback { .. }) | None => None,
        };
        if stopped.is_some() { self.plan_rollback(None) } else { Err(ProposeError::NothingToAbort) }
    }

    fn plan_rollback(&self, to: Option<ReleaseId>) -> Result<Plan, ProposeError> {
        let current = self.in_force().ok_or(ProposeError::NothingToRollBack)?;
        let of = match current.kind {
            Kind::Halt { of, .. } => of,
            Kind::Rollout | Kind::Rollback { .. } => current.id,
        };
        let choices = self.ways_back(&[current.release], &current.policy);
        let release = match to.or(current.fallback) {
            None => return Err(ProposeError::NoFallback { choices }),
            Some(release) if self.is_marked(release) => return Err(ProposeError::Marked { release }),
            Some(release) if !choices.contains(&release) => {
                return Err(ProposeError::NeverSwitched { release, choices });
            }
            Some(release) => release,
        };
        let policy = Policy { target: Target::ALL, ..current.policy.clone().in_turns() };
        Ok(Plan { kind: Kind::Rollback { of }, release, policy, taken_back: Some(current.release) })
    }
}

/// What of a deploy is not what was signed.
fn differs(deploy: &Deploy, warrant: &Warrant) -> Option<&'static str> {
    // Whoever signs may rule a return out.
    let fallback = warrant.fallback.is_none() || warrant.fallback == deploy.fallback;
    [
        ("service", warrant.service == deploy.service),
        ("epoch", warrant.epoch == deploy.epoch),
        ("release", warrant.release == deploy.release),
        ("fallback", fallback),
        ("policy", warrant.bounds.allow(&deploy.policy)),
    ]
    .into_iter()
    .find_map(|(what, same)| (!same).then_some(what))
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
