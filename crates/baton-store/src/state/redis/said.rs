//! What members say, shared: each server writes what it has heard under keys of its own, and reads those of the others.
//!
//! Nobody writes over what another has written, so there is nothing to lose between them: what a member said last shows by
//! its stamp, whoever heard it. The keys of a server that has ended run out by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use baton_core::fleet::{GONE_AFTER, LEASE, Member, Tie};
use baton_core::ids::{MemberId, ServiceName};
use baton_core::report::Report;
use baton_core::units::Millis;
use baton_wire::session::{self, FromMember};
use redis::{Pipeline, Value};

use super::answer::{Unexpected, integer, list, number, optional, pairs, text};
use super::keys::Keys;
use crate::state::News;
use crate::state::held::Held;

/// How long what a server has heard outlives it: until every member that is not heard elsewhere is gone.
pub(super) const KEPT: Duration = Duration::from_millis(2 * GONE_AFTER.0);
/// How far a moment may lie ahead of the store's clock: it was written just now, and the clock was read before. What lies
/// further ahead was written by another clock, and says nothing.
const AHEAD_MAX: u64 = 1000;

/// A member of a service.
pub(super) type Place = (ServiceName, MemberId);

/// What the members of this server have said.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) server: String,
    /// How many things were said so far.
    count: u64,
    said: BTreeMap<Place, Said>,
    /// What others do not know yet.
    unsaid: BTreeSet<Place>,
    unheard: BTreeSet<Place>,
    /// What others need not know any more.
    dropped: BTreeSet<Place>,
    /// How many members the store knows of this server.
    written: usize,
}

#[derive(Debug)]
struct Said {
    message: FromMember,
    life: u64,
    heard: Instant,
}

/// How much of another server's was read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Theirs {
    count: u64,
    heard: u64,
}

/// What another server has heard since.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Who said something, and how many things were said then.
    said: Vec<(Place, u64)>,
    /// Who was heard, and when by the clock of the store.
    heard: BTreeMap<Place, u64>,
}

impl Ours {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            count: 0,
            said: BTreeMap::new(),
            unsaid: BTreeSet::new(),
            unheard: BTreeSet::new(),
            dropped: BTreeSet::new(),
            written: 0,
        }
    }

    /// A member has said something that counts. `life` is which of its lives it was.
    pub(super) fn note(&mut self, service: &ServiceName, news: News, life: Option<u64>, heard: Instant) {
        let (place, message) = match news {
            News::Heartbeat { member, .. } => {
                let place = (service.clone(), member);
                if let Some(said) = self.said.get_mut(&place) {
                    said.heard = heard;
                }
                self.unheard.insert(place);
                return;
            }
            News::Report(report) => {
                ((service.clone(), report.member.clone()), FromMember::Report(report.into()))
            }
            News::Left(member) => ((service.clone(), member), FromMember::Goodbye),
        };
        let life = life.unwrap_or_default();
        self.dropped.remove(&place);
        self.said.insert(place.clone(), Said { message, life, heard });
        self.unsaid.insert(place.clone());
        self.unheard.insert(place);
    }

    /// Another server has heard more of it.
    fn give_up(&mut self, place: &Place) {
        if self.said.remove(place).is_some() {
            self.unsaid.remove(place);
            self.unheard.remove(place);
            self.dropped.insert(place.clone());
        }
    }

    /// Nobody may have heard anything of it: everything is said again, but for what those said who are gone.
    pub(super) fn repeat(&mut self, now: Instant) {
        let is_there = |(_, said): &(&Place, &Said)| millis(now.duration_since(said.heard)) < GONE_AFTER.0;
        self.unsaid = self.said.iter().filter(is_there).map(|(place, _)| place.clone()).collect();
        self.unheard.clone_from(&self.unsaid);
    }

    /// Whether there is something that others wait for.
    pub(super) fn has_news(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// The store knows of this many members of this server. When they are not those that were written, something was lost
    /// there.
    pub(super) fn compare(&mut self, stored: usize, now: Instant) {
        if stored != self.written {
            self.repeat(now);
        }
    }

    /// Writes what others do not know yet. `store_now` is the same moment as `now` by the clock of the store.
    pub(super) fn write(&mut self, keys: &Keys, now: Instant, store_now: u64, commands: &mut Pipeline) {
        let (said, changed) = (keys.said(&self.server), keys.changed(&self.server));
        let heard = keys.heard(&self.server);
        commands.cmd("ZADD").arg(keys.servers()).arg(store_now).arg(&self.server);
        // Who has left needs not be remembered, nor who is gone: it would come back with every loss.
        let past = |said: &Said| now.duration_since(said.heard) >= KEPT;
        let past: Vec<_> =
            self.said.iter().filter(|(_, said)| past(said)).map(|(place, _)| place.clone()).collect();
        past.iter().for_each(|place| self.give_up(place));
        for place in &self.dropped {
            let field = field(place);
            commands.cmd("HDEL").arg(&said).arg(&field);
            commands.cmd("ZREM").arg(&changed).arg(&field);
            commands.cmd("ZREM").arg(&heard).arg(field);
        }
        for place in &self.unsaid {
            let Some(news) = self.said.get(place) else { continue };
            self.count += 1;
            let mut bytes = news.life.to_be_bytes().to_vec();
            bytes.extend(session::to_bytes(&news.message));
            commands.cmd("HSET").arg(&said).arg(field(place)).arg(bytes);
            commands.cmd("ZADD").arg(&changed).arg(self.count).arg(field(place));
        }
        for place in &self.unheard {
            let Some(news) = self.said.get(place) else { continue };
            let at = store_now.saturating_sub(millis(now.duration_since(news.heard)));
            commands.cmd("ZADD").arg(&heard).arg(at).arg(field(place));
        }
        for key in [&said, &changed, &heard] {
            commands.cmd("PEXPIRE").arg(key).arg(millis(KEPT));
        }
    }

    /// What was written is known now.
    pub(super) fn note_written(&mut self) {
        self.written = self.said.len();
        self.unsaid.clear();
        self.unheard.clear();
        self.dropped.clear();
    }
}

impl Theirs {
    /// Asks what a server has heard since.
    pub(super) fn ask(&self, keys: &Keys, server: &str, ask: &mut Pipeline) {
        let since = |moment: u64| format!("({moment}");
        ask.cmd("ZRANGEBYSCORE")
            .arg(keys.changed(server))
            .arg(since(self.count))
            .arg("+inf")
            .arg("WITHSCORES");
        ask.cmd("ZRANGEBYSCORE").arg(keys.heard(server)).arg(since(self.heard)).arg("+inf").arg("WITHSCORES");
    }

    /// The clock of the store was put back: what it says now is read from the beginning.
    pub(super) fn check_clock(&mut self, store_now: u64) {
        if self.heard > store_now.saturating_add(AHEAD_MAX) {
            self.heard = 0;
        }
    }

    /// What was read is known now.
    pub(super) fn read(&mut self, changed: &Changed) {
        self.count = changed.said.iter().map(|(_, count)| *count).fold(self.count, u64::max);
        self.heard = changed.heard.values().copied().fold(self.heard, u64::max);
    }
}

impl Changed {
    /// Reads the answers to [`Theirs::ask`].
    pub(super) fn of(answers: &[Value]) -> Result<Self, Unexpected> {
        let [said, heard] = answers else { return Err(Unexpected::new("what a server has heard", None)) };
        let scored = |(field, score): (&Value, &Value)| Some((place(&text(field).ok()?)?, score_of(score)?));
        // What cannot be understood is nobody's: it is as if it had not been heard.
        Ok(Self {
            said: pairs(said)?.filter_map(scored).collect(),
            heard: pairs(heard)?.filter_map(scored).collect(),
        })
    }

    /// Whether somebody said something.
    pub(super) fn has_news(&self) -> bool {
        !self.said.is_empty()
    }

    /// Asks what.
    pub(super) fn ask(&self, keys: &Keys, server: &str, ask: &mut Pipeline) {
        let fields: Vec<_> = self.said.iter().map(|(place, _)| field(place)).collect();
        ask.cmd("HMGET").arg(keys.said(server)).arg(fields);
    }

    /// Takes in what was said, and who was heard. `now` is a moment of the caller's clock, and `store_now` the same moment by
    /// that of the store. Returns who has left.
    pub(super) fn take_in(
        &self,
        said: Option<&Value>,
        ours: &mut Ours,
        held: &mut Held,
        now: Millis,
        store_now: u64,
    ) -> Result<Vec<Place>, Unexpected> {
        let mut left = Vec::new();
        let at = |place: &Place| self.heard.get(place).and_then(|heard| moment(*heard, now, store_now));
        let values = said.map_or(Ok(&[][..]), list)?;
        for ((place, _), value) in self.said.iter().zip(values) {
            let (service, member) = place;
            let Some((life, message)) = optional(value)?.and_then(|bytes| message(bytes, member)) else {
                continue;
            };
            match message {
                FromMember::Report(report) => {
                    // Of whom nobody says when it was heard, nobody knows that it is still there.
                    let at = at(place).unwrap_or(Millis(now.0.saturating_sub(LEASE.0)));
                    if newer(held, service, &report) {
                        ours.give_up(place);
                        let _ = held.hear(service, News::Report(*report), at);
                    }
                }
                FromMember::Goodbye => {
                    let known = held.get(service);
                    if known.fleet().member(member).is_some_and(|member| has_left(member, life)) {
                        let _ = held.hear(service, News::Left(member.clone()), now);
                        left.push(place.clone());
                    }
                }
                FromMember::Hello(_)
                | FromMember::Heartbeat(_)
                | FromMember::SecretsWanted(_)
                | FromMember::ContentLent(_) => {}
            }
        }
        for (service, member) in self.heard.keys() {
            if let Some(at) = at(&(service.clone(), member.clone())) {
                held.renew(service, member, at, now);
            }
        }
        Ok(left)
    }
}

/// Whether a report of another server says more than what is known.
fn newer(held: &Held, service: &ServiceName, report: &Report) -> bool {
    let known = held.get(service);
    let known = known.fleet().member(&report.member).and_then(|member| member.stamp());
    known.is_none_or(|known| report.stamp > known)
}

/// Whether a goodbye that another server has heard in this life ends what is known of a member. Where that is only that it has a
/// slot, the row of the member says soon whether it has failed.
fn has_left(member: &Member, life: u64) -> bool {
    member.stamp().map_or_else(|| !matches!(member.tie(), Tie::Slot(_)), |stamp| stamp.life <= life)
}

/// What a member said, with its life before it.
fn message(bytes: &[u8], member: &MemberId) -> Option<(u64, FromMember)> {
    let (life, message) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*life), session::from_bytes(message, member).ok()??))
}

/// A moment of the store's clock, by the caller's. None when it cannot be: clocks were changed.
fn moment(at: u64, now: Millis, store_now: u64) -> Option<Millis> {
    (at <= store_now.saturating_add(AHEAD_MAX))
        .then(|| Millis(now.0.saturating_sub(store_now.saturating_sub(at))))
}

fn field((service, member): &Place) -> String {
    format!("{service} {member}")
}

fn place(field: &str) -> Option<Place> {
    let (service, member) = field.split_once(' ')?;
    Some((service.parse().ok()?, member.parse().ok()?))
}

fn score_of(score: &Value) -> Option<u64> {
    number(score).ok()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How many members the store knows of a server.
pub(super) fn read_count(answer: &Value) -> Result<usize, Unexpected> {
    Ok(usize::try_from(integer(answer)?).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use baton_core::fleet::{Fleet, Grant};
    use baton_core::ids::Epoch;
    use baton_core::report::{Stamp, Standing};

    use super::*;

    const GONE: Duration = Duration::from_millis(GONE_AFTER.0);

    #[test]
    fn what_those_said_who_are_gone_is_neither_repeated_nor_kept() {
        let (mut ours, start) = (Ours::new("a".to_owned()), Instant::now());
        let place = |name: &str| ("web".parse().unwrap(), name.parse().unwrap());
        let message = FromMember::Goodbye;
        for (name, heard) in [("dead", start), ("there", start + GONE)] {
            ours.said.insert(place(name), Said { message: message.clone(), life: 1, heard });
        }
        ours.repeat(start + GONE);
        assert_eq!(ours.unsaid, [place("there")].into());
        ours.write(&Keys::new("baton"), start + KEPT, 0, &mut Pipeline::new());
        assert_eq!(ours.said.keys().collect::<Vec<_>>(), [&place("there")]);
        assert_eq!(ours.dropped, [place("dead")].into());
    }

    #[test]
    fn a_moment_of_the_store_is_told_by_the_callers_clock_unless_it_lies_ahead() {
        let now = Millis(50_000);
        assert_eq!(moment(999_000, now, 1_000_000), Some(Millis(49_000)));
        assert_eq!(moment(1_000_400, now, 1_000_000), Some(now), "written just now");
        assert_eq!(moment(1_002_000, now, 1_000_000), None, "the clock was put back");
        assert_eq!(moment(1, now, 1_000_000), Some(Millis(0)), "before this server was started");
    }

    #[test]
    fn a_goodbye_heard_elsewhere_ends_what_is_left_of_a_slot_and_not_a_slot_that_may_have_failed() {
        let id: MemberId = "m".parse().unwrap();
        let grant = Grant { phase: 0, bake: Millis(0), proven: false };
        let known = |tie, report: Option<u64>| {
            let mut fleet = Fleet::restore([(id.clone(), tie)], None, Epoch(0), Millis(0));
            let stamp = |life| Stamp { life, sequence: 1 };
            let report = report.map(|life| Report::plain(id.clone(), stamp(life), Standing::Behind));
            if let Some(report) = report {
                let _ = fleet.apply(report, Millis(0));
            }
            has_left(fleet.member(&id).unwrap(), 5)
        };
        for (tie, report, left) in [
            (Tie::Leftover, None, true),
            (Tie::Nothing, None, true),
            (Tie::Slot(grant), None, false),
            (Tie::Slot(grant), Some(5), true),
            (Tie::Leftover, Some(6), false),
        ] {
            assert_eq!(known(tie, report), left, "{tie:?} {report:?}");
        }
    }

    #[test]
    fn p36_what_is_no_member_or_no_message_is_nobodys() {
        for field in ["", "web", "web ", " m", "we b m", "web m 1", "web \u{1b}"] {
            assert_eq!(place(field), None, "{field:?}");
        }
        let member = "m".parse().unwrap();
        for bytes in [&b""[..], b"1234567", b"12345678", b"12345678\xff\xff"] {
            assert!(message(bytes, &member).is_none());
        }
    }
}
