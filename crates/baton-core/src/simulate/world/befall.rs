//! What befalls the actors, as a script says.

use alloc::format;

use super::{Asked, Event, World};
use crate::history::{Lock, Wish};
use crate::simulate::member::{Curse, Member};
use crate::simulate::release::Release;
use crate::simulate::script::{Cut, Step, StoreFault, Way};
use crate::target::Amount;
use crate::units::Millis;

/// How long after a failed start a server is started again.
const START_AGAIN: Millis = Millis::from_secs(1);

impl World {
    /// Lets something happen. What only waits or shows is not for here.
    pub(in crate::simulate) fn befall(&mut self, step: &Step) {
        match step {
            Step::Policy(named) => self.policy = named.policy.clone(),
            Step::Flaw(release, flaw) => flaw.add_to(&mut self.flaws[release.index()]),
            Step::Refuse(release, amount) => self.curse(Curse::NeverStarts(*release), *amount),
            Step::Unfetchable(release, amount) => self.curse(Curse::CannotFetch(*release), *amount),
            Step::Deploy { release, again } => {
                let wish = Self::wish_of(*release, *again, self.policy.clone());
                self.wish(wish);
            }
            Step::Halt => self.wish(Asked::Wish(Wish::Halt { hand_back: false })),
            Step::Resume => self.wish(Asked::Wish(Wish::Resume)),
            Step::Abort => self.wish(Asked::Wish(Wish::Abort)),
            Step::RollBack(to) => self.wish(Asked::Wish(Wish::RollBack { to: to.map(Release::id) })),
            Step::Lock(reason) => {
                let lock = Lock { reason: reason.clone(), actor: "a person".into(), since: self.now().0 };
                self.wish(Asked::Lock(Some(lock)));
            }
            Step::Unlock => self.wish(Asked::Lock(None)),
            Step::Join(members) => (0..*members).for_each(|_| self.join_late()),
            Step::Leave { members, goodbye } => self.leave(*members, *goodbye),
            Step::Restart(amount) => {
                for index in self.draw(*amount) {
                    self.act(index, Member::restart);
                }
            }
            Step::Cut(cut) => self.cut(*cut),
            Step::Isolate(server) => {
                self.isolated |= 1 << server;
                self.observer.unsure = true;
            }
            Step::Heal => self.heal(),
            Step::Server { number, up: false } => self.stop_server(*number),
            Step::Server { number, up: true } => self.start_server(*number),
            Step::Store(fault) => self.befall_store(*fault),
            Step::Run(_) | Step::Show(_) => {}
        }
    }

    fn curse(&mut self, curse: Curse, amount: Amount) {
        for index in self.draw(amount) {
            self.members[index].curse = curse;
        }
    }

    /// A member joins with what control tells it to start.
    fn join_late(&mut self) {
        let Some(server) = self.servers.iter().find(|server| server.up) else { return };
        let release = server.history.release_for_new_member().map_or(Release::OLD, Release::of);
        let switched = self.has_switched(release);
        self.observer
            .must(switched, "P17 new members start what is committed", || format!("it started {release}"));
        self.observer.generations_max = self.observer.generations_max.saturating_add(1);
        self.join(release, None);
    }

    /// Members leave, but never the last.
    fn leave(&mut self, amount: Amount, goodbye: bool) {
        let leaving = self.draw(amount);
        let alive = self.members.iter().filter(|member| member.alive).count();
        for index in leaving.into_iter().take(alive.saturating_sub(1)) {
            self.members[index].alive = false;
            self.observer.left(index, self.members[index].glance(), goodbye);
            if goodbye {
                let server = self.members[index].session;
                let delay = self.setup.network.delay(&mut self.prng);
                self.push(delay, Event::Goodbye { member: index, server });
            }
        }
    }

    fn cut(&mut self, cut: Cut) {
        self.observer.unsure = true;
        let servers = cut.server.map_or(u8::MAX, |server| 1 << server);
        for index in self.draw(cut.members) {
            let member = &mut self.members[index];
            member.mute |= if cut.way == Way::Deaf { 0 } else { servers };
            member.deaf |= if cut.way == Way::Mute { 0 } else { servers };
        }
        self.note_silence();
    }

    fn heal(&mut self) {
        (self.isolated, self.healed_at) = (0, self.now());
        self.members.iter_mut().for_each(|member| (member.mute, member.deaf) = (0, 0));
        self.note_silence();
    }

    /// Whether most members that may count as there are heard by nobody.
    fn note_silence(&mut self) {
        let mute = self.members.iter().filter(|member| member.alive && member.mute == u8::MAX).count();
        let most = 2 * mute > self.members.len();
        let since = self.observer.mass_silence.unwrap_or(self.now());
        self.observer.mass_silence = most.then_some(since);
    }

    fn stop_server(&mut self, number: usize) {
        if let Some(server) = self.servers.get_mut(number) {
            server.die();
        }
    }

    /// A server starts, with what its store has. Where it cannot be reached, it tries again.
    pub(super) fn start_server(&mut self, number: usize) {
        let now = self.now();
        let reaches = self.isolated >> number & 1 == 0;
        let Some(server) = self.servers.get_mut(number).filter(|server| !server.up) else { return };
        match &mut self.store {
            None => server.restart(now),
            Some(store) if store.up && reaches => store.start(server, now),
            Some(_) => return self.push(START_AGAIN, Event::Start { server: number }),
        }
        let theirs = |member: &&mut Member| member.session == number;
        self.members.iter_mut().filter(theirs).for_each(|member| member.heard = None);
    }

    fn befall_store(&mut self, fault: StoreFault) {
        let Some(store) = &mut self.store else { return };
        match fault {
            StoreFault::Dies => store.up = false,
            StoreFault::Starts => store.up = true,
            StoreFault::Loses(writes) => {
                (self.lossy, self.observer.unsure) = (true, true);
                store.lose(Some(writes));
            }
            StoreFault::Empties => {
                (self.lossy, self.observer.unsure) = (true, true);
                store.lose(None);
            }
        }
    }
}
