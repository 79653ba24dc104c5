//! A start under a bootloader, until the program serves or has failed.

use std::time::{Duration, Instant};

use baton_core::doctor::{Given, Place, Seen, Start};
use baton_core::run::RunSettings;

use super::member::Member;
use super::stop::millis;
use super::told::Told;
use super::{DoctorError, look, wait_for};

/// How much later than that a program serves may be said which socket it got: a thread of its own says it. What was
/// not said then was taken as it was passed.
const SAID_LATER: Duration = Duration::from_millis(300);

/// What the start of a program has come to so far.
struct Starting<'a> {
    run: &'a RunSettings,
    begun: Instant,
    seen: Seen,
    /// The bootloader has found out that it must relay, and does so from the next launch on.
    relays_next: bool,
}

/// Waits until the program of a member serves or has failed, at most for so long.
///
/// # Errors
/// The bootloader ends, or somebody interrupts.
pub fn start(member: &mut Member, run: &RunSettings, limit: Duration) -> Result<Seen, DoctorError> {
    let begun = Instant::now();
    let unknown = Start::Failed { why: String::new(), left_behind: Vec::new() };
    let mut starting = Starting { run, begun, seen: Seen::of(unknown), relays_next: false };
    let start = wait_for(limit, || {
        let ended = member.ended()?;
        if let Some(start) = starting.hear_all(member)? {
            return Ok(Some(start));
        }
        starting.look(member.pid());
        match ended {
            Some(_) => Err(member.does_not("run the program")),
            None => Ok(None),
        }
    })?;
    let start = start.unwrap_or_else(|| starting.late(limit));
    wait_for(SAID_LATER, || {
        starting.hear_all(member)?;
        Ok(starting.has_sockets().then_some(()))
    })?;
    Ok(Seen { start, ..starting.seen })
}

impl Starting<'_> {
    /// Takes in all that the bootloader has said since; the start, if its end was among that.
    fn hear_all(&mut self, member: &mut Member) -> Result<Option<Start>, DoctorError> {
        let mut start = None;
        for told in member.news()? {
            start = start.or(self.hear(told));
        }
        Ok(start)
    }

    /// Whether it is known of every listener how the program got its socket.
    fn has_sockets(&self) -> bool {
        let known = |name: &str| self.seen.given.iter().any(|(given, _)| given == name);
        self.run.listen.iter().all(|listen| known(&listen.name))
    }

    /// Takes in what the bootloader said; the start, if that is its end.
    fn hear(&mut self, told: Told) -> Option<Start> {
        match told {
            Told::Bound(listener, asked) => self.seen.given.push((listener, Given::Bound(asked))),
            Told::Denied(listener, why) => self.seen.given.push((listener, Given::Refused(why))),
            Told::RelaysNext => self.relays_next = true,
            Told::Relayed => {
                let names = self.run.listen.iter().map(|listen| listen.name.clone());
                self.seen.given = names.map(|name| (name, Given::Relayed)).collect();
            }
            Told::Failed(..) if self.relays_next => {
                self.relays_next = false;
                self.begun = Instant::now();
            }
            Told::Serves(_) => return Some(Start::Healthy(millis(self.begun.elapsed()))),
            Told::Failed(_, why) => return Some(Start::Failed { why, left_behind: Vec::new() }),
            Told::Gone(_) | Told::Stopping => {}
        }
        None
    }

    /// One that fails is gone when that is said, so it is looked at before.
    fn look(&mut self, boot: i32) {
        let below = look::below(boot);
        if let Some(first) = below.first() {
            self.seen.listening = look::places(&below);
            self.seen.processes = look::describe(&below, first.pid);
        }
    }

    fn late(&self, limit: Duration) -> Start {
        let at: Vec<String> = self.seen.listening.iter().map(Place::to_string).collect();
        let listens =
            if at.is_empty() { String::new() } else { format!("; it listens on {}", at.join(", ")) };
        let why = format!("not healthy within {}{listens}", millis(limit));
        Start::Failed { why, left_behind: Vec::new() }
    }
}
