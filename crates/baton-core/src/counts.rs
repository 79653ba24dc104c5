//! Where every member stands in a rollout, and how many stand where.

use alloc::collections::BTreeMap;

use crate::costs::{Cost, Costs};
use crate::deploy::{Deploy, Kind};
use crate::fleet::{LEASE, Member, Presence, Silence, Tie};
use crate::report::{Refusal, Standing};
use crate::units::Millis;

/// A member with a slot that is silent for this long has failed.
pub(crate) const OVERDUE_AFTER: Millis = Millis(2 * LEASE.0);

/// Numbers that are sums over the members, so that one member can be added and taken off.
macro_rules! sums {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$doc:meta])* $sum:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $sum: u32,)*
            /// The latest phase in which a slot was given, counted from 0.
            pub phase: usize,
        }

        impl $name {
            /// How many sums there are.
            const SUMS: usize = [$(stringify!($sum)),*].len();

            /// Of one member: to which sums it adds, one bit each, the first one last.
            fn bits(&self) -> u32 {
                const { assert!(Self::SUMS <= u32::BITS as usize) };
                [$(self.$sum),*].into_iter().rev().fold(0, |bits, sum| bits << 1 | sum)
            }

            fn add(&mut self, bits: u32) {
                let mut next = one_by_one(bits);
                $(self.$sum += next();)*
            }

            fn take_off(&mut self, bits: u32) {
                let mut next = one_by_one(bits);
                $(self.$sum -= next();)*
            }
        }
    };
}

sums! {
    /// How many members there are of each sort.
    pub struct Counts {
        /// Heard of within the lease.
        live,
        /// Not heard of within the lease, not gone.
        silent,
        /// Gone, while they hold a slot.
        gone,
        /// Known from the state store only, and not gone.
        unheard,
        /// Live, healthy, and on the release for the whole bake.
        proven,
        /// Of those, the ones that the deploy is for.
        proven_meant,
        /// Members that the deploy is for and that are not gone.
        meant,
        /// Of those, the live ones.
        live_meant,
        /// Members that the deploy is for, and those gone of them that still hold something.
        known_meant,
        /// Proven with not one connection accepted during the bake.
        proven_without_traffic,
        /// Members that take a slot.
        open,
        /// Members that the deploy is for and that have, may have or may yet get the release by what was granted.
        held,
        /// Members on trial whose end is not known.
        unsettled,
        /// Members with a slot that refused.
        refused,
        /// Members without a slot that the deploy is for and that cannot stage the release.
        unstageable,
        /// Members that tried the release.
        tries,
        /// Of those, the ones that failed.
        failed,
        /// Of those, the ones that still take a slot.
        failed_open,
        /// Members that failed by their silence.
        overdue,
        /// Generations that run, or may run, beside the one of each member: candidates, and old ones that stand by or
        /// drain.
        beside,
        /// Live members that serve, healthy, and are not on trial.
        available,
        /// Live members with no old generation left.
        drained,
        /// Live members that obey a later deploy.
        ahead,
        /// Live members that have last said that they have the release and do not run it.
        staged,
        /// Live members that have last said that they have a slot or start a candidate.
        trying,
        /// Live members that have last said that the release serves and bakes.
        proving,
        /// Live members that have last said that they refuse the release.
        refusing,
        /// Members that know how long the release and the one before it take to start.
        startup_compared,
        /// Of those, the ones where it is remarkably longer.
        startup_more,
        /// Members that know how much memory the release and the one before it take.
        memory_compared,
        /// Of those, the ones where it is remarkably more.
        memory_more,
    }
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

    /// Whether a cost is remarkably more on most of the members that know, and on how many of how many.
    pub(crate) const fn more(&self, cost: Cost) -> Option<(u32, u32)> {
        let (more, of) = match cost {
            Cost::Startup => (self.startup_more, self.startup_compared),
            Cost::Memory => (self.memory_more, self.memory_compared),
        };
        if 2 * more > of { Some((more, of)) } else { None }
    }

    /// A fleet of this one member, looked at while nothing is in force.
    fn known(member: &Member, presence: Presence) -> Self {
        Self {
            live: u32::from(presence == Presence::Live),
            silent: u32::from(matches!(presence, Presence::Silent { .. })),
            gone: u32::from(presence == Presence::Gone),
            unheard: u32::from(member.report.is_none() && presence != Presence::Gone),
            ..Self::default()
        }
    }

    /// A fleet of this one member.
    fn of(member: &Member, place: &Place<'_>, deploy: &Deploy) -> Self {
        let one = |condition: bool| u32::from(condition);
        let slot = matches!(member.tie, Tie::Slot(_));
        let found = member.tie == Tie::Found;
        let (live, gone) = (place.presence == Presence::Live, place.presence == Presence::Gone);
        let meant = member.is_meant(&deploy.policy.target);
        let report = member.report.as_ref();
        let drained = report.is_some_and(|report| report.drained);
        let no_traffic = report.is_some_and(|report| report.bake_connections == 0);
        let mut counts = Self {
            known_meant: one(meant && (!gone || slot || found)),
            meant: one(meant && !gone),
            live_meant: one(meant && live),
            proven: one(place.proven),
            proven_meant: one(meant && place.proven),
            proven_without_traffic: one(place.proven && slot && no_traffic),
            open: one(place.open),
            held: one(slot || (found && meant)),
            refused: one(slot && place.refusal.is_some()),
            unstageable: one(!slot && meant && place.refusal.is_some()),
            unsettled: one(place.open && place.refusal.is_none() && !gone),
            tries: one(slot || (found && deploy.kind == Kind::Rollout)),
            failed: one(place.failure.is_some()),
            failed_open: one(place.failure.is_some() && place.open),
            overdue: one(place.failure == Some(Failure::Silent)),
            beside: one(place.open || (report.is_some() && !drained && !gone)),
            available: one(live && !place.open && member.is_healthy()),
            drained: one(live && drained),
            ahead: one(live && member.ahead(deploy).is_some()),
            ..Self::known(member, place.presence)
        };
        let standing = member.standing(deploy);
        if let Some(standing) = standing.filter(|_| live) {
            counts.note(standing);
        }
        if let Some(report) = report.filter(|_| standing.is_some()) {
            counts.compare(&report.costs);
        }
        counts
    }

    const fn note(&mut self, standing: &Standing) {
        match standing {
            Standing::Staged => self.staged = 1,
            Standing::Granted | Standing::Trying => self.trying = 1,
            Standing::Proving => self.proving = 1,
            Standing::Refused(_) => self.refusing = 1,
            Standing::Behind | Standing::Proven => {}
        }
    }

    fn compare(&mut self, costs: &Costs) {
        self.startup_compared = u32::from(costs.startup.is_some() && costs.startup_before.is_some());
        self.startup_more = u32::from(costs.is_more(Cost::Startup));
        self.memory_compared = u32::from(costs.memory.is_some() && costs.memory_before.is_some());
        self.memory_more = u32::from(costs.is_more(Cost::Memory));
    }
}

/// Bits, the last one first.
fn one_by_one(mut bits: u32) -> impl FnMut() -> u32 {
    move || {
        let bit = bits & 1;
        bits >>= 1;
        bit
    }
}

/// What one member adds to the counts. There are as many of these as members, so they are small.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// To which sums it adds.
    bits: u32,
    /// The phase in which it was given a slot.
    phase: Option<usize>,
}

impl Part {
    /// Whether it is one that was heard of within the lease.
    pub(crate) const fn is_live(&self) -> bool {
        // The first of the sums.
        self.bits & 1 == 1
    }

    /// As it is seen from there.
    pub(crate) fn of(member: &Member, scene: Scene<'_>) -> Self {
        let Some(moment) = scene.moment() else {
            return Self { bits: Counts::known(member, member.presence(scene.now)).bits(), phase: None };
        };
        let phase = if let Tie::Slot(grant) = member.tie { Some(grant.phase) } else { None };
        Self { bits: Counts::of(member, &moment.place(member), moment.deploy).bits(), phase }
    }
}

/// The counts of a fleet, from which a member can be taken off as it was added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    counts: Counts,
    /// How many slots were given in each phase.
    phases: BTreeMap<usize, u32>,
}

impl Tally {
    pub(crate) fn add(&mut self, part: &Part) {
        self.counts.add(part.bits);
        if let Some(phase) = part.phase {
            *self.phases.entry(phase).or_default() += 1;
        }
    }

    /// Takes off what was added.
    pub(crate) fn take_off(&mut self, part: &Part) {
        self.counts.take_off(part.bits);
        let Some(phase) = part.phase else { return };
        let Some(slots) = self.phases.get_mut(&phase) else { return };
        *slots -= 1;
        if *slots == 0 {
            self.phases.remove(&phase);
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let phase = self.phases.last_key_value().map_or(0, |(phase, _)| *phase);
        Counts { phase, ..self.counts }
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
    /// It was asked to stop in the middle of its try, as more such members were than others.
    Stopped,
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

/// From where members are looked at: what is in force, if anything is, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) deploy: Option<&'a Deploy>,
    /// The last moment at which most of the fleet was silent.
    pub(crate) excused_until: Millis,
    pub(crate) now: Millis,
}

impl<'a> Scene<'a> {
    const fn moment(self) -> Option<Moment<'a>> {
        let Self { deploy, excused_until, now } = self;
        match deploy {
            Some(deploy) => Some(Moment { deploy, excused_until, now }),
            None => None,
        }
    }
}

/// The deploy in force, and when members are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) deploy: &'a Deploy,
    pub(crate) excused_until: Millis,
    pub(crate) now: Millis,
}

impl Moment<'_> {
    pub(crate) fn place<'m>(&self, member: &'m Member) -> Place<'m> {
        let presence = member.presence(self.now);
        let proven = presence == Presence::Live && member.proves(self.deploy);
        let open = match member.tie {
            Tie::Slot(_) => !proven,
            // Somebody who may still be on trial from an earlier deploy is as unproven as anybody, and nobody waits for it any
            // longer than for anybody.
            Tie::Leftover => presence != Presence::Gone,
            Tie::Found | Tie::Nothing => presence != Presence::Gone && member.may_be_on_trial(),
        };
        let refusal = member.refusal(self.deploy);
        Place { presence, proven, open, refusal, failure: self.failure(member, presence, proven, refusal) }
    }

    fn failure<'m>(
        &self,
        member: &'m Member,
        presence: Presence,
        proven: bool,
        refusal: Option<&'m Refusal>,
    ) -> Option<Failure<'m>> {
        let relapsed = || member.has_relapsed(self.deploy);
        match (member.tie, self.deploy.kind) {
            (Tie::Slot(_), _) if relapsed() => Some(Failure::Relapsed),
            (Tie::Slot(grant), _) => match (presence, refusal) {
                (_, Some(why)) => Some(Failure::Refused(why)),
                (Presence::Gone, None) => Some(Failure::Gone),
                // Another server may have heard of the proof, and written it down, before its member is heard of here.
                (Presence::Live, None) => (grant.proven && !proven && member.has_committed(self.deploy))
                    .then_some(Failure::Relapsed),
                (Presence::Silent { .. }, None) => {
                    (!grant.proven && self.is_overdue(member)).then_some(Failure::Silent)
                }
            },
            // Members that were on the release before count when it is new, not when all go back to it.
            (Tie::Found, Kind::Rollout) => relapsed().then_some(Failure::Relapsed),
            (Tie::Found, Kind::Rollback { .. } | Kind::Halt { .. }) => None,
            (Tie::Nothing | Tie::Leftover, _) => None,
        }
    }

    /// Whether a member has been silent long enough to be blamed for it. A fleet that falls silent at once
    /// takes up to a lease to look so, and as long to come back, which must not look like single failures.
    fn is_overdue(&self, member: &Member) -> bool {
        self.now.since(member.heard_at.max(self.excused_until)) >= OVERDUE_AFTER
    }
}
