//! What the bootloader tells the service manager that has started it: `sd_notify(3)`, spoken.
//!
//! Level-triggered: from how the member stands and what was told before follows what is told now.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::supervisor::{State, Supervisor};
use crate::units::Millis;

/// How much longer than a start may take the manager is asked to wait: should it fail, the next one begins after a
/// wait of half a minute at the most.
const START_SLACK: Millis = Millis::from_secs(60);
/// How much longer than the member needs for its end the manager is asked to wait: for a machine that is busy.
const STOP_SLACK: Millis = Millis::from_secs(5);

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// `READY=1`: the program serves, or a reload has ended.
    Ready,
    /// `RELOADING=1`, which `MONOTONIC_USEC` goes with.
    Reloading,
    /// `STOPPING=1`.
    Stopping,
    /// `STATUS=…`.
    Status(String),
    /// `EXTEND_TIMEOUT_USEC=…`: from now on.
    Extend(Millis),
    /// `WATCHDOG=1`.
    Alive,
}

/// How the member stands, as far as its manager cares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Some generation serves.
    pub serves: bool,
    /// A reload was asked for and has not ended.
    pub reloads: bool,
    /// By when the generation that is being started has served or failed.
    pub judged_by: Option<Millis>,
    /// By when the member ends, once it is being stopped.
    pub ends_by: Option<Millis>,
    /// The same for people.
    pub status: String,
}

impl Standing {
    /// How the generations of this member stand.
    pub fn of(machine: &Supervisor) -> Self {
        let generations = machine.generations();
        let serving = generations.iter().find(|generation| generation.state == State::Serving);
        let judged_by = generations.iter().filter_map(|generation| generation.judged_by()).max();
        let status = match serving {
            _ if machine.is_stopping() => String::from("stopping"),
            None => String::from("nothing serves"),
            Some(serving) => {
                let health = if serving.healthy_since.is_some() { "healthy" } else { "unhealthy" };
                let said = serving.said.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
                format!("generation {} ({}) serves, {health}{said}", serving.id, serving.plan.release)
            }
        };
        Self {
            serves: serving.is_some(),
            reloads: machine.is_reloading(),
            judged_by,
            ends_by: machine.ends_by().map(|end| end.all),
            status,
        }
    }
}

/// What the manager was told, and how often it wants a sign of life.
#[derive(Debug, Clone, Default)]
pub struct Announcer {
    ready: bool,
    reloading: bool,
    stopping: bool,
    status: String,
    /// Until when it was asked to wait for a start.
    waits_until: Millis,
    /// How often it is told that we live, and when next.
    watchdog: Option<(Millis, Millis)>,
}

impl Announcer {
    /// Nothing was told yet. The manager ends what gives no sign of life for as long as `watchdog`.
    pub fn new(watchdog: Option<Millis>) -> Self {
        // Twice as often, as `sd_watchdog_enabled(3)` recommends.
        let every = watchdog.map(|limit| Millis((limit.0 / 2).max(1)));
        Self { watchdog: every.map(|every| (every, Millis::ZERO)), ..Self::default() }
    }

    /// What to tell now.
    pub fn tell(&mut self, now: Millis, standing: &Standing) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(ends_by) = standing.ends_by {
            if !core::mem::replace(&mut self.stopping, true) {
                lines.extend([Line::Stopping, Line::Extend(ends_by.since(now) + STOP_SLACK)]);
            }
        } else if !self.ready {
            self.tell_start(now, standing, &mut lines);
        } else if standing.reloads != self.reloading {
            self.reloading = standing.reloads;
            lines.push(if standing.reloads { Line::Reloading } else { Line::Ready });
        }
        if standing.status != self.status {
            self.status.clone_from(&standing.status);
            lines.push(Line::Status(standing.status.clone()));
        }
        if let Some((every, at)) = &mut self.watchdog
            && *at <= now
        {
            *at = now + *every;
            lines.push(Line::Alive);
        }
        lines
    }

    fn tell_start(&mut self, now: Millis, standing: &Standing, lines: &mut Vec<Line>) {
        if standing.serves {
            self.ready = true;
            return lines.push(Line::Ready);
        }
        let until = standing.judged_by.map(|at| at + START_SLACK);
        if let Some(until) = until.filter(|until| *until > self.waits_until) {
            self.waits_until = until;
            lines.push(Line::Extend(until.since(now)));
        }
    }

    /// What to tell when a reload was asked for and there is none: the manager may wait for its beginning and end.
    pub fn not_reloaded(&mut self, why: &str) -> Vec<Line> {
        if !self.ready || self.reloading || self.stopping {
            return Vec::new();
        }
        // Said once; what is wrong stays there for people until how the member stands changes.
        Vec::from([Line::Reloading, Line::Ready, Line::Status(String::from(why))])
    }

    /// When the next sign of life is due.
    pub fn deadline(&self) -> Option<Millis> {
        self.watchdog.map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(status: &str) -> Standing {
        Standing { status: status.into(), ..Standing::default() }
    }

    fn status(text: &str) -> Line {
        Line::Status(text.into())
    }

    #[test]
    fn a_life_is_told_step_by_step_and_each_step_once() {
        let mut announcer = Announcer::new(None);
        let starting = Standing { judged_by: Some(Millis(60_000)), ..standing("nothing serves") };
        let serving = Standing { serves: true, ..standing("1 serves") };
        let reloading = Standing { reloads: true, ..serving.clone() };
        let changed = Standing { serves: true, ..standing("2 serves") };
        let gone = standing("nothing serves");
        let stopping = Standing { ends_by: Some(Millis(31_000)), serves: true, ..standing("stopping") };
        let steps = [
            (0, &starting, Vec::from([Line::Extend(Millis(120_000)), status("nothing serves")])),
            (10, &starting, Vec::new()),
            // A second start, later.
            (70, &Standing { judged_by: Some(Millis(90_000)), ..starting.clone() }, {
                Vec::from([Line::Extend(Millis(149_930))])
            }),
            (80, &serving, Vec::from([Line::Ready, status("1 serves")])),
            (80, &serving, Vec::new()),
            (90, &reloading, Vec::from([Line::Reloading])),
            (91, &reloading, Vec::new()),
            (95, &changed, Vec::from([Line::Ready, status("2 serves")])),
            // What is ready once is not started any more.
            (96, &gone, Vec::from([status("nothing serves")])),
            (97, &serving, Vec::from([status("1 serves")])),
            (1000, &stopping, Vec::from([Line::Stopping, Line::Extend(Millis(35_000)), status("stopping")])),
            (1001, &stopping, Vec::new()),
        ];
        for (now, standing, expected) in steps {
            assert_eq!(announcer.tell(Millis(now), standing), expected, "at {now}");
        }
        assert_eq!(announcer.not_reloaded("no"), []);
    }

    #[test]
    fn a_reload_that_does_not_come_about_is_told_as_begun_and_ended() {
        let mut announcer = Announcer::new(None);
        assert_eq!(announcer.not_reloaded("why"), []);
        announcer.tell(Millis(1), &Standing { serves: true, ..Standing::default() });
        assert_eq!(announcer.not_reloaded("why"), [Line::Reloading, Line::Ready, status("why")]);
    }

    #[test]
    fn signs_of_life_come_twice_as_often_as_they_are_wanted() {
        let mut announcer = Announcer::new(Some(Millis(10_000)));
        let quiet = Standing::default();
        let alive: Vec<u64> =
            (0..20).filter(|second| announcer.tell(Millis(second * 1000), &quiet) == [Line::Alive]).collect();
        assert_eq!(alive, [0, 5, 10, 15]);
        assert_eq!(announcer.deadline(), Some(Millis(20_000)));
        assert_eq!(Announcer::new(None).deadline(), None);
    }
}
