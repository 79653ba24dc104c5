//! From what servers decide and people want to what is in the store and everybody is told.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;

use super::{Ask, Asked, Commit, Event, World, index_of, most};
use crate::deploy::{Kind, PhaseSize, Policy};
use crate::fleet::Grant;
use crate::history::{ProposeError, Wish};
use crate::ids::{DeployId, Epoch, MemberId};
use crate::limits::Limits;
use crate::rollout::slots;
use crate::simulate::End;
use crate::simulate::member::{Member, Order};
use crate::simulate::release::Release;
use crate::simulate::server::{Change, Changed, Refused};
use crate::simulate::store::{Looked, Version};
use crate::target::Amount;
use crate::units::Millis;

/// How long after a refusal, or without an answer, a person asks again.
const ASK_AGAIN: Millis = Millis::from_secs(1);
/// How often a person asks: then it is given up.
const ASKS_MAX: u32 = 600;
/// What a member said this long ago has come to every server that can look.
const SPREAD: Millis = Millis::from_secs(5);

impl World {
    pub(super) fn decide_soon(&mut self, number: usize) {
        let batch = self.batch;
        if let Some(server) = self.servers.get_mut(number).filter(|server| server.up && !server.deciding) {
            server.deciding = true;
            self.push(batch, Event::Decide { server: number });
        }
    }

    /// A server decides. Returns how the rollout has ended, where it has.
    pub(super) fn decide(&mut self, number: usize) -> Option<End> {
        let now = self.now();
        let server = self.servers.get_mut(number).filter(|server| server.up)?;
        server.deciding = false;
        if server.writing {
            return None;
        }
        let mut next = server.decide(now);
        // What cannot be taken back is decided with what the others know as well.
        if let Some(Change::Propose(_) | Change::Switched(_)) = next.change {
            if !self.has_looked(number) {
                return None;
            }
            next = self.servers.get_mut(number)?.decide(now);
        }
        let server = self.servers.get(number)?;
        let deploy = server.in_force()?;
        let (id, release) = (deploy.id, Release::of(deploy.release));
        let halted = matches!(deploy.kind, Kind::Halt { .. });
        if self.servers.iter().find(|server| server.up).is_some_and(|server| server.number == number) {
            self.proven = next.proven;
        }
        if let Some(objection) = next.objection {
            self.observer.must(false, "P16 the store agrees with a fresh view", || objection);
        }
        self.observer.counted(next.proven, release);
        match &next.change {
            Some(Change::Propose(_)) => self.observer.acted("a deploy of its own"),
            Some(Change::Grant { members, .. }) => {
                self.observer.acted("slots");
                let granted = members.len();
                let what = || format!("{granted} slots were given");
                self.observer.must(!halted, "I7 a halt is sticky", what);
            }
            Some(Change::Switched(_) | Change::Lock(_)) | None => {}
        }
        if let Some(change) = next.change {
            self.write(number, change, None);
        }
        for member in &next.hand_backs {
            self.observer.acted("hand backs");
            self.order(number, member, Order::HandBack { deploy: id });
        }
        self.note_look(number);
        // A server that is behind may see the end of what was before.
        let last = self.accepted.last() == Some(&id);
        self.looked_by = number;
        next.end.filter(|_| last && self.to_come == 0 && self.observer.on_trial() == 0)
    }

    /// A server looks at the store that it shares, if it can.
    pub(super) fn look(&mut self, number: usize) {
        let _ = self.has_looked(number);
    }

    /// Lets a server look at the store that it shares. Returns whether it could.
    fn has_looked(&mut self, number: usize) -> bool {
        let now = self.now();
        let reaches = self.isolated >> number & 1 == 0;
        let Some(store) = &mut self.store else { return true };
        let Some(server) = self.servers.get_mut(number).filter(|server| server.up && reaches && store.up)
        else {
            return false;
        };
        let before = server.in_force().map(|deploy| deploy.id);
        let looked = store.look(server, now);
        let after = server.in_force().map(|deploy| deploy.id);
        match looked {
            Looked::Known | Looked::TakenOver => {}
            Looked::WrittenBack => {
                self.note(|| format!("server {} writes back what the store has lost", number + 1));
            }
            Looked::GivenUp => {
                self.note(|| format!("server {} gives up what the store has lost", number + 1));
            }
        }
        if before != after {
            self.announce(number);
        }
        self.decide_soon(number);
        true
    }

    /// A server writes to the store: what it has seen last must still be the last.
    fn write(&mut self, number: usize, change: Change, ask: Option<Ask>) {
        let life = self.servers.get(number).map_or(0, |server| server.life);
        let commit = |version| Commit { server: number, life, version, change, ask };
        if self.store.is_none() {
            return self.commit(commit(Version::default()));
        }
        self.look(number);
        let version = self.store.as_ref().map_or(Version::default(), |store| store.seen_by(number));
        if let Some(server) = self.servers.get_mut(number) {
            server.writing = true;
        }
        let delay = self.setup.network.delay(&mut self.prng);
        self.push(delay, Event::Commit(Box::new(commit(version))));
    }

    /// A change has reached the store.
    pub(super) fn commit(&mut self, commit: Commit) {
        let Commit { server: number, life, version, change, ask } = commit;
        let now = self.now();
        let Some(server) = self.servers.get_mut(number) else { return };
        if !server.up || server.life != life {
            return self.ask_again(ask);
        }
        server.writing = false;
        let reaches = self.isolated >> number & 1 == 0;
        if let Some(store) = &self.store
            && (!store.up || !reaches || store.version() != version)
        {
            // Unreachable, or somebody was faster: look again.
            self.decide_soon(number);
            return self.ask_again(ask);
        }
        let lost = self.store.is_some() && self.setup.network.loses(&mut self.prng);
        let before = lost.then(|| (server.fleet.clone(), server.history.clone()));
        match server.apply(&change, now) {
            Ok(changed) => {
                self.observe(number, &changed);
                if let Some(store) = &mut self.store {
                    store.put(&self.servers[number]);
                }
                match before {
                    // It is written, and the server does not know: it finds out when it looks.
                    Some((fleet, history)) => {
                        let server = &mut self.servers[number];
                        (server.fleet, server.history) = (fleet, history);
                        if let Some(store) = &mut self.store {
                            store.forget(number, version);
                        }
                        self.ask_again(ask);
                    }
                    None => {
                        if ask.is_some() {
                            self.answered();
                        }
                        self.tell(number, changed);
                    }
                }
                self.hint(number);
            }
            Err(refused) => self.refuse(number, change, ask, &refused),
        }
    }

    /// The other servers are told that something has changed; now and then that gets lost.
    fn hint(&mut self, number: usize) {
        for other in (0..self.servers.len()).filter(|other| *other != number) {
            if let [_, Some(delay)] = self.setup.network.deliveries(&mut self.prng) {
                self.push(delay, Event::Look { server: other });
            }
        }
    }

    fn refuse(&mut self, number: usize, change: Change, ask: Option<Ask>, refused: &Refused) {
        let now = self.now();
        match (change, ask) {
            // A person who was overtaken looks again.
            (_, Some(ask)) if matches!(refused, Refused::Proposal(ProposeError::Conflict { .. })) => {
                self.ask_again(Some(ask));
            }
            (_, Some(_)) => {
                self.answered();
                self.note(|| format!("refused: {refused}"));
            }
            (Change::Propose(proposal), None) => {
                let instead = self.servers.get(number).and_then(|server| server.instead_of(&proposal, now));
                match instead {
                    Some(halt) => self.write(number, Change::Propose(Box::new(halt)), None),
                    None => self.decide_soon(number),
                }
            }
            (Change::Grant { .. } | Change::Switched(_) | Change::Lock(_), None) => self.decide_soon(number),
        }
    }

    /// What is in the store counts, whoever knows of it.
    fn observe(&mut self, number: usize, changed: &Changed) {
        match changed {
            Changed::Begun { again: false } => self.observe_deploy(number),
            Changed::Granted { epoch, members, grant, .. } => {
                self.observe_grants(number, *epoch, members, *grant);
            }
            // The first time counts.
            Changed::Switched if self.switched != self.accepted.last().copied() => {
                self.switched = self.accepted.last().copied();
                self.check_switched(number);
            }
            Changed::Locked => {
                self.observer.locked = self.servers[number].history.lock().is_some();
            }
            Changed::Begun { again: true } | Changed::Switched => {}
        }
    }

    fn observe_deploy(&mut self, number: usize) {
        let alive = self.members.iter().filter(|member| member.alive).count() as u32;
        let Some(server) = self.servers.get(number) else { return };
        let Some(deploy) = server.in_force() else { return };
        let start = server.fleet.in_force().map_or(0, |in_force| in_force.members_at_start);
        let n = if start == 0 { alive } else { start };
        let (policy, limits) = (&deploy.policy, &deploy.policy.limits);
        let forward = deploy.kind == Kind::Rollout;
        let by_least = limits.min_available.filter(|_| forward).map(|least| alive.saturating_sub(least));
        let alone = if limits.singleton { 1 } else { u32::MAX };
        let slots_max = most(policy.max_unhealthy, n).min(by_least.unwrap_or(u32::MAX)).min(alone);
        let first = match (deploy.kind, policy.phases.first()) {
            (Kind::Rollout, Some(phase)) => slots(phase.size, policy.max_unhealthy, n).min(slots_max),
            (Kind::Rollout | Kind::Rollback { .. }, _) => slots_max,
            (Kind::Halt { .. }, _) => 0,
        };
        let runs = most_generations(limits);
        let last = self.accepted.last().copied();
        let follows = self.lossy || deploy.parent == last;
        let (id, parent) = (deploy.id, deploy.parent);
        let release = Release::of(deploy.release);
        let first_time = self.lossy || !self.accepted.contains(&id);
        let text = super::tell::of_deploy(deploy);
        let halted = self.accepted.last().copied().and_then(|last| server.history.find(last));
        let resumed = halted.is_some_and(|before| matches!(before.kind, Kind::Halt { .. }));
        let refused = self.observer.locked && forward && !resumed;
        self.observer.must(!refused, "I7 a lock lets nothing new pass", || text.clone());
        self.observer.begun(release, slots_max, first);
        self.observer.generations_max = runs.map_or(u32::MAX, |most| most.max(self.observer.generations()));
        self.observer.must(follows, "I15 accepted deploys form one order, and none is lost", || {
            format!("{id} follows {parent:?}, and the one before it is {last:?}")
        });
        self.observer
            .must(first_time, "I12 who asks twice gets one deploy", || format!("{id} is there twice"));
        self.accepted.push(id);
        self.proven = 0;
        self.observer.changed_at = self.now();
        self.note(|| text);
    }

    fn observe_grants(&mut self, number: usize, epoch: Epoch, members: &[MemberId], grant: Grant) {
        let Some(deploy) = self.servers.get(number).and_then(|server| server.in_force()) else { return };
        let (target, forward) = (deploy.policy.target.clone(), deploy.kind == Kind::Rollout);
        let start = self.servers[number].fleet.in_force().map_or(0, |in_force| in_force.members_at_start);
        let Policy { max_unhealthy, phases, limits, .. } = &deploy.policy;
        let size = phases.get(grant.phase).filter(|_| forward).map(|phase| phase.size);
        let size = size.unwrap_or(PhaseSize::Share(*max_unhealthy));
        let believed = self.observer.believed();
        let n = if start == 0 { believed } else { start.min(believed) };
        let slots = if limits.singleton { 1 } else { slots(size, *max_unhealthy, n) };
        if let Some(most) = most_generations(limits).filter(|_| self.observer.unsure) {
            // Who is cut off for so long that he counts as gone may run on, beside what there is room for.
            let known = &self.servers[number].fleet;
            let counts = |member: &Member| known.member(&member.id).is_some_and(|known| !known.is_gone());
            let others = self.members.iter().filter(|member| member.alive && !counts(member));
            let others: u32 = others.map(|member| member.glance().generations).sum();
            let before = self.observer.generations_max;
            self.observer.generations_max = before.max(most.saturating_add(others));
        }
        for id in members {
            let Some(index) = index_of(id) else { continue };
            self.observer.granted(index, epoch, grant.bake);
            let meant = self.members.get(index).is_none_or(|member| target.means(&member.labels));
            self.observer
                .must(meant || !forward, "I5 nobody tries a release that is not for it", || id.to_string());
        }
        self.observer.gave(slots);
    }

    /// Tells the members what has come of a change.
    fn tell(&mut self, number: usize, changed: Changed) {
        match changed {
            Changed::Begun { again: false } => self.announce(number),
            Changed::Granted { deploy, members, grant, .. } => {
                let in_force = self.servers.get(number).and_then(|server| server.in_force());
                let bake = in_force.map_or(grant.bake.into(), |in_force| in_force.bake(grant.bake));
                for id in &members {
                    self.order(number, id, Order::Grant { deploy, bake });
                }
            }
            Changed::Locked => self.note(|| "done".into()),
            Changed::Begun { again: true } | Changed::Switched => {}
        }
    }

    /// A person wants something as soon as what was wanted before is answered.
    pub(super) fn wish(&mut self, what: Asked) {
        self.wishes = self.wishes.wrapping_add(1);
        let id = DeployId::from_bytes([self.wishes; 16]);
        self.to_come += 1;
        let server = self.prng.below(self.servers.len() as u64) as usize;
        let ask = Ask { id, what, server, tries: 0 };
        if self.to_come == 1 { self.ask(ask) } else { self.waiting.push_back(ask) }
    }

    /// A person has got an answer, and comes to what is next.
    fn answered(&mut self) {
        self.to_come -= 1;
        if let Some(next) = self.waiting.pop_front() {
            self.push(Millis::ZERO, Event::Ask(Box::new(next)));
        }
    }

    /// A person asks a server.
    pub(super) fn ask(&mut self, ask: Ask) {
        let now = self.now();
        let Some(server) = self.servers.get(ask.server).filter(|server| server.up && !server.writing) else {
            return self.ask_again(Some(ask));
        };
        let change = match ask.what.clone() {
            Asked::Wish(wish) => Change::Propose(Box::new(server.proposal(ask.id, wish, AS_WISHED, now))),
            Asked::Lock(lock) => Change::Lock(lock),
        };
        self.write(ask.server, change, Some(ask));
    }

    /// Who got no answer asks another server, under the same name.
    fn ask_again(&mut self, ask: Option<Ask>) {
        let Some(mut ask) = ask else { return };
        ask.tries += 1;
        ask.server = (ask.server + 1) % self.servers.len().max(1);
        if ask.tries < ASKS_MAX {
            self.push(ASK_AGAIN, Event::Ask(Box::new(ask)));
        } else {
            self.answered();
            self.note(|| "nobody answers, and it is given up".into());
        }
    }

    /// *Switched* means: every member that control can know of has proven the release, or as many as shall have it.
    fn check_switched(&mut self, number: usize) {
        let Some(deploy) = self.servers.get(number).and_then(|server| server.in_force()) else { return };
        let (release, target) = (Release::of(deploy.release), deploy.policy.target.clone());
        let everybody = target.amount == Amount::Share(crate::units::Share::ALL);
        let meant = |(_, member): &(usize, &Member)| member.alive && target.means(&member.labels);
        let (mut of, mut proven, mut stray) = (0, 0, None);
        for (index, member) in self.members.iter().enumerate().filter(meant) {
            let (known, has) = (self.is_known(member), self.observer.has_committed(index, release));
            of += u32::from(known);
            // Where some are enough, one that proved it counts though what it said last is still on its way.
            proven += u32::from(has && (known || !everybody));
            if known && !has {
                stray.get_or_insert_with(|| member.describe());
            }
        }
        let what = || format!("{proven} of {of} have {release}; {}", stray.unwrap_or_default());
        self.observer.must(
            proven >= target.of(of),
            "I11 complete means all live members have proven it",
            what,
        );
    }

    /// Whether every server that can write knows a member and what it last said. What was just said at one, or was said at one
    /// that did not reach the store, has not come to the others.
    fn is_known(&self, member: &Member) -> bool {
        let session = member.session;
        let alone = self.store.is_none();
        let cut = self.isolated >> session & 1 == 1;
        let heard = member.heard.map(|heard| self.now().since(heard.max(self.healed_at)));
        member.reaches(session) && !cut && heard.is_some_and(|since| alone || since > SPREAD)
    }

    /// At the end, when nobody is on trial any more, everybody runs what the end says.
    pub(super) fn check_end(&mut self, end: End) {
        let Some(deploy) = self.servers.get(self.looked_by).and_then(|server| server.in_force()) else {
            return;
        };
        let everybody = deploy.policy.target.amount == Amount::Share(crate::units::Share::ALL);
        let (release, target) = (Release::of(deploy.release), deploy.policy.target.clone());
        let expected = match end {
            End::Switched | End::RolledBack => everybody,
            End::Halted | End::Incomplete | End::Waiting | End::Broken => false,
        };
        let known = |member: &&Member| self.is_known(member) && target.means(&member.labels);
        let stray = self.members.iter().filter(known).find(|member| member.glance().committed != release);
        let stray = stray.filter(|_| expected).map(Member::describe);
        self.observer.must(stray.is_none(), "P9 everybody is where the end says", || {
            format!("{end:?} with {release}, but {}", stray.unwrap_or_default())
        });
    }

    /// A release that a new member may start: one that has reached everybody.
    pub(super) fn has_switched(&self, release: Release) -> bool {
        let past = self.servers.iter().flat_map(|server| server.past());
        past.into_iter().any(|past| past.switched && Release::of(past.deploy.release) == release)
    }

    pub(super) fn wish_of(release: Release, again: bool, policy: Policy) -> Asked {
        Asked::Wish(Wish::Rollout { release: release.id(), policy, again })
    }
}

/// How many generations may run at once by the limits that are numbers.
fn most_generations(limits: &Limits) -> Option<u32> {
    let by_connections = limits.connections.map(|connections| connections.budget / connections.each.max(1));
    let most = [limits.never_more_than, by_connections].into_iter().flatten().min();
    most.filter(|_| !limits.singleton)
}

/// What people give as their reason.
pub(super) const AS_WISHED: &str = "as wished";
