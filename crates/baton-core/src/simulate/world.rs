//! The simulated world: virtual time, and the actors in it.

mod befall;
mod decided;
mod sessions;
mod tell;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::member::{Effect, Fate, Member, Order};
use super::observer::Observer;
use super::prng::Prng;
use super::queue::Queue;
use super::release::{Flaws, RELEASES, Release};
use super::script::{NO_FLAWS, Script, Setup, Step, Until};
use super::server::{Change, Look, Server};
use super::store::{Store, Version};
use super::{End, HEARTBEAT, Moment, Outcome};
use crate::bake::Bake;
use crate::deploy::{PhaseSize, Policy};
use crate::history::Wish;
use crate::ids::{DeployId, MemberId, ServiceName};
use crate::report::{Report, Seen};
use crate::rollout::slots;
use crate::target::{Amount, Target};
use crate::units::{Millis, Share};

/// How often servers that share a store look at it, told or not.
const LOOK_EVERY: Millis = Millis::from_secs(1);
/// Where nobody does anything and nothing has changed for this long, nothing will: longer than whatever repeats itself.
const STILL: Millis = Millis::from_secs(300);

enum Event {
    Wake { member: usize, token: u32 },
    Crash { member: usize, launch: u32 },
    ToMember { member: usize, server: usize, order: Box<Order> },
    ToServer { member: usize, server: usize, report: Arc<Report> },
    Goodbye { member: usize, server: usize },
    Report { member: usize },
    Decide { server: usize },
    Look { server: usize },
    Ticks,
    Heartbeats,
    Commit(Box<Commit>),
    Ask(Box<Ask>),
    Start { server: usize },
}

/// A change on its way to the store.
struct Commit {
    server: usize,
    life: u32,
    /// What the server has seen last: nothing else may have been written since.
    version: Version,
    change: Change,
    ask: Option<Ask>,
}

/// What a person wants, and asks until there is an answer.
#[derive(Debug, Clone)]
struct Ask {
    id: DeployId,
    what: Asked,
    server: usize,
    tries: u32,
}

#[derive(Debug, Clone)]
enum Asked {
    Wish(Wish),
    Lock(Option<crate::history::Lock>),
}

pub(super) struct World {
    setup: Setup,
    /// How the next release is rolled out.
    policy: Policy,
    flaws: [Flaws; RELEASES],
    prng: Prng,
    queue: Queue<Event>,
    /// What people wait for: nothing ends before.
    to_come: u32,
    /// What people want once what they wait for is there.
    waiting: VecDeque<Ask>,
    members: Vec<Member>,
    servers: Vec<Server>,
    /// Where there are several servers; a single one has a store of its own.
    store: Option<Store>,
    /// The servers, one bit each, that do not reach the store.
    isolated: u8,
    /// When all of them reached it again.
    healed_at: Millis,
    /// Whether the store has ever lost anything.
    lossy: bool,
    /// The deploys that were accepted, in order.
    accepted: Vec<DeployId>,
    /// The one of them that was noted as switched last.
    switched: Option<DeployId>,
    /// Which server has decided last.
    looked_by: usize,
    /// How many members the first server that is up counts as proven.
    proven: u32,
    pub observer: Observer,
    timeline: Vec<Moment>,
    /// How long a server collects reports before it decides.
    batch: Millis,
    effects: Vec<Effect>,
    wishes: u8,
    /// By this time what is under way must have come to its end.
    quiet_by: Millis,
    /// What happened and was not told yet; nothing is noted unless somebody reads it.
    log: Option<Vec<String>>,
    look: Option<Look>,
}

impl World {
    /// The world before anything happens. `told` says whether somebody reads what happens.
    pub(super) fn new(script: &Script, told: bool) -> Self {
        let setup = script.setup.clone();
        let named = script.steps().find_map(|step| match step {
            Step::Policy(named) => Some(named.policy.clone()),
            _ => None,
        });
        let policy = named.unwrap_or_else(Policy::safe);
        let mut world = Self {
            flaws: NO_FLAWS,
            prng: Prng::new(setup.seed),
            queue: Queue::new(),
            to_come: 0,
            waiting: VecDeque::new(),
            members: Vec::new(),
            servers: Vec::new(),
            store: (setup.servers > 1).then(|| Store::new(setup.servers)),
            isolated: 0,
            healed_at: Millis::ZERO,
            lossy: false,
            accepted: Vec::new(),
            switched: None,
            looked_by: 0,
            proven: 0,
            observer: Observer::new(),
            timeline: Vec::new(),
            batch: Millis(u64::from(setup.members / 8)),
            effects: Vec::new(),
            wishes: 1,
            quiet_by: Millis::ZERO,
            log: told.then(Vec::new),
            look: None,
            policy,
            setup,
        };
        world.open_servers();
        let first = world.servers.first().and_then(Server::in_force);
        let first = first.map(|deploy| Seen { epoch: deploy.epoch, deploy: deploy.id });
        for _ in 0..world.setup.members {
            world.join(Release::OLD, first);
        }
        world.give_labels();
        world.introduce();
        world.push(HEARTBEAT, Event::Heartbeats);
        if world.store.is_some() {
            world.push(LOOK_EVERY, Event::Ticks);
        }
        world
    }

    fn open_servers(&mut self) {
        // The service runs what it runs since long ago.
        let policy = Policy { target: Target::ALL, ..self.policy.clone() };
        let Ok(service) = "web".parse() else { return };
        for number in 0..self.setup.servers {
            let mut server = Server::new(number, ServiceName::clone(&service));
            // Nobody deploys a policy that is not checked.
            if number == 0 && server.begin_with(policy.clone()).is_err() {
                let _ = server.begin_with(Policy::safe());
            }
            if let Some(store) = &mut self.store {
                if number == 0 {
                    store.put(&server);
                } else {
                    store.start(&mut server, Millis::ZERO);
                }
            }
            self.accepted.extend(server.in_force().map(|deploy| deploy.id).filter(|_| number == 0));
            self.servers.push(server);
        }
    }

    /// The servers know the members since long ago.
    fn introduce(&mut self) {
        self.queue = Queue::new();
        for index in 0..self.members.len() {
            let report = self.members[index].report();
            self.hear(self.members[index].session, index, report.into());
        }
        (0..self.servers.len()).for_each(|server| self.look(server));
        (0..self.servers.len()).for_each(|server| self.look(server));
    }

    fn give_labels(&mut self) {
        for (label, amount) in self.setup.labels.clone() {
            for index in self.draw(amount) {
                self.members[index].labels.push(label.clone());
                self.members[index].labels.sort();
            }
        }
    }

    pub(super) const fn now(&self) -> Millis {
        self.observer.now
    }

    fn push(&mut self, after: Millis, event: Event) {
        self.queue.push(self.now() + after, event);
    }

    /// Members by chance: so many of those that are there.
    fn draw(&mut self, amount: Amount) -> Vec<usize> {
        let alive = self.members.iter().filter(|member| member.alive).count() as u32;
        let many = Target { amount, label: None }.of(alive) as usize;
        let first = self.prng.below(self.members.len() as u64) as usize;
        let from = (first..self.members.len()).chain(0..first);
        from.filter(|index| self.members[*index].alive).take(many).collect()
    }

    /// A member that serves `release` and knows of this deploy is there from now on.
    fn join(&mut self, release: Release, seen: Option<Seen>) {
        let index = self.members.len();
        let Some(id) = name_of(index) else { return };
        let mut member = Member::new(id, release, 1);
        if let Some(seen) = seen {
            member = member.knowing(seen);
        }
        member.session = index % self.servers.len().max(1);
        self.members.push(member);
        self.observer.joined(release);
        self.report(index, Millis::ZERO);
    }

    /// Goes on until then. Returns how the rollout has ended, where it is awaited.
    pub(super) fn run(&mut self, until: Until) -> Option<End> {
        let from = self.now();
        self.quiet_by = from + self.patience();
        let mut end = None;
        while self.observer.broken.is_none() {
            let Some(at) = self.queue.next_at() else { break };
            match until {
                Until::After(time) if at > from + time => {
                    self.observer.now = from + time;
                    return None;
                }
                Until::After(_) => {}
                Until::Quiet | Until::Proven(_) if end.is_some() || self.is_still() => break,
                Until::Proven(members) if self.proven >= members => break,
                Until::Quiet | Until::Proven(_) => {
                    let (by, server) = (self.quiet_by, self.servers.iter().find(|server| server.up));
                    let what = || server.map_or("no server is up".into(), |server| server.describe(at));
                    self.observer.must(at < by, "I13 every rollout comes to an end", what);
                }
            }
            let Some((at, event)) = self.queue.pop() else { break };
            self.observer.now = at;
            end = self.happen(event);
        }
        if let Some(end) = end {
            self.check_end(end);
        }
        end
    }

    /// Whether nothing happens any more unless somebody does something.
    fn is_still(&self) -> bool {
        self.to_come == 0 && self.observer.busy() == 0 && self.now().since(self.observer.changed_at) > STILL
    }

    /// How long a rollout may take, whatever happens to it: some hours, and several times what its tries and bakes take one
    /// after the other, on the way there and on the way back.
    fn patience(&self) -> Millis {
        const ANY: Millis = Millis::from_secs(3 * 3600);
        let program = &self.setup.program;
        let slower = self.flaws.iter().map(|flaws| flaws.slower).max().unwrap_or(0);
        let start = Millis(program.start.1.0.saturating_mul(100 + u64::from(slower)) / 100);
        let phases = || self.policy.phases.iter();
        let bake = phases().map(|phase| phase.bake).max().unwrap_or(Millis::ZERO);
        let bake = program.bakes_for(Bake { time: bake, connections: self.policy.bake_connections });
        let last = phases().next_back().map_or(PhaseSize::One, |phase| phase.size);
        let members = self.members.len() as u32;
        let limits = &self.policy.limits;
        let by_limits = limits.of_healthy(members).map_or(u32::MAX, |(slots, _)| slots);
        let alone = if limits.singleton { 1 } else { u32::MAX };
        let slots = slots(last, self.policy.max_unhealthy, members).min(by_limits).min(alone).max(1);
        let rounds = u64::from(members.div_ceil(slots)) + phases().count() as u64;
        let try_out = Millis(2 * (start + program.relaunch.1).0) + bake + program.fetch.1;
        ANY + Millis((try_out + Millis::from_secs(30)).0.saturating_mul(4 * rounds))
    }

    fn happen(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Wake { member, token } => {
                self.act(member, |m, fate, effects| m.wake(token, fate, effects));
            }
            Event::Crash { member, launch } => {
                self.act(member, |m, fate, effects| m.crash(launch, fate, effects));
            }
            Event::ToMember { member, server, order } => {
                if self.members.get(member).is_some_and(|m| m.hears(server) && m.session == server) {
                    self.act(member, |m, fate, effects| m.obey(*order, fate, effects));
                }
            }
            Event::ToServer { member, server, report } => self.hear(server, member, report),
            Event::Report { member } => self.report(member, Millis::ZERO),
            Event::Goodbye { member, server } => self.hear_goodbye(server, member),
            Event::Heartbeats => self.heartbeats(),
            Event::Ticks => {
                self.push(LOOK_EVERY, Event::Ticks);
                (0..self.servers.len()).for_each(|server| self.look(server));
            }
            Event::Look { server } => self.look(server),
            Event::Commit(commit) => self.commit(*commit),
            Event::Ask(ask) => self.ask(*ask),
            Event::Start { server } => self.start_server(server),
            Event::Decide { server } => {
                self.note_moment();
                return self.decide(server);
            }
        }
        None
    }

    /// Keeps how far it is, if that has changed.
    fn note_moment(&mut self) {
        let (exposed, on_trial) = (self.observer.exposed, self.observer.on_trial());
        let known = self.timeline.last().map(|last| (last.exposed, last.on_trial));
        if known != Some((exposed, on_trial)) {
            self.timeline.push(Moment { at: self.now(), exposed, on_trial });
        }
    }

    /// Lets a member act, and the observer see it.
    fn act(&mut self, index: usize, action: impl FnOnce(&mut Member, &mut Fate<'_>, &mut Vec<Effect>)) {
        let Some(member) = self.members.get_mut(index) else { return };
        let (program, overlap) = (self.setup.program, self.setup.overlap);
        let mut fate = Fate { prng: &mut self.prng, program, flaws: &self.flaws, overlap };
        let mut effects = core::mem::take(&mut self.effects);
        let before = member.glance();
        action(member, &mut fate, &mut effects);
        self.observer.changed(index, before, member.glance(), member);
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

    /// What came out.
    pub(super) fn outcome(self, end: Option<End>) -> Outcome {
        let broken = self.observer.broken.is_some();
        Outcome {
            seed: self.setup.seed,
            end: if broken { End::Broken } else { end.unwrap_or(End::Waiting) },
            took: self.now(),
            touched: self.observer.tried(Release::NEW),
            on_trial_most: self.observer.on_trial_most,
            events: self.queue.pushed(),
            timeline: self.timeline,
            broken: self.observer.broken,
        }
    }
}

/// The name of the member at this place.
pub(super) fn name_of(index: usize) -> Option<MemberId> {
    alloc::format!("m-{}", index + 1).parse().ok()
}

/// The place of a member in the list: its name says it.
pub(super) fn index_of(id: &MemberId) -> Option<usize> {
    id.as_str().strip_prefix("m-")?.parse::<usize>().ok()?.checked_sub(1)
}

/// The most of so many that may be on trial at once.
fn most(max_unhealthy: Share, n: u32) -> u32 {
    slots(PhaseSize::Share(Share::ALL), max_unhealthy, n)
}
