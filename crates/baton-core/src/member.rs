//! What a member does when control wishes something: pure, like the supervisor beneath it.
//!
//! A member never obeys a lower epoch than it has written down, nor an equal one under another id. It writes
//! an epoch down before it acts on it. Orders may come twice, late or not at all: each is obeyed by what it
//! says, and what was missed is said again by control, which sees from the reports what is still to do.

mod message;
mod remembered;
mod staging;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::vec::Vec;

pub use message::{Action, Input, Purpose, Wish};
pub use remembered::{Record, Remembered};
use staging::Staging;

use crate::bake::Bake;
use crate::costs::Costs;
use crate::ids::{DeployId, Epoch, MemberId, ReleaseId};
use crate::report::{Cause, Fetching, Refusal, Report, Seen, Stamp, Standing};
use crate::supervisor::{Running, Status, Ticket, TrialState};
use crate::target::Label;
use crate::trust::FOLLOWING_EPOCHS_MAX;
use crate::units::{Bytes, Millis};

/// How long a member waits before it tries again what it refused.
pub const RETRY: Millis = Millis::from_secs(60);
/// How long it waits before it tries again what it shall run anyway: until then it serves nobody.
pub const RESTORE_RETRY: Millis = Millis::from_secs(5);

/// A slot, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    bake: Bake,
    /// When the release is tried, for the first time or again; nothing while it is.
    again_at: Option<Millis>,
}

/// One member's side of the rollouts.
#[derive(Debug, Clone)]
pub struct Member {
    id: MemberId,
    labels: Vec<Label>,
    /// Of the release of the wish.
    costs: Costs,
    committed: Option<(ReleaseId, Epoch)>,
    seen: Option<Seen>,
    /// Where it is lost which deploy was seen last: one below this epoch is not obeyed, nor another one of it than that which
    /// brought this release.
    floor: Option<(ReleaseId, Epoch)>,
    /// What was proven here before and runs where nothing else can; the first to try last.
    fallbacks: Vec<ReleaseId>,
    /// What is started, or runs, in place of what was lost.
    fallback: Option<ReleaseId>,
    /// The deploy in whose trial the member died with all that it ran, until it is given a slot again.
    killed_in: Option<DeployId>,
    /// A wish whose epoch is being written down.
    remembering: Option<Wish>,
    wish: Option<Wish>,
    /// A deploy that is not believed: not obeyed and not written down, and told to control.
    untrusted: Option<(Seen, Refusal)>,
    staging: Staging,
    slot: Option<Slot>,
    status: Status,
    /// What has baked here and is being written down as committed.
    committing: Option<ReleaseId>,
    refusal: Option<Refusal>,
    attempts: u32,
    relapses: u32,
    /// Of what a member starts that has nothing.
    base: Staging,
    base_tried: bool,
    /// What the member runs without a slot, until it serves or has failed to: nothing is tried before that.
    restoring: Option<ReleaseId>,
    /// The same when it could not be launched for now, and when it is tried again.
    delayed: Option<(ReleaseId, Millis)>,
}

impl Member {
    /// A member with what it has on disk.
    pub fn new(id: MemberId, seen: Option<Seen>, committed: Option<(ReleaseId, Epoch)>) -> Self {
        let (seen, committed) = (seen.into(), committed.into());
        Self::remembering(id, &Remembered { seen, committed, ..Remembered::default() })
    }

    /// A member with what it finds on its disk, some of which may be lost.
    pub fn remembering(id: MemberId, remembered: &Remembered) -> Self {
        let (seen, committed) = (remembered.seen(), remembered.committed());
        Self {
            id,
            labels: Vec::new(),
            costs: Costs::default(),
            committed,
            seen,
            floor: remembered.floor(),
            fallbacks: remembered.fallbacks(),
            fallback: None,
            killed_in: remembered.killed_in,
            remembering: None,
            wish: None,
            untrusted: None,
            staging: Staging::Wanted,
            slot: None,
            status: Status::default(),
            committing: None,
            refusal: None,
            attempts: 0,
            relapses: 0,
            base: Staging::Wanted,
            base_tried: false,
            restoring: committed.map(|(release, _)| release),
            delayed: None,
        }
    }

    /// The same member, which can be chosen by these labels.
    #[must_use]
    pub fn labelled(self, labels: Vec<Label>) -> Self {
        Self { labels, ..self }
    }

    /// Takes in what happened and answers with what to do.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Wish(wish) => self.hear(wish, &mut out),
            Input::Untrusted(seen, refusal) => self.distrust(seen, refusal),
            Input::Parted => self.untrusted = None,
            Input::Remembered(seen) => self.take_up(seen, &mut out),
            Input::NotRemembered(seen) => {
                self.remembering.take_if(|wish| wish.seen == seen);
            }
            Input::Grant { deploy, bake } => self.take_slot(now, deploy, bake),
            Input::HandBack { deploy } => self.give_back(deploy, &mut out),
            Input::Fetching(release, fetching) => self.on_fetching(release, fetching),
            Input::Staged(release) => self.on_staged(now, release, &mut out),
            Input::NotStaged(release, refusal) => self.on_not_staged(now, release, refusal),
            Input::Committed(release, epoch) => {
                self.committed = Some((release, epoch));
                self.committing.take_if(|committing| *committing == release);
            }
            Input::NotCommitted(release, refusal) => self.on_not_committed(now, release, refusal),
            Input::Lost(release) => self.lose(release, &mut out),
            Input::Delayed(release) => {
                // A slot for something else is used meanwhile: nobody knows whether it ever gets what it lacks.
                self.restoring.take_if(|restoring| *restoring == release);
                self.delayed = Some((release, now + RESTORE_RETRY));
            }
            Input::Used(release, memory, before) => self.on_used(release, memory, before),
            Input::Stands(status) => self.on_status(now, status),
            Input::Woken => {}
        }
        self.pass_time(now, &mut out);
        out
    }

    /// When to call [`Member::step`] with [`Input::Woken`] if nothing else happens before.
    pub fn deadline(&self) -> Option<Millis> {
        let restores_at = self.delayed.filter(|_| self.may_restore()).map(|(_, at)| at);
        let others = [self.staging.again_at(), self.base.again_at(), self.tries_at()];
        others.into_iter().chain([restores_at]).flatten().min()
    }

    /// What to tell control now. Whoever sends it stamps it.
    pub fn report(&self) -> Report {
        Report {
            member: self.id.clone(),
            stamp: Stamp::default(),
            seen: self.untrusted.as_ref().map(|(seen, _)| *seen).or(self.seen),
            committed: self.committed,
            running: self.status.serving.and_then(Running::id),
            healthy: self.status.healthy,
            standing: self.standing(),
            fetching: self.staging.fetching().or(self.base.fetching()),
            attempts: self.attempts,
            relapses: self.relapses,
            standby: self.status.standby.and_then(Running::id),
            drained: self.status.draining == 0 && self.status.standby.is_none(),
            bake_connections: self.status.accepted.unwrap_or(0),
            costs: self.costs,
            labels: self.labels.clone(),
        }
    }

    /// The releases that must stay on disk, whatever runs: what the member starts by itself, and what it shall have.
    pub fn needs(&self) -> impl Iterator<Item = ReleaseId> {
        let wished = [self.wish, self.remembering].into_iter().flatten();
        let wished = wished.flat_map(|wish| [Some(wish.release), wish.base]).flatten();
        wished.chain(self.committed.map(|(release, _)| release)).chain(self.committing).chain(self.restoring)
    }

    /// What the member starts by itself.
    pub fn committed(&self) -> Option<(ReleaseId, Epoch)> {
        self.committed
    }

    /// Whether the member is about to run what it has committed to: it is prepared or launched, or it is tried again when it may
    /// have got what it lacked. Nothing else takes its place meanwhile.
    pub fn is_restoring(&self) -> bool {
        let delayed = self.delayed.map(|(release, _)| release);
        let committed = self.committed.map(|(release, _)| release);
        let mut anyway = [committed, self.fallback].into_iter().flatten();
        anyway.any(|release| [self.restoring, delayed].contains(&Some(release)))
    }

    /// What runs anyway is not what it was. What was proven here before is launched in its place, if nothing else runs; if that
    /// must not be launched either, it is lost too.
    fn lose(&mut self, release: ReleaseId, out: &mut Vec<Action>) {
        self.committed.take_if(|(committed, _)| *committed == release);
        self.restoring.take_if(|restoring| *restoring == release);
        self.fallbacks.retain(|fallback| *fallback != release);
        if self.committed.is_some() || !self.may_restore() {
            return;
        }
        self.fallback = self.fallbacks.pop();
        if let Some(release) = self.fallback {
            self.restoring = Some(release);
            out.push(Action::Try { release, ticket: Ticket::Restore, bake: Bake::NONE });
        }
    }

    fn standing(&self) -> Standing {
        if let Some((_, refusal)) = &self.untrusted {
            return Standing::Refused(refusal.clone());
        }
        let Some(wish) = &self.wish else { return Standing::Behind };
        if let Some((Ticket::Deploy { .. }, trial)) = &self.status.trial {
            match trial {
                TrialState::Trying => return Standing::Trying,
                TrialState::Proving => return Standing::Proving,
                TrialState::Proven | TrialState::Refused { .. } | TrialState::Dropped => {}
            }
        }
        if let Some(refusal) = &self.refusal {
            return Standing::Refused(refusal.clone());
        }
        // Also while it is being started again: what has proven itself here needs no slot.
        match (&self.staging, &self.slot) {
            _ if self.has_proven(wish.release) => Standing::Proven,
            _ if self.committing == Some(wish.release) => Standing::Proving,
            (Staging::Failed { refusal, .. }, _) => Standing::Refused(refusal.clone()),
            (Staging::Done, Some(_)) => Standing::Granted,
            (Staging::Done, None) => Standing::Staged,
            (Staging::Wanted | Staging::Under(_), _) => Standing::Behind,
        }
    }

    fn has_proven(&self, release: ReleaseId) -> bool {
        self.committed.is_some_and(|(committed, _)| committed == release)
    }

    /// When the slot is to be used: not before what the member runs anyway serves, and not for what has proven itself.
    fn tries_at(&self) -> Option<Millis> {
        let wish = self.wish.filter(|wish| self.restoring.is_none() && !self.has_proven(wish.release));
        wish.and(self.slot.as_ref()).and_then(|slot| slot.again_at)
    }

    /// A wish counts when its epoch is the greatest yet. It is written down before anything follows from it.
    fn hear(&mut self, wish: Wish, out: &mut Vec<Action>) {
        let known = self.remembering.as_ref().map(|wish| wish.seen).or(self.seen);
        self.untrusted.take_if(|(untrusted, _)| untrusted.epoch <= wish.seen.epoch);
        match known {
            Some(known) if wish.seen.epoch < known.epoch => {}
            Some(known) if wish.seen == known => {
                // Heard before, perhaps in an earlier life: it is on disk already.
                if self.wish.is_none() && self.remembering.is_none() {
                    self.begin(wish);
                }
            }
            // Two deploys with one number: one of the servers is wrong, and nobody can tell which.
            Some(known) if wish.seen.epoch == known.epoch => {}
            None if self.may_be_old(wish) => self.refuse_as_old(wish.seen),
            Some(_) | None => {
                self.remembering = Some(wish);
                out.push(Action::Remember(wish.seen));
            }
        }
    }

    /// Where it is lost what was seen last, nothing below what else is known counts.
    fn may_be_old(&self, wish: Wish) -> bool {
        self.floor.is_some_and(|(release, floor)| {
            wish.seen.epoch < floor || wish.seen.epoch == floor && wish.release != release
        })
    }

    fn refuse_as_old(&mut self, seen: Seen) {
        let floor = self.floor.map(|(_, epoch)| epoch).unwrap_or_default();
        let detail = format!(
            "the record of the newest deploy that this member has seen is lost, and {} may be older than that: it obeys what \
             comes after {floor}; deploy again",
            seen.epoch
        );
        self.distrust(seen, Refusal { cause: Cause::Disk, detail });
    }

    /// What is not believed is as if it had not been said, but for what control is told. What was believed before, such
    /// as a deploy signed by a key that was revoked since, goes no further.
    fn distrust(&mut self, seen: Seen, refusal: Refusal) {
        let known = self.remembering.as_ref().map(|wish| wish.seen).or(self.seen);
        let known = known.map(|known| known.epoch).unwrap_or_default();
        // Whoever hears of a number goes on counting from there, so that none is repeated which is far away.
        if !(known.0..=known.0.saturating_add(FOLLOWING_EPOCHS_MAX)).contains(&seen.epoch.0) {
            return;
        }
        if self.obeys(seen.deploy) {
            self.slot = None;
        }
        self.untrusted = Some((seen, refusal));
    }

    fn take_up(&mut self, seen: Seen, out: &mut Vec<Action>) {
        if let Some(wish) = self.remembering.take_if(|wish| wish.seen == seen) {
            self.seen = Some(seen);
            let tries_other = self.wish.is_none_or(|before| before.release != wish.release);
            let trying = matches!(self.status.trial, Some((Ticket::Deploy { .. }, TrialState::Trying)));
            // A candidate that nobody was switched to is dropped for another release; a halt lets it finish.
            if trying && tries_other && wish.purpose != Purpose::Halt {
                out.push(Action::HandBack);
            }
            self.begin(wish);
        }
    }

    fn begin(&mut self, wish: Wish) {
        let before = self.wish.replace(wish);
        self.slot = None;
        self.refusal = None;
        (self.attempts, self.relapses) = (0, 0);
        if before.is_none_or(|before| before.release != wish.release) {
            self.costs = Costs::default();
            self.staging = Staging::Wanted;
            self.committing = None;
        }
        // Who deploys the same once more has put right what was wrong with it.
        if matches!(self.staging, Staging::Failed { .. }) {
            self.staging = Staging::Wanted;
        }
        if before.is_none_or(|before| before.base != wish.base) {
            self.base = Staging::Wanted;
        }
    }

    fn obeys(&self, deploy: DeployId) -> bool {
        self.wish.is_some_and(|wish| wish.seen.deploy == deploy)
    }

    fn take_slot(&mut self, now: Millis, deploy: DeployId, bake: Bake) {
        let purpose = self.wish.map(|wish| wish.purpose);
        if !self.obeys(deploy) || self.standing() != Standing::Staged || purpose == Some(Purpose::Halt) {
            return;
        }
        self.slot = Some(Slot { bake, again_at: Some(now) });
        if self.killed_in.take() == Some(deploy) {
            self.attempts += 1;
            let detail = "everything here was killed at once while it was on trial, as the kernel does when memory runs out \
                          (memory.oom.group)";
            self.refuse(now, Refusal { cause: Cause::Memory, detail: detail.into() });
        }
    }

    fn try_out(&mut self, bake: Bake, out: &mut Vec<Action>) {
        let Some(wish) = self.wish else { return };
        self.attempts += 1;
        let ticket = Ticket::Deploy { id: wish.seen.deploy, epoch: wish.seen.epoch };
        out.push(Action::Try { release: wish.release, ticket, bake });
    }

    fn give_back(&mut self, deploy: DeployId, out: &mut Vec<Action>) {
        let on_trial = matches!(
            self.status.trial,
            Some((Ticket::Deploy { .. }, TrialState::Trying | TrialState::Proving))
        );
        let Some(wish) = self.wish.filter(|_| self.obeys(deploy)) else { return };
        // A halt ends what is under way, and brings nothing.
        if on_trial {
            out.push(Action::HandBack);
        } else if wish.purpose != Purpose::Halt && self.is_warm(wish.release) && self.staging == Staging::Done
        {
            let ticket = Ticket::Deploy { id: wish.seen.deploy, epoch: wish.seen.epoch };
            out.push(Action::GoBack { release: wish.release, ticket });
        }
    }

    /// Whether a generation of this release stands by.
    fn is_warm(&self, release: ReleaseId) -> bool {
        self.status.standby == Some(Running::Release(release))
    }

    fn on_fetching(&mut self, release: ReleaseId, fetching: Fetching) {
        let Some(wish) = self.wish else { return };
        if wish.release == release {
            self.staging.comes(fetching);
        }
        if wish.base == Some(release) {
            self.base.comes(fetching);
        }
    }

    fn on_staged(&mut self, now: Millis, release: ReleaseId, out: &mut Vec<Action>) {
        let Some(wish) = self.wish else { return };
        if wish.release == release {
            self.costs.fetched =
                self.staging.fetching().map(|fetching| fetching.total).or(self.costs.fetched);
            self.staging = Staging::Done;
            // Fetched anew after it could not be launched: the slot is still there to be used.
            let unused = self.slot.as_mut().filter(|slot| slot.again_at.is_none());
            if let Some(slot) = unused.filter(|_| !is_on_trial(&self.status)) {
                slot.again_at = Some(now);
            }
        }
        if wish.base == Some(release) {
            self.base = Staging::Done;
            if self.is_bare() {
                self.base_tried = true;
                self.restoring = Some(release);
                out.push(Action::Try { release, ticket: Ticket::Restore, bake: Bake::NONE });
            }
        }
    }

    /// No release runs here and none is committed. What came with the container is no release.
    fn is_bare(&self) -> bool {
        let runs_release = matches!(self.status.serving, Some(Running::Release(_)));
        self.committed.is_none() && !runs_release && !self.base_tried
    }

    /// Whether a launch on this ticket is still wanted, which took time to prepare: a deploy must still be the
    /// one to obey, and this member must have a slot of it.
    pub fn wants(&self, ticket: Ticket) -> bool {
        match ticket {
            Ticket::Deploy { id, .. } => self.obeys(id) && self.slot.is_some(),
            Ticket::Restore | Ticket::Replace | Ticket::Reload => true,
        }
    }

    /// Whether going back on this ticket to what is kept warm is still wanted, which took time to prepare: that needs no slot,
    /// but the deploy must still be the one to obey.
    pub fn wants_back(&self, ticket: Ticket) -> bool {
        match ticket {
            Ticket::Deploy { id, .. } => self.obeys(id),
            Ticket::Restore | Ticket::Replace | Ticket::Reload => true,
        }
    }

    /// Whether a release that came without a slot may be committed: only what the whole fleet runs, by a
    /// member that has nothing.
    pub fn may_commit_unasked(&self, release: ReleaseId) -> bool {
        self.committed.is_none() && self.wish.is_some_and(|wish| wish.base == Some(release))
    }

    fn on_not_committed(&mut self, now: Millis, release: ReleaseId, refusal: Refusal) {
        self.committing.take_if(|committing| *committing == release);
        self.restoring.take_if(|restoring| *restoring == release);
        if self.wish.is_some_and(|wish| wish.release == release) {
            self.refuse(now, refusal);
        }
    }

    /// The trial failed; the slot is kept, and used again later.
    fn refuse(&mut self, now: Millis, refusal: Refusal) {
        self.refusal = Some(refusal);
        self.rest(now);
    }

    fn rest(&mut self, now: Millis) {
        if let Some(slot) = &mut self.slot {
            slot.again_at = Some(now + RETRY);
        }
    }

    fn on_not_staged(&mut self, now: Millis, release: ReleaseId, refusal: Refusal) {
        let Some(wish) = self.wish else { return };
        let failed = Staging::Failed { refusal, again_at: now + RETRY };
        if wish.base == Some(release) {
            self.base = failed.clone();
        }
        if wish.release == release {
            self.staging = failed;
        }
    }

    fn on_status(&mut self, now: Millis, status: Status) {
        let wished = self.wish.map(|wish| Running::Release(wish.release));
        let proven_here = self.committed.map(|(release, _)| Running::Release(release)) == wished;
        let lost = self.status.healthy && self.status.serving == wished && !status.healthy;
        self.relapses += u32::from(proven_here && wished.is_some() && lost && !is_on_trial(&status));
        self.learn(&status);
        let before = core::mem::replace(&mut self.status, status);
        if before.restoring && !self.status.restoring && !self.serves_what_it_restores() {
            self.restoring = None;
        }
        if self.status.trial == before.trial {
            return;
        }
        match self.status.trial.clone() {
            Some((Ticket::Deploy { id, .. }, TrialState::Refused { cause, detail, .. }))
                if self.obeys(id) =>
            {
                self.refuse(now, Refusal { cause, detail });
            }
            // Somebody else's doing, such as a reload: it is tried again like one that failed.
            Some((Ticket::Deploy { id, .. }, TrialState::Dropped)) if self.obeys(id) => self.rest(now),
            Some((Ticket::Deploy { .. }, TrialState::Proven)) => {
                // Nothing is left to be written when that was faster than the news of it.
                let baked = self.status.serving.and_then(Running::id);
                let committed = self.committed.map(|(release, _)| release);
                self.committing = baked.filter(|baked| committed != Some(*baked));
            }
            Some(_) | None => {}
        }
    }

    /// How long the release of the wish took to start and to take over, and the one to start that it is to replace.
    fn learn(&mut self, status: &Status) {
        let serves = self.wish.is_some_and(|wish| status.serving == Some(Running::Release(wish.release)));
        if !serves {
            return;
        }
        (self.costs.startup, self.costs.handover) = (status.started_in, status.handed_over_in);
        if matches!(status.trial, Some((Ticket::Deploy { .. }, TrialState::Proving))) {
            self.costs.startup_before = status.proven_in;
        }
    }

    fn on_used(&mut self, release: ReleaseId, memory: Bytes, before: Option<Bytes>) {
        if self.wish.is_some_and(|wish| wish.release == release) {
            (self.costs.memory, self.costs.memory_before) = (Some(memory), before);
        }
    }

    fn serves_what_it_restores(&self) -> bool {
        self.restoring.is_some_and(|release| self.status.serving == Some(Running::Release(release)))
    }

    /// Whether nothing runs here or is about to that would be in the way of what the member shall run anyway.
    fn may_restore(&self) -> bool {
        let runs_release = matches!(self.status.serving, Some(Running::Release(_)));
        self.restoring.is_none() && !runs_release && !is_on_trial(&self.status)
    }

    /// Tries again what could not be launched, if it is still what this member shall run.
    fn restore_again(&mut self, now: Millis, out: &mut Vec<Action>) {
        let may = self.may_restore();
        let Some((release, _)) = self.delayed.take_if(|(_, at)| may && *at <= now) else { return };
        let committed = self.committed.map(|(release, _)| release);
        if [committed, self.fallback].contains(&Some(release)) || self.may_commit_unasked(release) {
            self.restoring = Some(release);
            out.push(Action::Try { release, ticket: Ticket::Restore, bake: Bake::NONE });
        }
    }

    /// Ends waiting for what the member runs anyway: it serves, and nothing is left to be written about it.
    fn settle(&mut self) {
        let writes = |release| self.may_commit_unasked(release);
        if self.serves_what_it_restores() && !self.restoring.is_some_and(writes) {
            self.restoring = None;
        }
    }

    fn pass_time(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.settle();
        self.restore_again(now, out);
        let Some(wish) = self.wish else { return };
        // What everybody else runs comes first: without it this member serves nobody.
        if let Some(base) = wish.base.filter(|base| *base != wish.release)
            && self.is_bare()
            && self.base.begins(now)
        {
            out.push(Action::Stage(base));
        }
        if self.staging.begins(now) {
            out.push(Action::Stage(wish.release));
        }
        if self.tries_at().is_some_and(|at| at <= now)
            && let Some(slot) = &mut self.slot
        {
            slot.again_at = None;
            let bake = slot.bake;
            self.refusal = None;
            self.try_out(bake, out);
        }
    }
}

fn is_on_trial(status: &Status) -> bool {
    matches!(status.trial, Some((_, TrialState::Trying | TrialState::Proving)))
}
