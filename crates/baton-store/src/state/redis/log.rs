//! The events in Redis: a stream whose ids are their numbers.
//!
//! Every server sees what happens, and would tell it. So each looks first at what others have told lately, and adds only what
//! nobody has; the stream is watched meanwhile, so that two do not look at the same time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use baton_core::event::{Event, What};
use baton_wire::stored::Record;
use redis::{Pipeline, Value};

use super::answer::{Unexpected, bytes, list, pairs, text};
use super::keys::Keys;
use crate::state::{EVENTS_MAX, Numbered};

/// How many events are added or read at once: a few hundred kilobytes.
pub(super) const BATCH: usize = 1000;
/// How long what another server has told is kept in mind: longer than any server takes to see it itself.
const RECENT: Duration = Duration::from_secs(15);
/// The fields of an entry.
const EVENT: &str = "event";
const SERVER: &str = "by";

/// What other servers have told lately.
#[derive(Debug, Default)]
pub(super) struct Told {
    recent: VecDeque<(Instant, Event)>,
}

impl Told {
    pub(super) fn note(&mut self, event: Event) {
        self.recent.push_back((Instant::now(), event));
        while self.recent.front().is_some_and(|(at, _)| at.elapsed() >= RECENT) {
            self.recent.pop_front();
        }
    }

    /// Whether another server has told this. Each is told once for one that it has told.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        let told = self.recent.iter().position(|(at, told)| at.elapsed() < RECENT && is_same(told, event));
        told.is_some_and(|told| self.recent.remove(told).is_some())
    }
}

/// Whether two servers tell the same. They count members at different moments, so the texts may differ.
fn is_same(told: &Event, event: &Event) -> bool {
    let place = |event: &Event| (event.service.clone(), event.deploy, event.member.clone());
    let what = match event.what {
        // Only one server knows of these.
        What::Pushed | What::Pruned | What::TookOver | What::StoreRestored => false,
        // Only the server that it said goodbye to knows that a member is not lost.
        What::Gone => matches!(told.what, What::Gone | What::Left),
        what => told.what == what,
    };
    what && place(told) == place(event)
}

/// Asks for the number of the last event.
pub(super) fn ask_last(keys: &Keys, ask: &mut Pipeline) {
    ask.cmd("XREVRANGE").arg(keys.events()).arg("+").arg("-").arg("COUNT").arg(1);
}

/// The number of the last event, 0 when there is none.
pub(super) fn read_last(answer: &Value) -> Result<u64, Unexpected> {
    match list(answer)? {
        [] => Ok(0),
        [entry, ..] => id_of(entry),
    }
}

/// Asks for the events after this number, a batch of them.
pub(super) fn ask_after(keys: &Keys, number: u64, ask: &mut Pipeline) {
    ask.cmd("XRANGE").arg(keys.events()).arg(format!("({number}-0")).arg("+").arg("COUNT").arg(BATCH);
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
    let event = |entry: &Value| {
        let number = id_of(entry).ok()?;
        let fields = list(entry).ok()?.get(1)?;
        let field = |name: &str| {
            let mut fields = pairs(fields).ok()?;
            fields.find(|(field, _)| text(field).is_ok_and(|field| field == name)).map(|(_, value)| value)
        };
        let event = Event::from_bytes(bytes(field(EVENT)?).ok()?).ok()?;
        Some((Numbered { number, event }, text(field(SERVER)?).ok()?))
    };
    Ok(Part { last, events: entries.iter().filter_map(event).collect() })
}

fn id_of(entry: &Value) -> Result<u64, Unexpected> {
    let wrong = || Unexpected::new("an entry of the stream of events", None);
    let id = text(list(entry)?.first().ok_or_else(wrong)?)?;
    let (high, _) = id.split_once('-').ok_or_else(wrong)?;
    high.parse().map_err(|_| wrong())
}

/// Adds events that have their numbers, and lets the oldest go.
pub(super) fn write(keys: &Keys, server: &str, events: &[Numbered], commands: &mut Pipeline) {
    for Numbered { number, event } in events {
        commands.cmd("XADD").arg(keys.events()).arg("MAXLEN").arg("=").arg(EVENTS_MAX);
        commands.arg(format!("{number}-0")).arg(EVENT).arg(event.to_bytes()).arg(SERVER).arg(server);
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
    fn what_another_server_has_told_is_not_told_again_but_happens_again() {
        let mut told = Told::default();
        told.note(event(What::Silent, Some("a"), "a is silent"));
        told.note(event(What::Frozen, None, "3 of 4 are silent"));
        told.note(event(What::Left, Some("b"), "b has left"));
        told.note(event(What::Pushed, None, "a release"));
        assert!(!told.take(&event(What::Silent, Some("b"), "b is silent")), "somebody else");
        assert!(told.take(&event(What::Silent, Some("a"), "a is silent")));
        assert!(!told.take(&event(What::Silent, Some("a"), "a is silent")), "once more is once more");
        assert!(told.take(&event(What::Frozen, None, "4 of 4 are silent")), "counted a moment later");
        assert!(told.take(&event(What::Gone, Some("b"), "b is gone")), "it said goodbye to the other one");
        assert!(!told.take(&event(What::Pushed, None, "a release")), "nobody else tells this");
    }
}
