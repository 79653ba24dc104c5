//! The events in Redis: a stream whose ids are their numbers.
//!
//! Every server sees what happens, and would tell it. So each looks first at what others have told lately, and adds only what
//! nobody has; the stream is watched meanwhile, so that two do not look at the same time.
//!
//! No number is used for two events. Where the stream has less than a server knows, what is missing is written again, and the
//! numbers go on far above it, since others may have told more. Where it has something else, what it has counts, and what is
//! missing is told again under new numbers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use baton_core::event::{Event, What};
use baton_core::ids::{DeployId, MemberId, ServiceName};
use baton_wire::stored::Record;
use redis::{Pipeline, Value};

use super::answer::{Unexpected, bytes, list, number, pairs, text};
use super::keys::Keys;
use super::said::Place;
use crate::state::events::EventLog;
use crate::state::{EVENTS_MAX, Numbered};

/// How many events are added or read at once: a few hundred kilobytes.
pub(super) const BATCH: usize = 1000;
/// How long what another server has told is kept in mind: longer than any server takes to see it itself.
const RECENT: Duration = Duration::from_secs(15);
/// How far above what is known numbers go on after a loss: further than any server can have told of which nobody hears.
pub(super) const GAP: u64 = 1_000_000;
/// The highest number that is one: every reader of JSON knows all of them.
const NUMBER_MAX: u64 = 1 << 53;
/// The fields of an entry.
const EVENT: &str = "event";
const SERVER: &str = "by";
/// Of an entry that was written again: the number of the next new event, at the least.
const NEXT: &str = "next";

/// What an event is about.
type About = (ServiceName, Option<DeployId>, Option<MemberId>);

/// What was told lately. Thousands of members do the same at once, so it is found by what it is about.
#[derive(Debug, Default)]
pub(super) struct Told {
    by_about: BTreeMap<About, VecDeque<One>>,
    /// In the order in which it is forgotten. What was taken is still here.
    recent: VecDeque<(Instant, About)>,
    /// Who has said goodbye to another server, and when that was heard here.
    left: BTreeMap<Place, Instant>,
}

#[derive(Debug)]
struct One {
    at: Instant,
    by: By,
    event: Event,
}

/// Who has told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// This server, which may not know it: the answer was lost.
    Us,
    Others,
}

impl Told {
    pub(super) fn note(&mut self, event: &Event, by: By, now: Instant) {
        let about = about(event);
        self.forget(now);
        self.recent.push_back((now, about.clone()));
        self.by_about.entry(about).or_default().push_back(One { at: now, by, event: event.clone() });
    }

    fn forget(&mut self, now: Instant) {
        while let Some((_, about)) = self.recent.pop_front_if(|(at, _)| is_old(*at, now)) {
            if let Entry::Occupied(mut told) = self.by_about.entry(about) {
                told.get_mut().retain(|one| !is_old(one.at, now));
                if told.get().is_empty() {
                    told.remove();
                }
            }
        }
    }

    /// A member has said goodbye to another server.
    pub(super) fn note_left(&mut self, place: Place, now: Instant) {
        self.left.retain(|_, at| !is_old(*at, now));
        self.left.insert(place, now);
    }

    /// The same event, as it is to be told: who has said goodbye to another server was not silent for too long.
    pub(super) fn put_right(&self, event: &Event, now: Instant) -> Event {
        let left = |member: &MemberId| {
            let at = self.left.get(&(event.service.clone(), member.clone()));
            at.is_some_and(|at| !is_old(*at, now))
        };
        match &event.member {
            Some(member) if event.what == What::Gone && left(member) => {
                Event { what: What::Left, text: format!("{member} has left"), ..event.clone() }
            }
            _ => event.clone(),
        }
    }

    /// Whether this was told. Each is told once for one that another server has told.
    pub(super) fn take(&mut self, event: &Event, now: Instant) -> bool {
        self.forget(now);
        let Entry::Occupied(mut told) = self.by_about.entry(about(event)) else { return false };
        let at = told.get().iter().position(|one| match one.by {
            By::Us => one.event == *event,
            By::Others => is_same(one.event.what, event.what),
        });
        let taken = at.is_some_and(|at| told.get_mut().remove(at).is_some());
        if told.get().is_empty() {
            told.remove();
        }
        taken
    }
}

fn is_old(at: Instant, now: Instant) -> bool {
    now.duration_since(at) >= RECENT
}

fn about(event: &Event) -> About {
    (event.service.clone(), event.deploy, event.member.clone())
}

/// Whether two servers tell the same, where it is about the same. They count members at different moments, so the texts may
/// differ.
fn is_same(told: What, what: What) -> bool {
    match what {
        // Only one server knows of these.
        What::Pushed | What::Pruned | What::TookOver | What::StoreRestored => false,
        // Who hears nothing of a goodbye knows only that a member is not there any more.
        What::Gone => matches!(told, What::Gone | What::Left),
        what => told == what,
    }
}

/// Where the stream ends, and what it has where the log ends that is known.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// The number of its last entry, 0 when there is none.
    pub(super) last: u64,
    /// The number of the next new event, at the least.
    pub(super) next: u64,
    newest: Option<Numbered>,
    known: Option<Numbered>,
}

/// What the stream is to a log that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// It has the end of it, and goes on from there.
    GoesOn,
    /// It has lost the end of it.
    IsCut,
    /// It has something else in its place.
    IsOther,
}

/// Asks where the stream ends. `known` is the last number that is known.
pub(super) fn ask_ends(keys: &Keys, known: u64, ask: &mut Pipeline) {
    ask.cmd("XREVRANGE").arg(keys.events()).arg("+").arg("-").arg("COUNT").arg(1);
    ask.cmd("XRANGE").arg(keys.events()).arg(format!("{known}-0")).arg(known).arg("COUNT").arg(1);
}

impl Ends {
    /// Reads both answers to [`ask_ends`].
    pub(super) fn read(newest: &Value, known: &Value) -> Result<Self, Unexpected> {
        let event = |entry| event_of(entry).map(|(event, _)| event);
        let known = list(known)?.first().and_then(event);
        let Some(newest) = list(newest)?.first() else {
            return Ok(Self { last: 0, next: 1, newest: None, known });
        };
        let last = id_of(newest)?;
        let next = field(newest, NEXT).and_then(|next| number(next).ok()).filter(|next| *next <= NUMBER_MAX);
        Ok(Self { last, next: next.unwrap_or(0).max(last + 1), newest: event(newest), known })
    }

    /// What the stream is to this log.
    pub(super) fn compare(&self, log: &EventLog) -> Course {
        let Some(last) = log.last() else { return Course::GoesOn };
        if self.known.as_ref() == Some(last) {
            return Course::GoesOn;
        }
        let is_older = log.all().next().is_none_or(|first| self.last < first.number);
        if self.last < last.number && (is_older || log.find(self.last) == self.newest.as_ref()) {
            return Course::IsCut;
        }
        Course::IsOther
    }
}

/// Asks for the events after `known` up to `last`, a batch of them.
pub(super) fn ask_between(keys: &Keys, known: u64, last: u64, ask: &mut Pipeline) {
    ask.cmd("XRANGE").arg(keys.events()).arg(format!("({known}-0")).arg(last).arg("COUNT").arg(BATCH);
}

/// A part of the stream.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The number of its last entry; none when it is empty.
    pub(super) last: Option<u64>,
    /// The events, each with the server that told it.
    pub(super) events: Vec<(Numbered, String)>,
}

/// Reads a part of the stream. What is no event is left out, since nothing is decided by them.
pub(super) fn read(answer: &Value) -> Result<Part, Unexpected> {
    let entries = list(answer)?;
    let last = entries.last().map(id_of).transpose()?;
    Ok(Part { last, events: entries.iter().filter_map(event_of).collect() })
}

fn event_of(entry: &Value) -> Option<(Numbered, String)> {
    // Of one number there is one event, and all else is somebody else's.
    let id = text(list(entry).ok()?.first()?).ok()?;
    let number = id.strip_suffix("-0")?.parse().ok()?;
    let event = Event::from_bytes(bytes(field(entry, EVENT)?).ok()?).ok()?;
    Some((Numbered { number, event }, text(field(entry, SERVER)?).ok()?))
}

fn field<'a>(entry: &'a Value, name: &str) -> Option<&'a Value> {
    let mut fields = pairs(list(entry).ok()?.get(1)?).ok()?;
    fields.find(|(field, _)| text(field).is_ok_and(|field| field == name)).map(|(_, value)| value)
}

fn id_of(entry: &Value) -> Result<u64, Unexpected> {
    let wrong = || Unexpected::new("an entry of the stream of events", None);
    let id = text(list(entry)?.first().ok_or_else(wrong)?)?;
    let (high, _) = id.split_once('-').ok_or_else(wrong)?;
    let number = high.parse().map_err(|_| wrong())?;
    // No event could follow it.
    if number > NUMBER_MAX { Err(wrong()) } else { Ok(number) }
}

/// Adds events that have their numbers, and lets the oldest go. `next` is the number with which new ones go on, where these are
/// written again.
pub(super) fn write(
    keys: &Keys,
    server: &str,
    events: &[Numbered],
    next: Option<u64>,
    commands: &mut Pipeline,
) {
    for Numbered { number, event } in events {
        commands.cmd("XADD").arg(keys.events()).arg("MAXLEN").arg("=").arg(EVENTS_MAX);
        commands.arg(format!("{number}-0")).arg(EVENT).arg(event.to_bytes()).arg(SERVER).arg(server);
        if let Some(next) = next {
            commands.arg(NEXT).arg(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: What, member: Option<&str>, text: &str) -> Event {
        let member = member.map(|member| member.parse().unwrap());
        Event { at: 1, service: "web".parse().unwrap(), deploy: None, member, what, text: text.to_owned() }
    }

    #[test]
    fn a_stream_goes_on_from_a_log_or_is_cut_or_has_something_else() {
        type Events = &'static [(u64, &'static str)];
        let numbered = |events: Events| -> Vec<_> {
            let numbered = |&(number, text)| Numbered { number, event: event(What::Pushed, None, text) };
            events.iter().map(numbered).collect()
        };
        let known: Events = &[(3, "c"), (4, "d"), (9, "e")];
        let table: &[(Events, Events, Course)] = &[
            (&[], &[], Course::GoesOn),
            (&[], &[(7, "x")], Course::GoesOn),
            (known, known, Course::GoesOn),
            (known, &[(3, "c"), (4, "d"), (9, "e"), (12, "f")], Course::GoesOn),
            (known, &[(9, "e"), (12, "f")], Course::GoesOn),
            (known, &[], Course::IsCut),
            (known, &[(2, "b")], Course::IsCut),
            (known, &[(3, "c"), (4, "d")], Course::IsCut),
            (known, &[(3, "c"), (4, "x")], Course::IsOther),
            (known, &[(3, "c"), (4, "d"), (5, "x")], Course::IsOther),
            (known, &[(3, "c"), (4, "d"), (9, "x")], Course::IsOther),
            (known, &[(12, "f")], Course::IsOther),
        ];
        for (known, stream, course) in table {
            let (log, stream) = (EventLog::of(numbered(known)), numbered(stream));
            let last = stream.last().map_or(0, |last| last.number);
            let known = stream.iter().find(|event| Some(event.number) == log.last().map(|last| last.number));
            let ends = Ends { last, next: 0, newest: stream.last().cloned(), known: known.cloned() };
            assert_eq!(ends.compare(&log), *course, "{stream:?}");
        }
    }

    #[test]
    fn what_another_server_has_told_is_not_told_again_but_happens_again() {
        let (mut told, now) = (Told::default(), Instant::now());
        for event in [
            event(What::Silent, Some("a"), "a is silent"),
            event(What::Frozen, None, "3 of 4 are silent"),
            event(What::Left, Some("b"), "b has left"),
            event(What::Pushed, None, "a release"),
        ] {
            told.note(&event, By::Others, now);
        }
        let mut take = |what, member, text| told.take(&event(what, member, text), now);
        assert!(!take(What::Silent, Some("b"), "b is silent"), "somebody else");
        assert!(take(What::Silent, Some("a"), "a is silent"));
        assert!(!take(What::Silent, Some("a"), "a is silent"), "once more is once more");
        assert!(take(What::Frozen, None, "4 of 4 are silent"), "counted a moment later");
        assert!(take(What::Gone, Some("b"), "b is gone"), "it said goodbye to the other one");
        assert!(!take(What::Pushed, None, "a release"), "nobody else tells this");
    }

    #[test]
    fn who_has_left_another_server_lately_is_not_gone_and_who_came_back_since_may_be() {
        let (mut told, start) = (Told::default(), Instant::now());
        let gone = |member| event(What::Gone, Some(member), "silent for too long");
        told.note_left(("web".parse().unwrap(), "a".parse().unwrap()), start);
        assert_eq!(told.put_right(&gone("a"), start), event(What::Left, Some("a"), "a has left"));
        assert_eq!(told.put_right(&gone("b"), start), gone("b"));
        let silent = event(What::Silent, Some("a"), "a is silent");
        assert_eq!(told.put_right(&silent, start), silent);
        assert_eq!(told.put_right(&gone("a"), start + RECENT), gone("a"));
    }

    #[test]
    fn what_this_server_has_told_is_told_again_unless_it_is_the_very_same() {
        let (mut told, now) = (Told::default(), Instant::now());
        let pushed = event(What::Pushed, None, "a release");
        told.note(&pushed, By::Us, now);
        assert!(!told.take(&event(What::Pushed, None, "another release"), now));
        assert!(told.take(&pushed, now) && !told.take(&pushed, now));
    }

    #[test]
    fn what_another_server_has_told_long_ago_is_forgotten_whether_it_was_taken_or_not() {
        let (mut told, early) = (Told::default(), Instant::now());
        let late = early + RECENT;
        let (silent, back) =
            (event(What::Silent, Some("a"), "silent"), event(What::Returned, Some("a"), "back"));
        for at in [early, late] {
            told.note(&silent, By::Others, at);
            told.note(&back, By::Us, at);
        }
        assert!(told.take(&silent, late) && !told.take(&silent, late), "the early one is forgotten");
        told.forget(late + RECENT);
        assert!(told.by_about.is_empty() && told.recent.is_empty(), "{told:?}");
    }
}
