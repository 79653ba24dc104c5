//! The simulated state store that several servers share, and which may forget.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::server::Server;
use super::world::index_of;
use crate::fleet::{Fleet, Tie};
use crate::history::{History, Lock, Past, Settled, settle};
use crate::ids::{Epoch, MemberId};
use crate::report::Report;
use crate::units::Millis;

/// How many of the newest writes a store can lose.
const REMEMBERED: usize = 64;

/// Which write it was: a number that grows, and one that no other write has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Version {
    count: u64,
    write: u64,
}

/// What a store keeps of the service.
struct Stored {
    version: Version,
    past: Vec<Past>,
    lock: Option<Lock>,
    /// The deploy in force, and what ties each member that is known to it: no more than that is read.
    fleet: Fleet,
}

/// What a member said to a server, as others may read it.
#[derive(Clone)]
struct Said {
    member: MemberId,
    /// Its report; none when it said goodbye.
    report: Option<Arc<Report>>,
    /// In which life it said goodbye.
    life: u64,
    heard_at: Millis,
    /// Which write of all it was.
    count: u64,
}

/// What the members of one server have said last, and in which order that was written.
#[derive(Clone, Default)]
struct Told {
    by_member: Vec<Option<Said>>,
    /// Which write was of which member, the oldest first. Those count that were their member's last, as the last of all is.
    writes: VecDeque<(u64, u32)>,
}

/// What all servers write to and read.
pub(super) struct Store {
    pub up: bool,
    /// Which process answers.
    process: u32,
    stored: Option<Rc<Stored>>,
    before: VecDeque<Option<Rc<Stored>>>,
    writes: u64,
    /// What each server has heard.
    said: Vec<Told>,
    links: Vec<Link>,
}

/// What one server knows of the store.
#[derive(Clone, Default)]
struct Link {
    process: u32,
    version: Version,
    /// What its members have said, by their number.
    heard: Vec<Option<Said>>,
    /// Those of them that the store does not have.
    unwritten: Vec<u32>,
    written: u64,
    /// How much of each other server was read.
    read: Vec<u64>,
}

/// What a look at the store has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// Nothing, or members that were heard elsewhere.
    Known,
    /// Another server has changed something, which was taken over.
    TakenOver,
    /// The store had lost something, which was written back.
    WrittenBack,
    /// The store had lost something, and others have gone on from there.
    GivenUp,
}

impl Store {
    /// An empty store for so many servers.
    pub(super) fn new(servers: usize) -> Self {
        let link = Link { read: alloc::vec![0; servers], ..Link::default() };
        Self {
            up: true,
            process: 0,
            stored: None,
            before: VecDeque::new(),
            writes: 0,
            said: alloc::vec![Told::default(); servers],
            links: alloc::vec![link; servers],
        }
    }

    /// Another process answers, without the newest writes: so many, or all.
    pub(super) fn lose(&mut self, writes: Option<u32>) {
        self.process += 1;
        match writes {
            None => {
                self.stored = None;
                self.before.clear();
                self.said.iter_mut().for_each(|told| *told = Told::default());
            }
            Some(writes) => {
                for _ in 0..writes {
                    if let Some(before) = self.before.pop_back() {
                        self.stored = before;
                    }
                }
                // What was said since then is gone as well.
                let last = self.version().write;
                self.said.iter_mut().for_each(|told| told.forget_after(last));
            }
        }
    }

    /// Which write a server has seen last.
    pub(super) fn seen_by(&self, server: usize) -> Version {
        self.links[server].version
    }

    /// A server has got no answer to its write: for all it knows, this one is the last.
    pub(super) fn forget(&mut self, server: usize, version: Version) {
        self.links[server].version = version;
    }

    /// Which write was the last.
    pub(super) fn version(&self) -> Version {
        self.stored.as_ref().map_or(Version::default(), |stored| stored.version)
    }

    /// Writes what a server has.
    pub(super) fn put(&mut self, server: &Server) {
        let count = self.version().count.max(self.links[server.number].version.count) + 1;
        self.writes += 1;
        let version = Version { count, write: self.writes };
        let stored = Stored {
            version,
            past: server.past().to_vec(),
            lock: server.history.lock().cloned(),
            fleet: server.fleet.clone(),
        };
        self.before.push_back(self.stored.replace(Rc::new(stored)));
        if self.before.len() > REMEMBERED {
            self.before.pop_front();
        }
        self.links[server.number].version = version;
    }

    /// A server starts with what is here.
    pub(super) fn start(&mut self, server: &mut Server, now: Millis) {
        let read = alloc::vec![0; self.links.len()];
        let written = self.last_said(server.number);
        let link = Link { process: self.process, version: self.version(), read, written, ..Link::default() };
        self.links[server.number] = link;
        let service = server.history.service().clone();
        let (fleet, history) = match &self.stored {
            Some(stored) => (stored.started(now), stored.history(&server.history)),
            None => (Fleet::restore([], None, Epoch(0), now), History::new(service, Vec::new())),
        };
        server.start(fleet, history, now);
        // What its last life has heard is there as well.
        self.hear_all(server.number, 0, server, now);
    }

    /// A member has said something to a server, that the others are to hear of: a report, or goodbye in this life.
    pub(super) fn note(
        &mut self,
        server: usize,
        member: MemberId,
        said: Result<Arc<Report>, u64>,
        now: Millis,
    ) {
        let (Some(link), Some(index)) = (self.links.get_mut(server), index_of(&member)) else { return };
        let (report, life) = match said {
            Ok(report) => (Some(report), 0),
            Err(life) => (None, life),
        };
        place(&mut link.heard, index, Said { member, report, life, heard_at: now, count: 0 });
        link.unwritten.push(index as u32);
    }

    /// A member has given a sign of life to a server.
    pub(super) fn note_alive(&mut self, server: usize, member: usize, now: Millis) {
        let Some(link) = self.links.get_mut(server) else { return };
        if let Some(Some(said)) = link.heard.get_mut(member) {
            said.heard_at = now;
            link.unwritten.push(member as u32);
        }
    }

    /// A server looks: it tells what it has heard, hears what others have, and takes over what they have changed.
    pub(super) fn look(&mut self, server: &mut Server, now: Millis) -> Looked {
        self.tell(server.number);
        self.listen(server, now);
        let looked = self.compare(server, now);
        let link = &mut self.links[server.number];
        if link.process != self.process {
            link.process = self.process;
            doubt(link, server, now);
        }
        looked
    }

    fn tell(&mut self, server: usize) {
        let last = self.last_said(server);
        let link = &mut self.links[server];
        let said = &mut self.said[server];
        // When the store has not got what was written last, something was lost there.
        if last != link.written {
            link.repeat();
        }
        for member in link.unwritten.drain(..) {
            let Some(Some(heard)) = link.heard.get(member as usize) else { continue };
            self.writes += 1;
            link.written = self.writes;
            said.place(member, Said { count: link.written, ..heard.clone() });
        }
    }

    /// Which write was the last by which a server told what it has heard.
    fn last_said(&self, server: usize) -> u64 {
        self.said[server].last()
    }

    fn listen(&mut self, server: &mut Server, now: Millis) {
        let here = server.number;
        for there in (0..self.said.len()).filter(|there| *there != here) {
            let read = self.links[here].read[there];
            self.links[here].read[there] = self.hear_all(there, read, server, now);
        }
    }

    /// A server hears what another one has written after this write. Returns which was the last.
    fn hear_all(&self, there: usize, read: u64, server: &mut Server, now: Millis) -> u64 {
        for said in self.said[there].after(read) {
            hear(server, &said.member, said, now);
        }
        self.said[there].last()
    }

    fn compare(&mut self, server: &mut Server, now: Millis) -> Looked {
        let known = self.links[server.number].version;
        let found = self.stored.clone();
        let version = self.version();
        if version == known {
            return Looked::Known;
        }
        let in_force = server.history.in_force();
        match found {
            Some(found) if version.count > known.count && found.continues(in_force) => {
                self.take_over(server, &found, now);
                Looked::TakenOver
            }
            found => {
                doubt(&mut self.links[server.number], server, now);
                let gone_on = found.filter(|found| {
                    settle(&server.history, &found.history(&server.history)) == Settled::TakeOver
                });
                match gone_on {
                    Some(found) => {
                        self.take_over(server, &found, now);
                        Looked::GivenUp
                    }
                    None => {
                        self.put(server);
                        Looked::WrittenBack
                    }
                }
            }
        }
    }

    fn take_over(&mut self, server: &mut Server, found: &Stored, now: Millis) {
        let before = server.history.in_force().map(|deploy| deploy.id);
        server.fleet.adopt(&found.fleet, None, now);
        server.history = found.history(&server.history);
        self.links[server.number].version = found.version;
        if server.history.in_force().map(|deploy| deploy.id) != before {
            server.note_other_deploy(now);
        }
    }
}

impl Told {
    /// Which write was the last.
    fn last(&self) -> u64 {
        self.writes.back().map_or(0, |(count, _)| *count)
    }

    /// What was written after this write, in the order of the members.
    fn after(&self, read: u64) -> impl Iterator<Item = &Said> {
        let first = self.writes.partition_point(|(count, _)| *count <= read);
        let counts = self.writes.range(first..).filter(|write| self.counts(write));
        let mut members: Vec<u32> = counts.map(|(_, member)| *member).collect();
        members.sort_unstable();
        members.into_iter().filter_map(|member| self.by_member.get(member as usize)?.as_ref())
    }

    fn place(&mut self, member: u32, said: Said) {
        self.writes.push_back((said.count, member));
        place(&mut self.by_member, member as usize, said);
        if self.writes.len() > 2 * self.by_member.len() {
            let mut writes = core::mem::take(&mut self.writes);
            writes.retain(|write| self.counts(write));
            self.writes = writes;
        }
    }

    /// Whether a write was the last of its member.
    fn counts(&self, (count, member): &(u64, u32)) -> bool {
        let said = self.by_member.get(*member as usize).and_then(Option::as_ref);
        said.is_some_and(|said| said.count == *count)
    }

    /// What was written after this write is gone.
    fn forget_after(&mut self, last: u64) {
        let stays = self.writes.partition_point(|(count, _)| *count <= last);
        for (_, member) in self.writes.split_off(stays) {
            self.by_member[member as usize] = None;
        }
        while self.writes.back().is_some_and(|write| !self.counts(write)) {
            self.writes.pop_back();
        }
    }
}

impl Link {
    /// Nobody may have heard anything of it: everything is said again.
    fn repeat(&mut self) {
        let heard = self.heard.iter().enumerate().filter(|(_, said)| said.is_some());
        self.unwritten = heard.map(|(member, _)| member as u32).collect();
    }
}

impl Stored {
    /// The fleet, for a server that starts.
    fn started(&self, now: Millis) -> Fleet {
        let members = self.fleet.members().map(|(id, member)| (id.clone(), member.tie().as_stored()));
        let gone = self.fleet.members().filter(|(_, member)| member.is_gone()).map(|(id, _)| id.clone());
        Fleet::restore(members, self.fleet.in_force().cloned(), self.fleet.highest_epoch(), now).without(gone)
    }

    /// The log that is stored, of the same service as this one.
    fn history(&self, of: &History) -> History {
        History::new(of.service().clone(), self.past.clone()).with_lock(self.lock.clone())
    }

    /// Whether all that a server knows of, up to the deploy in force there, is stored.
    fn continues(&self, in_force: Option<&crate::deploy::Deploy>) -> bool {
        in_force.is_none_or(|known| self.past.iter().any(|past| past.deploy == *known))
    }
}

/// What was granted may be lost, and what was said here as well.
fn doubt(link: &mut Link, server: &mut Server, now: Millis) {
    server.fleet.listen_anew(now);
    link.repeat();
}

/// Takes in what another server has heard of a member.
fn hear(server: &mut Server, id: &MemberId, said: &Said, now: Millis) {
    if let Some(report) = &said.report {
        let known = server.fleet.renew(id, said.heard_at);
        if known.is_none_or(|known| report.stamp > known) {
            let _ = server.fleet.apply(report.clone(), said.heard_at.min(now));
        }
        return;
    }
    let member = server.fleet.member(id);
    let left_over = member.is_some_and(|member| !matches!(member.tie(), Tie::Slot(_)));
    let known = member.and_then(|member| member.stamp());
    if known.map_or(left_over, |known| known.life <= said.life) {
        server.fleet.leave(id, now);
    }
}

/// Puts it there.
fn place(list: &mut Vec<Option<Said>>, index: usize, said: Said) {
    if list.len() <= index {
        list.resize(index + 1, None);
    }
    list[index] = Some(said);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(count: u64) -> Said {
        let member = "m-1".parse().unwrap();
        Said { member, report: None, life: 1, heard_at: Millis::ZERO, count }
    }

    fn after(told: &Told, read: u64) -> Vec<u64> {
        told.after(read).map(|said| said.count).collect()
    }

    #[test]
    fn what_a_member_said_last_is_read_once_and_what_is_lost_is_gone() {
        let mut told = Told::default();
        for (count, member) in [(1, 0), (2, 1), (5, 0), (6, 2), (7, 1)] {
            told.place(member, said(count));
        }
        assert_eq!((after(&told, 0), told.last()), (std::vec![5, 7, 6], 7), "in the order of the members");
        assert_eq!((after(&told, 5), after(&told, 7)), (std::vec![7, 6], Vec::new()));
        told.forget_after(5);
        assert_eq!((after(&told, 0), told.last()), (std::vec![5], 5), "of the second one nothing is left");
        told.forget_after(1);
        assert_eq!((after(&told, 0), told.last()), (Vec::new(), 0));
        (1..1000).for_each(|count| told.place(count as u32 % 3, said(count)));
        assert!(told.writes.len() <= 6, "{:?}", told.writes);
        assert_eq!(after(&told, 0), [999, 997, 998]);
    }
}
