//! What members and servers say to each other.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::{Event, World, index_of};
use crate::fleet::Heard;
use crate::ids::MemberId;
use crate::report::Report;
use crate::simulate::HEARTBEAT;
use crate::simulate::member::Order;
use crate::units::Millis;

/// After so many signs of life without an answer a member tries another server; at once where nobody is there at all.
const MISSED_MAX: u32 = 2;
/// Sessions that were lost come back within this time, spread out.
const JITTER: Millis = Millis::from_secs(2);

impl World {
    /// A member tells the server of its session everything, after a while.
    pub(super) fn report(&mut self, index: usize, after: Millis) {
        let network = self.setup.network;
        let Some(member) = self.members.get_mut(index) else { return };
        let report = Arc::new(member.report());
        member.heard = None;
        let server = member.session;
        if !member.reaches(server) {
            return;
        }
        let deliveries = network.deliveries(&mut self.prng);
        for delay in deliveries.into_iter().flatten() {
            let report = report.clone();
            self.push(after + delay, Event::ToServer { member: index, server, report });
        }
    }

    /// A server tells a member something over its session, if it has one with it.
    pub(super) fn order(&mut self, server: usize, id: &MemberId, order: Order) {
        let Some(member) = index_of(id) else { return };
        if self.members.get(member).is_none_or(|member| member.session != server) {
            return;
        }
        let deliveries = self.setup.network.deliveries(&mut self.prng);
        for delay in deliveries.into_iter().flatten() {
            self.push(delay, Event::ToMember { member, server, order: Box::new(order) });
        }
    }

    /// A server hears a report.
    pub(super) fn hear(&mut self, number: usize, index: usize, report: Arc<Report>) {
        let now = self.now();
        let Some(server) = self.servers.get_mut(number).filter(|server| server.up) else { return };
        // Nothing follows a goodbye in a session, which is one stream.
        if self.members.get(index).is_some_and(|member| member.parted) {
            return;
        }
        let id = report.member.clone();
        let kept = self.store.is_some().then(|| report.clone());
        if let Some(member) = self.members.get_mut(index).filter(|member| member.session == number)
            && member.is_latest(report.stamp)
        {
            member.heard.get_or_insert(now);
        }
        let (heard, order) = server.hear(report, now);
        if let (Heard::News, Some(store), Some(report)) = (heard, &mut self.store, kept) {
            store.note(number, id.clone(), Ok(report), now);
        }
        if let Some(order) = order {
            self.order(number, &id, order);
        }
        self.decide_soon(number);
    }

    pub(super) fn hear_goodbye(&mut self, number: usize, index: usize) {
        let now = self.now();
        let Some(member) = self.members.get_mut(index) else { return };
        let Some(server) = self.servers.get_mut(number).filter(|server| server.up) else { return };
        member.parted = true;
        server.fleet.leave(&member.id, now);
        if let Some(store) = &mut self.store {
            store.note(number, member.id.clone(), Err(member.next_stamp().life), now);
        }
        self.decide_soon(number);
    }

    /// Everybody who can be heard gives a sign of life; who was not understood says it all again, and who hears nothing tries
    /// another server.
    pub(super) fn heartbeats(&mut self) {
        self.push(HEARTBEAT, Event::Heartbeats);
        let now = self.now();
        for index in 0..self.members.len() {
            let lost = self.setup.network.loses(&mut self.prng);
            let member = &mut self.members[index];
            let Some(server) = self.servers.get_mut(member.session).filter(|_| member.alive) else {
                continue;
            };
            let reaches = server.up && member.reaches(server.number);
            if reaches && member.hears(server.number) {
                member.missed = 0;
            } else {
                member.missed += 1;
            }
            let most = if server.up { MISSED_MAX } else { 1 };
            let moves = member.missed >= most && self.store.is_some();
            if !moves && (lost || !reaches) {
                continue;
            }
            if moves {
                self.move_session(index);
            } else {
                let stamp = member.next_stamp();
                if member.heard.is_some() && server.fleet.heartbeat(&member.id, stamp, now) == Heard::News {
                    if let Some(store) = &mut self.store {
                        store.note_alive(server.number, index, now);
                    }
                    continue;
                }
            }
            let after = self.prng.between(Millis::ZERO, JITTER);
            self.push(after, Event::Report { member: index });
        }
        for number in 0..self.servers.len() {
            if self.servers[number].up {
                for (id, order) in self.servers[number].reminders(now) {
                    self.order(number, &id, order);
                }
                self.decide_soon(number);
            }
        }
    }

    fn move_session(&mut self, index: usize) {
        let others = self.servers.len().saturating_sub(1) as u64;
        let next = 1 + self.prng.below(others) as usize;
        let member = &mut self.members[index];
        member.session = (member.session + next) % self.servers.len();
        (member.missed, member.heard) = (0, None);
    }

    /// Everybody with a session here is told what is in force.
    pub(super) fn announce(&mut self, number: usize) {
        let Some(server) = self.servers.get(number) else { return };
        let Some(wish) = server.wish() else { return };
        let known: alloc::vec::Vec<MemberId> = server.fleet.members().map(|(id, _)| id.clone()).collect();
        for id in known {
            self.order(number, &id, wish);
        }
        self.decide_soon(number);
    }
}
