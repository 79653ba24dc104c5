//! The simulated world: virtual time, a network that loses, doubles, delays and reorders, and what befalls
//! the actors from outside.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use super::control::Control;
use super::member::{Effect, Fate, Member, NEW, OLD, OTHER, Order, Release};
use super::observer::Observer;
use super::prng::Prng;
use super::queue::Queue;
use super::scenario::{Program, Scenario, Trouble};
use super::{DELAY_MAX, End, HEARTBEAT, Moment, Outcome};
use crate::deploy::{Kind, PhaseSize};
use crate::fleet::Heard;
use crate::history::Wish;
use crate::ids::MemberId;
use crate::limits::Limits;
use crate::report::{Report, Seen};
use crate::rollout::slots;
use crate::units::{Millis, Share};

/// By this time every rollout must have come to an end, whatever happens to it.
const QUIET_BY: Millis = Millis::from_secs(3 * 3600);

enum Event {
    Wake { member: u32, token: u32 },
    Crash { member: u32, launch: u32 },
    ToMember { member: u32, order: Order },
    ToControl { member: u32, report: Box<Report> },
    Goodbye { member: u32 },
    Decide,
    Heartbeats,
    Outside(Outside),
}

/// What befalls the actors.
#[derive(Debug, Clone, Copy)]
enum Outside {
    Deploy(Release),
    Halt { resume_after: Millis },
    Resume,
    Join,
    Leave { goodbye: bool },
    RestartMember,
    SilenceBegins,
    SilenceEnds,
    ControlDies,
    ControlStarts,
}

pub(super) struct World<'a> {
    scenario: &'a Scenario,
    seed: u64,
    program: Program,
    timeline: Vec<Moment>,
    prng: Prng,
    queue: Queue<Event>,
    /// Events from outside that are still to come: nothing ends before them.
    to_come: u32,
    members: Vec<Member>,
    control: Control,
    observer: Observer,
    deciding: bool,
    /// How long control collects reports before it decides.
    batch: Millis,
    effects: Vec<Effect>,
}

impl<'a> World<'a> {
    pub(super) fn new(seed: u64, scenario: &'a Scenario, control: Control) -> Self {
        let size = scenario.members;
        let most = scenario.slots_max();
        let mut world = Self {
            scenario,
            seed,
            program: scenario.program.unwrap_or_else(|| Program::of(scenario.trouble)),
            timeline: Vec::new(),
            prng: Prng::new(seed),
            queue: Queue::new(),
            to_come: 0,
            members: Vec::new(),
            control,
            observer: Observer::new(most, scenario.first_slots()),
            deciding: false,
            batch: Millis(u64::from(size / 8)),
            effects: Vec::new(),
        };
        let limits = &scenario.policy.limits;
        let by_connections = limits.connections.map(|connections| connections.budget / connections.each);
        let limit = [limits.never_more_than, by_connections].into_iter().flatten().min();
        world.observer.generations_max = limit.unwrap_or(u32::MAX);
        let first = world.control.in_force().map(|deploy| Seen { epoch: deploy.epoch, deploy: deploy.id });
        for _ in 0..size {
            world.join(OLD, first);
        }
        world.push(HEARTBEAT, Event::Heartbeats);
        world.plan();
        world
    }

    fn now(&self) -> Millis {
        self.observer.now
    }

    fn push(&mut self, after: Millis, event: Event) {
        self.to_come += u32::from(matches!(event, Event::Outside(_)));
        self.queue.push(self.now() + after, event);
    }

    /// Draws what will befall the actors.
    fn plan(&mut self) {
        let secs = Millis::from_secs;
        let mut plan = Vec::new();
        let later = |prng: &mut Prng, least, most| prng.between(secs(least), secs(most));
        plan.push((secs(1), Outside::Deploy(NEW)));
        let at = later(&mut self.prng, 2, 60);
        let prng = &mut self.prng;
        match self.scenario.trouble {
            Trouble::MassSilence => {
                plan.push((at, Outside::SilenceBegins));
                plan.push((at + later(prng, 20, 150), Outside::SilenceEnds));
            }
            Trouble::HaltAndResume => {
                let resume_after = later(prng, 1, 60);
                plan.push((at, Outside::Halt { resume_after }));
            }
            Trouble::Superseded => plan.push((at, Outside::Deploy(OTHER))),
            Trouble::JoinsAndLeaves => {
                for _ in 0..=self.scenario.members / 40 {
                    plan.push((later(prng, 0, 120), Outside::Join));
                    let goodbye = prng.chance(Share::from_percent(80));
                    plan.push((later(prng, 0, 120), Outside::Leave { goodbye }));
                }
                for _ in 0..self.scenario.members / 100 {
                    plan.push((later(prng, 0, 120), Outside::RestartMember));
                }
            }
            Trouble::None
            | Trouble::FlakyStart
            | Trouble::CrashAtStart
            | Trouble::CrashAfterHalfAMinute
            | Trouble::RefusedMembers => {}
        }
        if prng.chance(Share::from_percent(30)) && self.scenario.program.is_none() {
            let at = later(prng, 2, 60);
            plan.push((at, Outside::ControlDies));
            plan.push((at + later(prng, 1, 20), Outside::ControlStarts));
        }
        for (after, outside) in plan {
            self.push(after, Event::Outside(outside));
        }
    }

    fn join(&mut self, release: Release, seen: Option<Seen>) {
        let index = self.members.len() as u32;
        // The digits make the name valid, whatever they are.
        let Ok(id) = format!("m-{index:05}").parse() else { return };
        let mut member = Member::new(id, release, 1);
        if let Some(seen) = seen {
            member = member.knowing(seen);
        }
        if self.scenario.trouble == Trouble::RefusedMembers {
            let rate = if self.scenario.members >= 100 { 1 } else { 20 };
            let cursed = self.prng.chance(Share::from_percent(rate));
            member.curse = if cursed { 1 + self.prng.below(2) as u8 } else { 0 };
        }
        let report = member.report();
        self.members.push(member);
        self.observer.joined(release);
        self.push(Millis::ZERO, Event::ToControl { member: index, report: Box::new(report) });
    }

    /// Runs until the rollout has come to an end or an invariant is broken.
    pub(super) fn run(mut self) -> Outcome {
        let mut end = None;
        while end.is_none() && self.observer.broken.is_none() {
            let Some((at, event)) = self.queue.pop() else { break };
            self.observer.now = at;
            let control = &self.control;
            self.observer.must(at < QUIET_BY, "I13 every rollout comes to an end", || control.describe(at));
            end = self.happen(event);
        }
        if let Some(end) = end {
            self.check_end(end);
        }
        Outcome {
            seed: self.seed,
            end: end.unwrap_or(End::Broken),
            took: self.now(),
            touched: self.observer.touched,
            on_trial_most: self.observer.on_trial_most,
            events: self.queue.pushed(),
            timeline: self.timeline,
            broken: self.observer.broken,
        }
    }

    fn happen(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Wake { member, token } => {
                self.act(member, |m, fate, effects| m.wake(token, fate, effects));
            }
            Event::Crash { member, launch } => {
                self.act(member, |m, fate, effects| m.crash(launch, fate, effects));
            }
            Event::ToMember { member, order } => {
                let hears = self.members.get(member as usize).is_some_and(|m| m.alive && m.reachable);
                if hears {
                    self.act(member, |m, fate, effects| m.obey(order, fate, effects));
                }
            }
            Event::ToControl { member, report } => self.hear(member, *report),
            Event::Goodbye { member } => {
                if let Some(member) = self.members.get(member as usize).filter(|_| self.control.up) {
                    self.control.fleet.leave(&member.id);
                    self.decide_soon();
                }
            }
            Event::Heartbeats => self.heartbeats(),
            Event::Outside(outside) => {
                self.to_come -= 1;
                self.befall(outside);
            }
            Event::Decide => {
                self.deciding = false;
                self.note();
                return self.decide();
            }
        }
        None
    }

    /// Keeps how far it is, if that has changed.
    fn note(&mut self) {
        let (exposed, on_trial) = (self.observer.exposed, self.observer.on_trial());
        let known = self.timeline.last().map(|last| (last.exposed, last.on_trial));
        if known != Some((exposed, on_trial)) {
            self.timeline.push(Moment { at: self.now(), exposed, on_trial });
        }
    }

    /// Lets a member act, and the observer see it.
    fn act(&mut self, index: u32, action: impl FnOnce(&mut Member, &mut Fate<'_>, &mut Vec<Effect>)) {
        let Some(member) = self.members.get_mut(index as usize) else { return };
        let (program, overlap) = (self.program, self.scenario.overlap);
        let mut fate = Fate { prng: &mut self.prng, program, overlap };
        let mut effects = core::mem::take(&mut self.effects);
        let before = member.glance();
        action(member, &mut fate, &mut effects);
        self.observer.changed(index as usize, before, member.glance(), member);
        let mut reports = false;
        for effect in effects.drain(..) {
            match effect {
                Effect::Report => reports = true,
                Effect::Wake { after, token } => self.push(after, Event::Wake { member: index, token }),
                Effect::Crash { after, launch } => self.push(after, Event::Crash { member: index, launch }),
            }
        }
        self.effects = effects;
        if reports {
            self.report(index, Millis::ZERO);
        }
    }

    /// A member tells everything, after a while.
    fn report(&mut self, index: u32, after: Millis) {
        let Some(member) = self.members.get_mut(index as usize) else { return };
        let report = Box::new(member.report());
        member.heard = false;
        if !member.alive || !member.reachable {
            return;
        }
        if self.prng.chance(Share::from_percent(2)) {
            let delay = after + self.delay();
            self.push(delay, Event::ToControl { member: index, report: report.clone() });
        }
        if !self.prng.chance(Share::from_percent(1)) {
            let delay = after + self.delay();
            self.push(delay, Event::ToControl { member: index, report });
        }
    }

    fn order(&mut self, id: &MemberId, order: Order) {
        let Some(member) = index_of(id) else { return };
        if self.prng.chance(Share::from_percent(2)) {
            let delay = self.delay();
            self.push(delay, Event::ToMember { member, order });
        }
        if !self.prng.chance(Share::from_percent(1)) {
            let delay = self.delay();
            self.push(delay, Event::ToMember { member, order });
        }
    }

    /// Mostly quick, sometimes very slow: so messages overtake each other.
    fn delay(&mut self) -> Millis {
        if self.prng.chance(Share::from_percent(1)) {
            self.prng.between(Millis(50), DELAY_MAX)
        } else {
            self.prng.between(Millis(1), Millis(50))
        }
    }

    fn hear(&mut self, index: u32, report: Report) {
        if !self.control.up {
            return;
        }
        if let Some(member) = self.members.get_mut(index as usize) {
            member.heard |= member.is_latest(report.stamp);
        }
        let id = report.member.clone();
        if let Some(order) = self.control.hear(report, self.observer.now) {
            self.order(&id, order);
        }
        self.decide_soon();
    }

    fn decide_soon(&mut self) {
        if !self.deciding {
            self.deciding = true;
            self.push(self.batch, Event::Decide);
        }
    }

    /// Everybody who can be heard gives a sign of life; who was not understood says it all again.
    fn heartbeats(&mut self) {
        self.push(HEARTBEAT, Event::Heartbeats);
        if !self.control.up {
            return;
        }
        for index in 0..self.members.len() {
            let lost = self.prng.chance(Share::from_percent(1));
            let now = self.now();
            let member = &mut self.members[index];
            if lost || !member.alive || !member.reachable {
                continue;
            }
            let stamp = member.next_stamp();
            let heard = member.heard && self.control.fleet.heartbeat(&member.id, stamp, now) == Heard::News;
            if !heard {
                // Spread out, as sessions that were lost come back with jitter.
                let after = self.prng.between(Millis::ZERO, Millis::from_secs(2));
                self.report(index as u32, after);
            }
        }
        for (id, order) in self.control.reminders(self.now()) {
            self.order(&id, order);
        }
        self.decide_soon();
    }

    fn decide(&mut self) -> Option<End> {
        if !self.control.up {
            return None;
        }
        let decision = self.control.decide(self.now());
        let (epoch, release, deploy, halted) = {
            let deploy = self.control.in_force()?;
            let halted = matches!(deploy.kind, Kind::Halt { .. });
            (deploy.epoch, Release::of(deploy.release), deploy.id, halted)
        };
        if !decision.begun {
            self.observer.decided(halted, decision.granted.len(), decision.proven, release);
        }
        if let Some(objection) = &decision.objection {
            self.observer.must(false, "P16 the store agrees with a fresh view", || objection.clone());
        }
        if decision.begun {
            self.observer.acted("a deploy of its own");
            self.begin();
        }
        if decision.switched {
            self.check_switched(release);
        }
        for id in &decision.granted {
            self.observer.acted("slots");
            if let Some(index) = index_of(id) {
                self.observer.granted(index as usize, epoch, decision.bake);
            }
            self.order(id, Order::Grant { deploy, bake: decision.bake });
        }
        for id in &decision.hand_backs {
            self.observer.acted("hand backs");
            self.order(id, Order::HandBack { deploy });
        }
        decision.end.filter(|_| self.to_come == 0 && self.observer.on_trial() == 0)
    }

    /// A new deploy is in force: everybody is told.
    fn begin(&mut self) {
        let start = self.control.fleet.in_force().map_or(0, |in_force| in_force.members_at_start);
        let most = slots(PhaseSize::Share(Share::ALL), self.scenario.policy.max_unhealthy, start);
        // Of members that join, and of a way back, which waits for nobody who serves.
        let back = self.control.in_force().is_some_and(|deploy| matches!(deploy.kind, Kind::Rollback { .. }));
        if back || self.scenario.policy.limits == Limits::default() {
            self.observer.slots = self.observer.slots.max(most);
        }
        if let Some(wish) = self.control.wish() {
            let known: Vec<MemberId> = self.control.fleet.members().map(|(id, _)| id.clone()).collect();
            for id in known {
                self.order(&id, wish);
            }
        }
        self.decide_soon();
    }

    fn propose(&mut self, wish: Wish) {
        // A person whose wish is refused, since nothing is under way any more, leaves it at that.
        if self.control.up && self.control.propose(wish, "as wished", self.observer.now).is_ok() {
            self.begin();
        }
    }

    fn befall(&mut self, outside: Outside) {
        let size = self.members.len() as u64;
        match outside {
            Outside::Deploy(_) | Outside::Halt { .. } | Outside::Resume if !self.control.up => {
                self.push(Millis::from_secs(1), Event::Outside(outside));
            }
            Outside::Deploy(release) => {
                let policy = self.scenario.policy.clone();
                self.propose(Wish::Rollout { release: release.id(), policy, again: true });
            }
            Outside::Halt { resume_after } => {
                self.propose(Wish::Halt { hand_back: false });
                self.push(resume_after, Event::Outside(Outside::Resume));
            }
            Outside::Resume => self.propose(Wish::Resume),
            Outside::Join => {
                let release = self.control.history.release_for_new_member().map_or(OLD, Release::of);
                self.observer.must(
                    self.has_switched(release),
                    "P17 new members start what is committed",
                    || format!("it started {release:?}"),
                );
                self.join(release, None);
            }
            Outside::Leave { goodbye } => self.leave(goodbye),
            Outside::RestartMember => {
                let index = self.prng.below(size) as u32;
                if self.members[index as usize].alive {
                    self.act(index, Member::restart);
                }
            }
            Outside::SilenceBegins => self.silence(),
            Outside::SilenceEnds => {
                self.members.iter_mut().for_each(|member| member.reachable = true);
                self.observer.mass_silence = None;
            }
            Outside::ControlDies => self.control.up = false,
            Outside::ControlStarts => {
                self.control.restart(self.observer.now);
                self.members.iter_mut().for_each(|member| member.heard = false);
            }
        }
    }

    fn has_switched(&self, release: Release) -> bool {
        self.control.past().iter().any(|past| past.switched && Release::of(past.deploy.release) == release)
    }

    /// Somebody leaves, but never the last.
    fn leave(&mut self, goodbye: bool) {
        let index = self.prng.below(self.members.len() as u64) as usize;
        let alive = self.members.iter().filter(|member| member.alive).count();
        if alive < 2 || !self.members[index].alive {
            return;
        }
        self.members[index].alive = false;
        self.observer.left(self.members[index].glance());
        if goodbye {
            let delay = self.delay();
            self.push(delay, Event::Goodbye { member: index as u32 });
        }
    }

    /// Three of five members, and always more than half, cannot be heard any more.
    fn silence(&mut self) {
        let first = self.prng.below(self.members.len() as u64) as usize;
        let many = (self.members.len() * 3).div_ceil(5).max(self.members.len() / 2 + 1);
        for i in 0..many {
            let index = (first + i) % self.members.len();
            self.members[index].reachable = false;
        }
        self.observer.mass_silence = Some(self.now());
    }

    /// `complete` means: every member that control can know of has proven the release.
    fn check_switched(&mut self, release: Release) {
        for (index, member) in self.members.iter().enumerate() {
            let counts = member.alive && member.reachable && member.heard;
            let proven = !counts || self.observer.has_committed(index, release);
            if !proven {
                let what = member.describe();
                self.observer.must(false, "I11 complete means all live members have proven it", || what);
                return;
            }
        }
    }

    /// At the end, when nobody is on trial any more, everybody runs what the end says.
    fn check_end(&mut self, end: End) {
        let expected = match end {
            End::Switched => self.control.in_force().map(|deploy| Release::of(deploy.release)),
            End::RolledBack => Some(OLD),
            End::Halted | End::Incomplete | End::Broken => None,
        };
        let stray = expected.and_then(|release| {
            let known = |member: &&Member| member.alive && member.heard;
            self.members.iter().filter(known).find(|member| member.glance().committed != release)
        });
        let stray = stray.map(Member::describe);
        self.observer.must(stray.is_none(), "P9 everybody is where the end says", || {
            format!("{end:?}, but {}", stray.unwrap_or_default())
        });
    }
}

/// The place of a member in the list: its name says it.
fn index_of(id: &MemberId) -> Option<u32> {
    id.as_str().strip_prefix("m-")?.parse().ok()
}
