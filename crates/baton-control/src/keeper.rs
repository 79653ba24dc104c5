//! The one loop that decides: wait for what is asked, decide, write, tell.
//!
//! It is level-triggered: a message only says "look again", and every round decides from what the state store
//! knows. So nothing that was lost, doubled or late matters for longer than one tick.

mod ask;
mod inbox;
mod unread;

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::mem;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use baton_core::blame::Blame;
use baton_core::decision::id_of_stop;
use baton_core::event::Event;
use baton_core::fleet;
use baton_core::history::{Backing, Proposal, ProposeError, Wish};
use baton_core::ids::{DeployId, MemberId, ServiceName};
use baton_core::metric::{Measured, Sample, Unsure};
use baton_core::report::Stamp;
use baton_core::rollout::Rollout;
use baton_core::units::Millis;
use baton_store::state::{EVENTS_MAX, Kind, News, Service, StateError, StateStore};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::api::Refusal;
use crate::board::{Board, Posted};
use crate::chain::chain;
use crate::clock::{Clock, unix_ms};
use crate::decision::{self, Decision, Fault, decide};
use crate::happened::{self, Look};
use crate::heartbeats::{Heard, Heartbeats};
use crate::order::Orders;
use crate::sessions::{AllSessions, PeerKey};
use crate::skew::Skew;
use crate::view::status::{self, Face};

pub(crate) use ask::{Ask, Choose};
use inbox::MEMBERS_MAX;
pub(crate) use inbox::{Asked, Inbox, WeakInbox, inbox};

/// How often everything is looked at, asked or not: what is lost or runs out is noticed after this time.
const TICK: Duration = Duration::from_secs(1);
/// Each time that everything was looked at so often, everybody is: signs of life are taken in, and what was lost on its way to a
/// member is said again. A member that is not heard for less than half a lease has said so in between.
const TICKS_TO_EVERYBODY: u32 = 2;
/// How long members wait to be heard for the sake of those who are not told yet what there is to tell: many times what telling
/// thousands takes.
const TELLING_MAX: Duration = Duration::from_millis(200);
/// What is taken in before the next decision: a whole fleet that reports at once is one decision, not thousands.
const BATCH_MAX: usize = 1024;
/// How often one round decides anew after it has changed something: a verdict, what follows from it, and room
/// for a conflict. What is left waits for the next tick.
const STEPS_MAX: usize = 4;

/// The keeper.
pub(crate) struct Keeper {
    store: Arc<dyn StateStore>,
    clock: Clock,
    inbox: Asked,
    heartbeats: Heartbeats,
    board: watch::Sender<Arc<Board>>,
    sessions: AllSessions,
    peer_key: PeerKey,
    kept: BTreeMap<ServiceName, Kept>,
    /// When this server started, in milliseconds since 1970: where versions begin, so that they grow across
    /// restarts.
    started: u64,
    /// What happened and is not in the store yet.
    events: Vec<Event>,
    /// What was last complained about, so that it is said once.
    complaint: String,
    skew: Skew,
}

/// What is remembered of a service between two rounds.
struct Kept {
    seen: Service,
    seen_at: Millis,
    changes: u64,
    /// How it looked when it was put on the board last.
    face: Option<Face>,
    /// What is known of the metric of the deploy in force.
    measured: (Option<DeployId>, Measured),
    /// Why the rollout waits for it, as that was put on the board last.
    unsure: Option<Unsure>,
    /// The halt after which a person has to decide, as that was told last.
    told_stuck: Option<DeployId>,
}

impl Kept {
    /// Says that a person has to decide, once for each time.
    fn tell_stuck(&mut self, name: &ServiceName) {
        let why = status::needs_person(&self.seen);
        let halt = self.seen.history().in_force().filter(|_| why.is_some()).map(|halt| halt.id);
        if let Some(why) = why.filter(|_| halt != self.told_stuck) {
            eprintln!("baton server: {name} needs a person: {why}");
        }
        self.told_stuck = halt;
    }

    /// What is known of the metric of a service as it is now: nothing yet of a deploy that is new.
    fn measured(&mut self, service: &Service, now: Millis) -> &mut Measured {
        let deploy = service.history().in_force().map(|deploy| deploy.id);
        if self.measured.0 != deploy {
            self.measured = (deploy, Measured::default());
        }
        decision::see(service, &mut self.measured.1, now);
        &mut self.measured.1
    }
}

/// What was taken in and is not answered yet. Whoever asked may have given up; the answer stays the same when they ask again.
#[derive(Default)]
struct Round {
    /// Services to look at, and whether something is new there.
    touched: BTreeSet<ServiceName>,
    /// Every member is looked at: what was lost is noticed.
    everybody: bool,
    /// Members that have connected.
    came: BTreeMap<ServiceName, Vec<MemberId>>,
    /// Signs of life that are taken in after all else that was said.
    heard: Heard,
    /// Members that said goodbye.
    left: BTreeSet<(ServiceName, MemberId)>,
    events: Vec<Event>,
    /// Whether other servers may have told something.
    others: bool,
    answers: Vec<Box<dyn FnOnce()>>,
    stop: bool,
}

impl Keeper {
    /// A keeper that knows what the store knows. Where that is away, it waits for it once it runs.
    ///
    /// # Errors
    /// When the store cannot be read, and waiting would not help.
    pub(crate) fn new(
        store: Arc<dyn StateStore>,
        clock: Clock,
        inbox: Asked,
        heartbeats: Heartbeats,
        board: watch::Sender<Arc<Board>>,
        peer_key: PeerKey,
    ) -> Result<Self, StateError> {
        let mut keeper = Self {
            store,
            clock,
            inbox,
            heartbeats,
            board,
            sessions: AllSessions::default(),
            peer_key,
            kept: BTreeMap::new(),
            started: unix_ms(),
            events: Vec::new(),
            complaint: String::new(),
            skew: Skew::default(),
        };
        match keeper.take_over() {
            Err(error) if error.may_heal() => keeper.tell_unread(&error),
            done => done?,
        }
        Ok(keeper)
    }

    /// Runs until it is told to stop, or nobody is left who could ask. Blocks; `runtime` is where timers run.
    pub(crate) fn run(mut self, runtime: &Handle) {
        let Some(asks) = self.wait_for_store(runtime) else { return };
        let events = self.kept.keys().map(|service| happened::took_over(service, unix_ms())).collect();
        let mut round = Round { events, ..Round::default() };
        for ask in asks {
            self.take_in(ask, &mut round);
        }
        if round.stop {
            return;
        }
        self.finish(&mut round);
        // A moment, not a wait: however much is said in between, it comes.
        let mut tick = Instant::now() + TICK;
        let mut ticks = 0_u32;
        loop {
            let mut asks = Vec::new();
            // The limits are set inside, where the runtime's clock is.
            let untaken = self.sessions.untaken();
            let told = async { untaken.none(TELLING_MAX).await };
            let wait = async { timeout_at(tick, self.inbox.recv_many(&mut asks, BATCH_MAX, told)).await };
            let waited = runtime.block_on(wait);
            if waited == Ok(0) {
                return;
            }
            let mut round = Round::default();
            if tick <= Instant::now() {
                tick = Instant::now() + TICK;
                ticks = ticks.wrapping_add(1);
                round.everybody = ticks.is_multiple_of(TICKS_TO_EVERYBODY);
                if round.everybody {
                    round.heard = self.heartbeats.take();
                    self.sessions.sweep();
                }
                round.touched = self.kept.keys().cloned().collect();
                // What a member has said before it was heard again comes before that.
                let waiting = iter::from_fn(|| self.inbox.try_recv());
                asks.extend(waiting.take(MEMBERS_MAX));
            }
            for ask in asks {
                self.take_in(ask, &mut round);
            }
            self.take_in_heartbeats(mem::take(&mut round.heard));
            if round.stop {
                return;
            }
            self.finish(&mut round);
        }
    }

    fn take_in(&mut self, ask: Ask, round: &mut Round) {
        match ask {
            Ask::Hello { hello, out } => {
                let service = hello.service.clone();
                round.came.entry(service.clone()).or_default().push(hello.member.clone());
                self.sessions.of(&service).open(hello, out, &self.peer_key);
                self.touch(service, round);
            }
            Ask::News { service, news } => self.hear(&service, news, round),
            Ask::Propose { service, proposal, begun, reply } => {
                self.touch(service.clone(), round);
                let now = self.clock.now();
                let answer = match begun {
                    Some(begun) => self.store.propose_unless_pruned(&service, proposal, begun, now),
                    None => self.store.propose(&service, proposal, now),
                };
                if answer.is_err() {
                    self.forget_if_empty(&service, round);
                }
                round.answers.push(Box::new(|| drop(reply.send(answer.map_err(Refusal::from)))));
            }
            Ask::Lock { service, lock, reply } => {
                self.touch(service.clone(), round);
                let answer = self.store.set_lock(&service, lock);
                round.answers.push(Box::new(|| drop(reply.send(answer.map_err(Refusal::from)))));
            }
            Ask::Tag { service, name, tag, reply } => {
                self.touch(service.clone(), round);
                let answer = self.store.set_tag(&service, &name, tag);
                round.answers.push(Box::new(|| drop(reply.send(answer.map_err(Refusal::from)))));
            }
            Ask::Forget { service, choose, reply } => {
                let answer = self.forget(&service, choose, round);
                round.answers.push(Box::new(|| drop(reply.send(answer))));
            }
            Ask::Measured { service, deploy, sample } => self.take_in_sample(service, deploy, sample, round),
            Ask::Note(event) => round.events.push(event),
            Ask::LookAgain => self.look_again(round),
            Ask::Stop => round.stop = true,
        }
    }

    fn take_in_heartbeats(&mut self, heard: Heard) {
        for (service, members) in heard {
            for (member, (stamp, at)) in members {
                let news = News::Heartbeat { member: member.clone(), stamp };
                match self.store.hear(&service, news, at) {
                    Ok(fleet::Heard::News) => {}
                    Ok(fleet::Heard::Stale) => {
                        let known = self.stamp(&service, &member);
                        // What it has reported since was taken in before.
                        if known.is_none_or(|known| known.life != stamp.life || known < stamp) {
                            self.turn_away(&service, Some((member, stamp.life)));
                        }
                    }
                    Err(error) => self.complain(&error),
                }
            }
        }
    }

    /// The stamp of what a member has said last.
    fn stamp(&self, service: &ServiceName, member: &MemberId) -> Option<Stamp> {
        let known = self.store.service(service, self.clock.now()).ok()?;
        known.fleet().member(member)?.stamp()
    }

    /// What was measured of a deploy that is not in force any more is of no use.
    fn take_in_sample(&mut self, service: ServiceName, deploy: DeployId, sample: Sample, round: &mut Round) {
        let gate = self.kept.get_mut(&service).and_then(|kept| {
            let in_force = kept.seen.history().in_force().filter(|in_force| in_force.id == deploy)?;
            let gate = in_force.policy.metric.clone()?;
            if kept.measured.0 == Some(deploy) {
                kept.measured.1.add(&gate, sample);
            }
            Some(gate)
        });
        if gate.is_some() {
            self.touch(service, round);
        }
    }

    /// All that is known is looked at, and what was not known before.
    fn look_again(&mut self, round: &mut Round) {
        round.others = true;
        match self.store.services() {
            Ok(services) => services.into_iter().for_each(|service| self.touch(service, round)),
            Err(error) => self.complain(&error),
        }
    }

    fn hear(&mut self, service: &ServiceName, news: News, round: &mut Round) {
        if let News::Left(member) = &news {
            round.left.insert((service.clone(), member.clone()));
        }
        self.touch(service.clone(), round);
        let from = match &news {
            News::Report(report) => Some((report.member.clone(), report.stamp.life)),
            News::Heartbeat { member, stamp } => Some((member.clone(), stamp.life)),
            News::Left(_) => None,
        };
        match self.store.hear(service, news, self.clock.now()) {
            Ok(fleet::Heard::News) => {}
            Ok(fleet::Heard::Stale) => self.turn_away(service, from),
            Err(error) => self.complain(&error),
        }
    }

    /// Who is chosen counts from now on as who has said goodbye. It is chosen of what is known now, so that nobody goes who has
    /// come back since somebody looked.
    fn forget(
        &mut self,
        service: &ServiceName,
        choose: Choose,
        round: &mut Round,
    ) -> Result<Vec<MemberId>, Refusal> {
        // Whom others hear is not known while the store is out of reach.
        self.ready_or_full()?;
        let now = self.clock.now();
        let known = self.store.service(service, now)?;
        let heard = round.heard.get(service);
        let is_heard = |member: &MemberId| {
            self.heartbeats.has(service, member) || heard.is_some_and(|heard| heard.contains_key(member))
        };
        let chosen = choose(known.fleet(), now, &is_heard)?;
        for member in &chosen {
            self.hear(service, News::Left(member.clone()), round);
        }
        Ok(chosen)
    }

    /// Whoever says what does not count would say it for ever.
    fn turn_away(&mut self, service: &ServiceName, from: Option<(MemberId, u64)>) {
        let Some((member, life)) = from else { return };
        let later = self.stamp(service, &member).is_some_and(|stamp| stamp.life > life);
        self.sessions.of(service).end(&member, life, later);
    }

    /// The service is looked at in this round. What was known before is kept, to see what has changed.
    fn touch(&mut self, service: ServiceName, round: &mut Round) {
        match self.remember(&service) {
            Ok(()) => {
                round.touched.insert(service);
            }
            Err(error) => self.complain(&error),
        }
    }

    /// A refused wish for a service that nobody has ever heard of leaves no trace.
    fn forget_if_empty(&mut self, service: &ServiceName, round: &mut Round) {
        let is_empty = |kept: &Kept| {
            kept.seen.history().past().is_empty() && kept.seen.fleet().members().next().is_none()
        };
        if self.kept.get(service).is_some_and(is_empty) && !self.sessions.knows(service) {
            self.kept.remove(service);
            round.touched.remove(service);
        }
    }

    fn remember(&mut self, service: &ServiceName) -> Result<(), StateError> {
        if !self.kept.contains_key(service) {
            let seen_at = self.clock.now();
            let seen = self.store.service(service, seen_at)?;
            let kept = Kept {
                seen,
                seen_at,
                changes: 0,
                face: None,
                measured: Default::default(),
                unsure: None,
                told_stuck: None,
            };
            self.kept.insert(service.clone(), kept);
        }
        Ok(())
    }

    /// Decides about all that was touched, then says what happened, then answers.
    fn finish(&mut self, round: &mut Round) {
        let touched: Vec<_> = round.touched.iter().cloned().collect();
        for service in &touched {
            if let Err(error) = self.serve(service, round) {
                self.complain(&error);
            }
        }
        self.events.append(&mut round.events);
        let any = self.keep_events() || round.others;
        let trouble = self.trouble();
        if let Some(told) = self.skew.see(self.store.clock_ahead_ms(), self.clock.now()) {
            eprintln!("baton server: {told}");
        }
        self.board.send_if_modified(|board| {
            // The board's own changes were made silently, one service after the other.
            let board = Arc::make_mut(board);
            board.events += u64::from(any);
            board.trouble = trouble;
            any || !touched.is_empty()
        });
        for answer in round.answers.drain(..) {
            answer();
        }
    }

    /// Writes down what happened, and whether anything was. What cannot be written waits for the next round.
    fn keep_events(&mut self) -> bool {
        if self.events.is_empty() {
            return false;
        }
        match self.store.append(self.events.clone()) {
            Ok(()) => {
                self.events.clear();
                true
            }
            Err(error) => {
                self.events.drain(..self.events.len().saturating_sub(EVENTS_MAX));
                self.complain(&error);
                false
            }
        }
    }

    /// One service: decide and write until nothing is left to do, then tell the members.
    fn serve(&mut self, name: &ServiceName, round: &mut Round) -> Result<(), StateError> {
        let decided = self.decide(name);
        let now = self.clock.now();
        let service = self.store.service(name, now)?;
        let Some(kept) = self.kept.get_mut(name) else { return decided };
        let before = Look { service: &kept.seen, now: kept.seen_at };
        let after = Look { service: &service, now };
        if let Some(orders) = Orders::of(&service, now) {
            let sessions = self.sessions.of(name);
            let order = |member: &MemberId| orders.of_member(member);
            if round.everybody || orders.differ_for_all(&before) {
                sessions.tell(now, order);
            } else {
                let came = round.came.get(name).into_iter().flatten();
                sessions.tell_some(happened::changed(&before, &after).into_iter().chain(came), now, order);
            }
        }
        let left = |member: &MemberId| round.left.contains(&(name.clone(), member.clone()));
        let events = happened::between(name, &before, &after, left, unix_ms());
        (kept.seen, kept.seen_at) = (service, now);
        let changed = !events.is_empty();
        round.events.extend(events);
        self.post(name, changed, round.everybody);
        decided
    }

    fn decide(&mut self, name: &ServiceName) -> Result<(), StateError> {
        for _ in 0..STEPS_MAX {
            let (mut now, mut service, mut decision) = self.look(name)?;
            // What cannot be taken back is not decided by what was known before the store was out of reach.
            if decision.as_ref().is_some_and(Decision::is_final) {
                // For what stops a rollout there is room on a full disk, and nothing else is written.
                self.ready_or_full()?;
                (now, service, decision) = self.look(name)?;
            }
            let Some(decision) = decision else { return Ok(()) };
            match self.carry_out(name, &service, &decision, now) {
                // Somebody was faster: look again.
                Err(error) if error.kind() == Kind::Conflict => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Whether all that others know is known as well.
    fn ready_or_full(&self) -> Result<(), StateError> {
        match self.store.ready() {
            Ok(()) | Err(StateError::DiskFull { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What there is to write for a service, as the store knows it now.
    fn look(&mut self, name: &ServiceName) -> Result<(Millis, Service, Option<Decision>), StateError> {
        let now = self.clock.now();
        let service = self.store.service(name, now)?;
        let decision =
            self.kept.get_mut(name).and_then(|kept| decide(&service, kept.measured(&service, now), now));
        Ok((now, service, decision.filter(|decision| !decision.is_empty())))
    }

    /// Writes what was decided; the members are told once it is durable.
    fn carry_out(
        &mut self,
        name: &ServiceName,
        service: &Service,
        decision: &Decision,
        now: Millis,
    ) -> Result<(), StateError> {
        if let Some((wish, reason)) = &decision.stop {
            let blame = Rollout::of(service.fleet(), now).map(|rollout| reason.blame(&rollout));
            return self.stop(name, decision, wish, reason, blame.as_ref());
        }
        for &milestone in &decision.reached {
            self.store.reach(name, decision.deploy.id, milestone, unix_ms())?;
        }
        if !decision.grants.is_empty() {
            self.store.grant(name, decision.deploy.epoch, &decision.grants, now)?;
        }
        Ok(())
    }

    /// Takes a failing release back, or halts where there is no way back.
    fn stop(
        &self,
        name: &ServiceName,
        decision: &Decision,
        wish: &Wish,
        reason: &Fault,
        blame: Option<&Blame>,
    ) -> Result<(), StateError> {
        let propose = |wish: &Wish| {
            let proposal = Proposal {
                id: id_of_stop(decision.deploy.id, wish),
                parent: Some(decision.deploy.id),
                wish: wish.clone(),
                reason: reason.to_string(),
                actor: "baton".to_owned(),
                created: unix_ms(),
                backing: Backing::InForce,
                blame: blame.cloned(),
            };
            self.store.propose(name, proposal, self.clock.now()).map(drop)
        };
        match propose(wish) {
            Err(StateError::Refused { source, .. })
                if !matches!(source, ProposeError::Conflict { .. })
                    && matches!(wish, Wish::RollBack { .. }) =>
            {
                propose(&Wish::Halt { hand_back: true })
            }
            done => done,
        }
    }

    /// Puts what is kept of a service on the board: `changed`, something was told of it; `everybody`, and every member
    /// is looked at. Nobody is woken before the whole round is done.
    fn post(&mut self, name: &ServiceName, changed: bool, everybody: bool) {
        let Some(kept) = self.kept.get_mut(name) else { return };
        kept.tell_stuck(name);
        let sessions = self.sessions.of(name);
        if everybody {
            let fleet = kept.seen.fleet();
            sessions.keep_hellos(|member| fleet.member(member).is_some());
        }
        let face = Some(status::face(&kept.seen, kept.seen_at));
        let unsure = decision::unsure(&kept.seen, &kept.measured.1, kept.seen_at);
        kept.changes += u64::from(changed || face != kept.face || unsure != kept.unsure);
        (kept.face, kept.unsure) = (face, unsure);
        let posted = Posted {
            version: self.started + kept.changes,
            service: kept.seen.clone(),
            seen_at: kept.seen_at,
            unsure: kept.unsure.clone(),
            hellos: sessions.hellos(),
            sessions: sessions.count(),
            status: OnceLock::new(),
        };
        self.board.send_if_modified(|board| {
            Arc::make_mut(board).services.insert(name.clone(), Arc::new(posted));
            false
        });
    }

    /// Why the store cannot be written, if it cannot.
    fn trouble(&mut self) -> Option<String> {
        let error = self.store.ready().err();
        if let Some(error) = &error {
            self.complain(error);
        } else if self.board.borrow().trouble.is_some() {
            eprintln!("baton server: the state store can be written again");
            self.complaint.clear();
        }
        error.as_ref().map(|error| chain(error))
    }

    /// Says what is wrong with the store, once.
    fn complain(&mut self, error: &StateError) {
        let complaint = chain(error);
        if complaint != self.complaint {
            eprintln!("baton server: {complaint}");
            self.complaint = complaint;
        }
    }
}

#[cfg(test)]
mod tests;
