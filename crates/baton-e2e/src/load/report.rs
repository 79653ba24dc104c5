//! What the load generator prints.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::plan::{Habit, Kind};

/// One line of the load generator's standard output, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The counts so far, once a second.
    Progress(Report),
    /// This line was understood and holds from now on.
    Heard(String),
    /// This line was not understood.
    Misheard {
        /// As it was said.
        line: String,
        /// What is wrong with it, and what could be said.
        why: String,
    },
    /// The counts at the end: the last line.
    Report(Report),
}

/// The account of every request so far. Times are milliseconds since the Unix epoch.
///
/// Every request that was sent has exactly one end: answered, lost, died with its program, found nobody, not sent, or
/// still unfinished. `wrong_release`, and `duplicated` for an answer that came on top of the right one, are counted beside
/// `answered`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When the load began.
    pub started_ms: u64,
    /// When these counts were taken.
    pub ended_ms: u64,
    /// Requests begun. One that is tried again after an idle close is still one.
    pub sent: u64,
    /// Requests whose whole and matching answer came, from whichever release.
    pub answered: u64,
    /// Requests under way.
    pub unfinished: u64,
    /// The sum of `losses`.
    pub lost: u64,
    /// Every kind of loss.
    pub losses: BTreeMap<Loss, Losses>,
    /// Requests in flight that ended with a program of which the driver said that it died.
    pub died_with_program: u64,
    /// Those of `died_with_program` that a reset connection without an earlier answer ended. From outside, one that
    /// still waited in the accept queue, and should have survived, looks the same.
    pub died_maybe_queued: u64,
    /// Requests for which no connection could be made, since the whole member was away, as the driver said.
    #[serde(default)]
    pub found_nobody: u64,
    /// Reused connections that were closed before the answer's first byte. Their requests were tried again.
    pub idle_closes: u64,
    /// Requests that the generator itself could not send, for want of ports or descriptors.
    pub not_sent: u64,
    /// Connections opened, or tried.
    pub connections: u64,
    /// The same by what clients do with their connections.
    pub habits: BTreeMap<Habit, Requests>,
    /// How long plain requests took, by whether a handover was under way.
    pub latencies: BTreeMap<Phase, Latency>,
    /// Answers by release.
    pub releases: BTreeMap<String, u64>,
}

/// The requests of the clients with one habit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Those that were answered, by what they asked for.
    pub answered: BTreeMap<Kind, u64>,
    /// Connections opened, or tried.
    pub connections: u64,
    /// Reused connections that were closed before the answer's first byte.
    pub idle_closes: u64,
}

/// Whether a handover was under way, as the driver said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A handover was under way at some time of the request.
    During,
    /// None was.
    Between,
}

/// How long requests took, in µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many requests.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// None took longer.
    pub max_us: u64,
}

impl Latency {
    /// What is to be told of these.
    pub(super) fn of(latencies: &Histogram<u64>) -> Self {
        Self {
            count: latencies.len(),
            p50_us: latencies.value_at_quantile(0.5),
            p99_us: latencies.value_at_quantile(0.99),
            max_us: latencies.max(),
        }
    }
}

impl Report {
    /// How long plain requests took in this phase; nothing if there were none.
    pub fn latency(&self, phase: Phase) -> Latency {
        self.latencies.get(&phase).copied().unwrap_or_default()
    }

    /// How many were lost in this way.
    pub fn count(&self, loss: Loss) -> u64 {
        self.losses.get(&loss).map_or(0, |losses| losses.count)
    }

    /// Requests that were lost and not answered: a wrong release has answered, and what came twice came once as well.
    pub fn losses_beside_answers(&self) -> u64 {
        let beside = |loss: &&Loss| !matches!(loss, Loss::WrongRelease | Loss::Duplicated);
        Loss::ALL.iter().filter(beside).map(|loss| self.count(*loss)).sum()
    }

    /// Whether every request was sent, has an end, and none was lost.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.not_sent == 0 && self.unfinished == 0
    }
}

/// The ways in which a request can be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// No connection could be made.
    Refused,
    /// The connection ended before the answer began.
    ResetBeforeFirstByte,
    /// The connection ended within the answer.
    ResetAfterFirstByte,
    /// No connection, or no whole answer, within the timeout.
    TimedOut,
    /// The answer came from a release that must not answer, or no longer.
    WrongRelease,
    /// An earlier request's answer came again.
    Duplicated,
    /// An answer came that is not one to this request.
    Mismatched,
}

impl Loss {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::ResetBeforeFirstByte,
        Self::ResetAfterFirstByte,
        Self::TimedOut,
        Self::WrongRelease,
        Self::Duplicated,
        Self::Mismatched,
    ];
}

/// How often one kind of loss happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// How many requests.
    pub count: u64,
    /// The first of them.
    pub example: Option<Example>,
}

/// One request that was lost. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Where it was sent.
    pub target: String,
    /// What its client does with connections.
    pub habit: Habit,
    /// What it asked for.
    pub kind: Kind,
    /// Its connection (`X-Conn`).
    pub conn: u64,
    /// Its number (`X-Seq`).
    pub seq: u64,
    /// When its connection was begun.
    pub connecting_ms: u64,
    /// When it was sent.
    pub sent_ms: u64,
    /// When it was known to be lost.
    pub ended_ms: u64,
    /// What was seen.
    pub detail: String,
}
