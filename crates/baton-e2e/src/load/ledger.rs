//! The account of every request: a pure fold over what clients saw and what the driver said.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use baton_core::units::Millis;
use hdrhistogram::Histogram;

use super::plan::{Habit, Kind, Target};
use super::report::{Example, Latency, Loss, Losses, Phase, Report, Requests};
use super::said::Said;

/// A slow request on a reused connection that is cut later than this after it was sent was cut in the midst of its
/// work: that is no idle close. Long enough for a busy machine to notice a close that was under way, short enough
/// that most cuts of slow requests are told apart.
const IDLE_CLOSE: Millis = Millis(250);

/// A client on a busy machine notices this much later that a program has died.
const NOTICE: Millis = Millis::from_secs(1);

/// Cut requests are kept until the end, since the driver may learn only later that a program had died. Anyone who
/// cuts more than this has lost the others: they are counted at once.
const CUTS_KEPT_MAX: usize = 100_000;

/// One try to get one request answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The request's number, unique among all.
    pub seq: u64,
    /// The connection's number, unique among all.
    pub conn: u64,
    /// Where it went.
    pub target: Target,
    /// When its connection was begun.
    pub connecting: Millis,
    /// When the request was sent.
    pub sent: Millis,
    /// What its client does with connections.
    pub habit: Habit,
    /// What it asks for.
    pub kind: Kind,
    /// The process that gave this connection's earlier answers; none on a connection's first request.
    pub pid: Option<u32>,
}

impl Attempt {
    /// Whether this end is an idle close: the connection was reused, and closed before the answer began and before
    /// the program can have worked on the request. The request may be sent again.
    pub fn is_idle_close(&self, at: Millis, end: &End) -> bool {
        let cut = matches!(end, End::Cut { first_byte: false, .. });
        let at_work = self.kind != Kind::Plain && at.since(self.sent) >= IDLE_CLOSE;
        cut && self.pid.is_some() && !at_work
    }

    fn example(&self, at: Millis, detail: String) -> Example {
        Example {
            target: self.target.to_string(),
            habit: self.habit,
            kind: self.kind,
            conn: self.conn,
            seq: self.seq,
            connecting_ms: self.connecting.0,
            sent_ms: self.sent.0,
            ended_ms: at.0,
            detail,
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// In order: the other side had read all that it got.
    Eof,
    /// By a reset.
    Reset,
}

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its whole answer came and repeats its numbers.
    Answered {
        /// The release that answered.
        release: String,
        /// The process that answered.
        pid: u32,
    },
    /// The answer to an earlier request of this connection came.
    Duplicated,
    /// An answer came that is not one to this request.
    Mismatched {
        /// What is wrong with it.
        why: String,
    },
    /// No connection could be made.
    Refused {
        /// As the system puts it.
        why: String,
    },
    /// The connection ended before the whole answer had come.
    Cut {
        /// Whether some of the answer had come.
        first_byte: bool,
        /// How it ended.
        close: Close,
    },
    /// It took too long.
    TimedOut {
        /// Whether there was a connection.
        connected: bool,
    },
    /// The generator itself could not send it.
    NotSent {
        /// As the system puts it.
        why: String,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request was begun.
    Begun {
        /// Its number.
        seq: u64,
    },
    /// An attempt ended. After an idle close, another one for the same request follows.
    Ended {
        /// The attempt.
        attempt: Attempt,
        /// When.
        at: Millis,
        /// How long it took, connecting included.
        took: Duration,
        /// How.
        end: End,
    },
    /// More came after the whole answer to this attempt.
    Surplus {
        /// The attempt.
        attempt: Attempt,
        /// When.
        at: Millis,
    },
    /// The driver said something.
    Said {
        /// What.
        said: Said,
        /// When it was heard.
        at: Millis,
    },
}

/// The account of every request.
#[derive(Debug)]
pub struct Ledger {
    started: Millis,
    sent: u64,
    answered: u64,
    unfinished: HashSet<u64>,
    losses: BTreeMap<Loss, Losses>,
    cuts: Vec<Cut>,
    windows: Vec<Window>,
    /// Times in which a whole member was away.
    away: Vec<Window>,
    found_nobody: u64,
    idle_closes: u64,
    not_sent: u64,
    habits: BTreeMap<Habit, Requests>,
    /// The handover that goes on, or the last one.
    handover: Option<(Millis, Option<Millis>)>,
    latencies: BTreeMap<Phase, Histogram<u64>>,
    releases: BTreeMap<String, Answers>,
    forbidden: BTreeSet<String>,
    committed: HashMap<Target, (String, Millis)>,
    /// For each process, when the last request was sent that it answered: it was alive then.
    alive: HashMap<(Target, u32), Millis>,
}

/// A cut request, kept until it is known whether its program had died.
#[derive(Debug)]
struct Cut {
    attempt: Attempt,
    at: Millis,
    first_byte: bool,
    close: Close,
}

impl Cut {
    fn loss(&self) -> Loss {
        if self.first_byte { Loss::ResetAfterFirstByte } else { Loss::ResetBeforeFirstByte }
    }

    fn example(&self) -> Example {
        let how = match self.close {
            Close::Eof => "closed",
            Close::Reset => "reset",
        };
        let after = self.at.since(self.attempt.sent);
        self.attempt.example(self.at, format!("the connection was {how} {after} after the request was sent"))
    }
}

/// A time in which a program died. Without an end it is going on.
#[derive(Debug)]
struct Window {
    target: Target,
    from: Millis,
    to: Option<Millis>,
}

/// Closes the one that is open on this target.
fn end(windows: &mut [Window], target: &Target, at: Millis) {
    let open = |window: &&mut Window| window.target == *target && window.to.is_none();
    if let Some(window) = windows.iter_mut().find(open) {
        window.to = Some(at);
    }
}

/// The answers of one release.
#[derive(Debug)]
struct Answers {
    count: u64,
    first: Example,
    /// Answers to connections that were begun when another release was committed.
    uncommitted: Losses,
}

impl Ledger {
    /// An empty account, opened now.
    pub fn new(now: Millis) -> Self {
        Self {
            started: now,
            sent: 0,
            answered: 0,
            unfinished: HashSet::new(),
            losses: BTreeMap::new(),
            cuts: Vec::new(),
            windows: Vec::new(),
            away: Vec::new(),
            found_nobody: 0,
            idle_closes: 0,
            not_sent: 0,
            habits: BTreeMap::new(),
            handover: None,
            latencies: latencies(),
            releases: BTreeMap::new(),
            forbidden: BTreeSet::new(),
            committed: HashMap::new(),
            alive: HashMap::new(),
        }
    }

    /// Takes one event into account.
    pub fn fold(&mut self, event: Event) {
        match event {
            Event::Begun { seq } => {
                self.sent += 1;
                self.unfinished.insert(seq);
            }
            Event::Ended { attempt, at, took, end } => self.ended(attempt, at, took, end),
            Event::Surplus { attempt, at } => {
                let detail = "more bytes came after the whole answer".into();
                self.lose(Loss::Duplicated, attempt.example(at, detail));
            }
            Event::Said { said, at } => self.said(said, at),
        }
    }

    /// A program on this target died in this time: requests that it had in flight are not lost.
    pub fn mark_died(&mut self, target: Target, from: Millis, to: Millis) {
        self.windows.push(Window { target, from, to: Some(to) });
    }

    fn said(&mut self, said: Said, at: Millis) {
        match said {
            Said::Forbid { release } => {
                self.forbidden.insert(release);
            }
            Said::Committed { target, release } => {
                self.committed.insert(target, (release, at));
            }
            Said::Open { target } => {
                self.committed.remove(&target);
            }
            Said::HandoverBegins => self.handover = Some((at, None)),
            Said::HandoverEnds => self.handover = self.handover.map(|(from, _)| (from, Some(at))),
            Said::WindowBegins { target } => self.windows.push(Window { target, from: at, to: None }),
            Said::WindowEnds { target } => end(&mut self.windows, &target, at),
            Said::AwayBegins { target } => self.away.push(Window { target, from: at, to: None }),
            Said::AwayEnds { target } => end(&mut self.away, &target, at),
            Said::Window { target, from, to } => self.mark_died(target, from, to),
            // It ends the clients, not the account.
            Said::Stop => {}
        }
    }

    fn ended(&mut self, attempt: Attempt, at: Millis, took: Duration, end: End) {
        let requests = self.habits.entry(attempt.habit).or_default();
        requests.connections += u64::from(attempt.pid.is_none());
        if attempt.is_idle_close(at, &end) {
            requests.idle_closes += 1;
            self.idle_closes += 1;
            return;
        }
        if !self.unfinished.remove(&attempt.seq) {
            let detail = "the request had ended before".into();
            return self.lose(Loss::Duplicated, attempt.example(at, detail));
        }
        match end {
            End::Refused { .. } | End::TimedOut { connected: false } if self.is_away(&attempt, at) => {
                self.found_nobody += 1;
            }
            End::Answered { release, pid } => {
                self.measure(&attempt, at, took);
                self.answered(&attempt, at, release, pid);
            }
            End::Duplicated => {
                let detail = "the answer to an earlier request of this connection came again".into();
                self.lose(Loss::Duplicated, attempt.example(at, detail));
            }
            End::Mismatched { why } => self.lose(Loss::Mismatched, attempt.example(at, why)),
            End::Refused { why } => self.lose(Loss::Refused, attempt.example(at, why)),
            End::Cut { first_byte, close } => {
                let cut = Cut { attempt, at, first_byte, close };
                if self.cuts.len() < CUTS_KEPT_MAX {
                    self.cuts.push(cut);
                } else {
                    self.lose(cut.loss(), cut.example());
                }
            }
            End::TimedOut { connected } => {
                let what = if connected { "whole answer" } else { "connection" };
                let after = at.since(attempt.connecting);
                self.lose(Loss::TimedOut, attempt.example(at, format!("no {what} within {after}")));
            }
            End::NotSent { .. } => self.not_sent += 1,
        }
    }

    /// Only what does not take time by its nature, and so tells how long answers take.
    fn measure(&mut self, attempt: &Attempt, at: Millis, took: Duration) {
        if attempt.kind != Kind::Plain {
            return;
        }
        let during =
            self.handover.is_some_and(|(from, to)| from <= at && to.is_none_or(|to| attempt.sent <= to));
        let phase = if during { Phase::During } else { Phase::Between };
        if let Some(latencies) = self.latencies.get_mut(&phase) {
            // It grows with what it is told, so that nothing is refused.
            let _ = latencies.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn answered(&mut self, attempt: &Attempt, at: Millis, release: String, pid: u32) {
        self.answered += 1;
        let requests = self.habits.entry(attempt.habit).or_default();
        *requests.answered.entry(attempt.kind).or_default() += 1;
        let last = self.alive.entry((attempt.target.clone(), pid)).or_default();
        *last = attempt.sent.max(*last);

        let wanted = self.committed.get(&attempt.target);
        let uncommitted =
            wanted.is_some_and(|(wanted, since)| attempt.connecting > *since && *wanted != release);
        let example = |detail| attempt.example(at, detail);
        let answers = self.releases.entry(release).or_insert_with_key(|release| Answers {
            count: 0,
            first: example(format!("release {release} (pid {pid}) answered, but must not")),
            uncommitted: Losses::default(),
        });
        answers.count += 1;
        if uncommitted {
            let losses = &mut answers.uncommitted;
            losses.count += 1;
            losses.example.get_or_insert_with(|| {
                example(format!("pid {pid} of another release answered a connection begun after the commit"))
            });
        }
    }

    fn lose(&mut self, loss: Loss, example: Example) {
        let losses = self.losses.entry(loss).or_default();
        losses.count += 1;
        losses.example.get_or_insert(example);
    }

    /// Whether the whole member was away at some time of the attempt to reach it.
    fn is_away(&self, attempt: &Attempt, at: Millis) -> bool {
        let meets = |away: &Window| {
            away.target == attempt.target
                && away.from <= at
                && away.to.is_none_or(|to| attempt.connecting <= to)
        };
        self.away.iter().any(meets)
    }

    /// Whether a cut was the end of the program: one on this target died at that moment, the connection had been
    /// begun before it was dead, and the process that had it, if known, answered nothing that was sent later.
    fn died(&self, cut: &Cut) -> bool {
        let attempt = &cut.attempt;
        let in_window = self.windows.iter().any(|window| {
            let to = window.to.unwrap_or(cut.at);
            window.target == attempt.target
                && window.from <= cut.at
                && attempt.connecting <= to
                && cut.at <= to + NOTICE
        });
        let lived_on = attempt.pid.is_some_and(|pid| {
            let last = self.alive.get(&(attempt.target.clone(), pid));
            last.is_some_and(|last| *last > cut.at)
        });
        in_window && !lived_on
    }

    /// The counts as they stand.
    pub fn report(&self, now: Millis) -> Report {
        let mut losses: BTreeMap<_, _> = Loss::ALL.iter().map(|loss| (*loss, Losses::default())).collect();
        losses.extend(self.losses.clone());
        let mut lose = |loss, count, example: &dyn Fn() -> Example| {
            let losses = losses.entry(loss).or_default();
            losses.count += count;
            losses.example.get_or_insert_with(example);
        };

        let (died, cut): (Vec<_>, Vec<_>) = self.cuts.iter().partition(|cut| self.died(cut));
        for cut in cut {
            lose(cut.loss(), 1, &|| cut.example());
        }
        for (release, answers) in &self.releases {
            if self.forbidden.contains(release) {
                lose(Loss::WrongRelease, answers.count, &|| answers.first.clone());
            } else if let Some(example) = &answers.uncommitted.example {
                lose(Loss::WrongRelease, answers.uncommitted.count, &|| example.clone());
            }
        }
        let maybe_queued =
            |cut: &&&Cut| !cut.first_byte && cut.attempt.pid.is_none() && cut.close == Close::Reset;

        Report {
            started_ms: self.started.0,
            ended_ms: now.0,
            sent: self.sent,
            answered: self.answered,
            unfinished: self.unfinished.len() as u64,
            lost: losses.values().map(|losses| losses.count).sum(),
            losses,
            died_with_program: died.len() as u64,
            died_maybe_queued: died.iter().filter(maybe_queued).count() as u64,
            found_nobody: self.found_nobody,
            idle_closes: self.idle_closes,
            not_sent: self.not_sent,
            connections: self.habits.values().map(|requests| requests.connections).sum(),
            habits: self.habits.clone(),
            latencies: self
                .latencies
                .iter()
                .map(|(phase, latencies)| (*phase, Latency::of(latencies)))
                .collect(),
            releases: self
                .releases
                .iter()
                .map(|(release, answers)| (release.clone(), answers.count))
                .collect(),
        }
    }
}

/// Latencies in µs, exact to one in a thousand.
const LATENCY_DIGITS: u8 = 3;

fn latencies() -> BTreeMap<Phase, Histogram<u64>> {
    // Nothing but a senseless number of digits is refused.
    let empty = |phase| Some((phase, Histogram::new(LATENCY_DIGITS).ok()?));
    [Phase::During, Phase::Between].into_iter().filter_map(empty).collect()
}

#[cfg(test)]
mod tests;
