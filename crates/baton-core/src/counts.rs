//! Where every member stands in a rollout, and how many stand where.

use crate::costs::{Cost, Costs};
use crate::deploy::{Deploy, Kind};
use crate::fleet::{Fleet, Member, Presence, Silence, Tie};
use crate::report::Refusal;
use crate::units::Millis;

/// How many members there are of each sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Heard of within the lease.
    pub live: u32,
    /// Not heard of within the lease, not gone.
    pub silent: u32,
    /// Gone, while they hold a slot.
    pub gone: u32,
    /// Live, healthy, and on the release for the whole bake.
    pub proven: u32,
    /// Of those, the ones that the deploy is for.
    pub proven_meant: u32,
    /// Members that the deploy is for and that are not gone.
    pub meant: u32,
    /// Of those, the live ones.
    pub live_meant: u32,
    /// Members that the deploy is for, and those gone of them that still hold something.
    pub known_meant: u32,
    /// Proven with not one connection accepted during the bake.
    pub proven_without_traffic: u32,
    /// Members that take a slot.
    pub open: u32,
    /// Members that the deploy is for and that have, may have or may yet get the release by what was granted.
    pub held: u32,
    /// Members on trial whose end is not known.
    pub unsettled: u32,
    /// Members with a slot that refused.
    pub refused: u32,
    /// Members without a slot that the deploy is for and that cannot stage the release.
    pub unstageable: u32,
    /// Members that tried the release.
    pub tries: u32,
    /// Of those, the ones that failed.
    pub failed: u32,
    /// Of those, the ones that still take a slot.
    pub failed_open: u32,
    /// Generations that run, or may run, beside the one of each member: candidates, and old ones that stand by or drain.
    pub beside: u32,
    /// Live members that serve, healthy, and are not on trial.
    pub available: u32,
    /// Live members with no old generation left.
    pub drained: u32,
    /// Live members that obey a later deploy.
    pub ahead: u32,
    /// The latest phase in which a slot was given, counted from 0.
    pub phase: usize,
}

impl Counts {
    /// Members that are not gone.
    pub const fn present(&self) -> u32 {
        self.live + self.silent
    }

    /// How much of the fleet is silent.
    pub const fn silence(&self) -> Silence {
        Silence { silent: self.silent, of: self.present() }
    }

    /// Members that had their turn and came to an end. Those who fell silent did not: silence must not
    /// move a rollout on.
    pub(crate) const fn settled(&self) -> u32 {
        self.proven + self.refused
    }

    pub(crate) fn add(&mut self, member: &Member, place: &Place<'_>, deploy: &Deploy) {
        let one = |condition: bool| u32::from(condition);
        let slot = matches!(member.tie, Tie::Slot(_));
        let found = member.tie == Tie::Found;
        let live = place.presence == Presence::Live;
        let meant = member.is_meant(&deploy.policy.target);
        self.known_meant += one(meant);
        self.meant += one(meant && place.presence != Presence::Gone);
        self.live_meant += one(meant && live);
        self.proven_meant += one(meant && place.proven);
        self.live += one(live);
        self.silent += one(matches!(place.presence, Presence::Silent { .. }));
        self.gone += one(place.presence == Presence::Gone);
        self.proven += one(place.proven);
        self.open += one(place.open);
        self.held += one(slot || (found && meant));
        self.refused += one(slot && place.refusal.is_some());
        self.unstageable += one(!slot && meant && place.refusal.is_some());
        self.unsettled += one(place.open && place.refusal.is_none() && place.presence != Presence::Gone);
        self.tries += one(slot || (found && deploy.kind == Kind::Rollout));
        self.failed += one(place.failure.is_some());
        self.failed_open += one(place.failure.is_some() && place.open);
        let drains = member.report.as_ref().is_some_and(|report| !report.drained);
        self.beside += one(place.open || (drains && place.presence != Presence::Gone));
        self.ahead += one(live && member.ahead(deploy).is_some());
        self.available += one(live && !place.open && member.is_healthy());
        if let Tie::Slot(grant) = member.tie {
            self.phase = self.phase.max(grant.phase);
        }
        if let Some(report) = &member.report {
            self.proven_without_traffic += one(place.proven && slot && report.bake_connections == 0);
            self.drained += one(live && report.drained);
        }
    }
}

/// How a member failed the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure<'a> {
    /// It refused it.
    Refused(&'a Refusal),
    /// It fell silent between its grant and its proof.
    Silent,
    /// It vanished.
    Gone,
    /// It had proven it and then crashed or lost its health.
    Relapsed,
    /// The release costs it too much.
    Costly(Cost, &'a Costs),
}

/// Where one member stands in a rollout.
pub(crate) struct Place<'a> {
    pub(crate) presence: Presence,
    pub(crate) proven: bool,
    /// Whether it takes a slot.
    pub(crate) open: bool,
    pub(crate) refusal: Option<&'a Refusal>,
    pub(crate) failure: Option<Failure<'a>>,
}

/// A fleet, the deploy in force, and the time at which they are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) deploy: &'a Deploy,
    pub(crate) now: Millis,
}

impl<'a> Moment<'a> {
    /// What the release costs the members that have told so in this deploy.
    pub(crate) fn costs(&self) -> impl Iterator<Item = &'a Costs> + use<'a> {
        let deploy = self.deploy;
        let told = move |member: &&Member| member.standing(deploy).is_some();
        let members = self.fleet.members().map(|(_, member)| member).filter(told);
        members.filter_map(|member| member.report.as_ref()).map(|report| &report.costs)
    }

    pub(crate) fn place(&self, member: &'a Member) -> Place<'a> {
        let presence = member.presence(self.now);
        let proven = presence == Presence::Live && member.proves(self.deploy);
        let open = match member.tie {
            Tie::Slot(_) => !proven,
            // Somebody who may still be on trial from an earlier deploy is as unproven as anybody.
            Tie::Leftover => true,
            Tie::Found | Tie::Nothing => presence != Presence::Gone && member.may_be_on_trial(),
        };
        let refusal = member.refusal(self.deploy);
        Place { presence, proven, open, refusal, failure: self.failure(member, presence, proven, refusal) }
    }

    fn failure(
        &self,
        member: &'a Member,
        presence: Presence,
        proven: bool,
        refusal: Option<&'a Refusal>,
    ) -> Option<Failure<'a>> {
        let relapsed = || member.has_relapsed(self.deploy);
        match (member.tie, self.deploy.kind) {
            (Tie::Slot(_), _) if relapsed() => Some(Failure::Relapsed),
            (Tie::Slot(grant), _) => match (presence, refusal) {
                (Presence::Gone, _) => Some(Failure::Gone),
                (Presence::Live | Presence::Silent { .. }, Some(why)) => Some(Failure::Refused(why)),
                (Presence::Live, None) => (grant.proven && !proven).then_some(Failure::Relapsed),
                (Presence::Silent { .. }, None) => {
                    (!grant.proven && self.fleet.is_overdue(member, self.now)).then_some(Failure::Silent)
                }
            },
            // Members that were on the release before count when it is new, not when all go back to it.
            (Tie::Found, Kind::Rollout) => relapsed().then_some(Failure::Relapsed),
            (Tie::Found, Kind::Rollback { .. } | Kind::Halt { .. }) => None,
            (Tie::Nothing | Tie::Leftover, _) => None,
        }
    }
}
