//! What follows from what was seen: for each question what was seen, what it means, and what to set.

use alloc::string::String;
use alloc::vec::Vec;

use super::seen::{Seen, Start};
use super::{end, reload, sockets, start};
use crate::run::RunSettings;

/// One thing that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// About what.
    pub topic: Topic,
    /// Whether that is good.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What it means.
    pub means: String,
    /// What to set or to change, if anything.
    pub set: Option<String>,
}

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// It works; this is good to know.
    Note,
    /// Requests are lost, or nothing works.
    Bad,
}

impl Verdict {
    /// A stable word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }
}

/// What is looked at, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Whether it starts, and how long that takes.
    Start,
    /// How it gets the socket of a listener.
    Socket,
    /// Where else it listens.
    OtherListeners,
    /// Whether it listens where `$PORT` says.
    Port,
    /// A reload under load.
    Reload,
    /// What it does at the stop signal.
    StopSignal,
    /// A request that is under way at the stop.
    RunningRequest,
    /// A connection that a client keeps, at the stop.
    IdleConnection,
    /// How it ends, and when.
    End,
    /// The processes that its main process leaves.
    Processes,
}

impl Topic {
    /// All of them, in their order.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Socket,
        Self::OtherListeners,
        Self::Port,
        Self::Reload,
        Self::StopSignal,
        Self::RunningRequest,
        Self::IdleConnection,
        Self::End,
        Self::Processes,
    ];

    /// A stable word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Socket => "socket",
            Self::OtherListeners => "other-listeners",
            Self::Port => "port",
            Self::Reload => "reload",
            Self::StopSignal => "stop-signal",
            Self::RunningRequest => "running-request",
            Self::IdleConnection => "idle-connection",
            Self::End => "end",
            Self::Processes => "processes",
        }
    }
}

/// Everything that follows from what was seen of a program that was run with these settings.
pub fn findings(run: &RunSettings, seen: &Seen) -> Vec<Finding> {
    let mut all = start::findings(run, seen);
    // Why it does not start, as often as not.
    if matches!(seen.start, Start::Failed { .. }) {
        all.extend(sockets::refused(seen));
    }
    if matches!(seen.start, Start::Healthy(_)) {
        all.extend(sockets::findings(run, seen));
        all.extend(reload::findings(run, seen));
        all.extend(end::findings(run, seen));
    }
    all
}

impl Finding {
    /// Something that is as it should be.
    pub(super) fn fine(topic: Topic, seen: impl Into<String>, means: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Fine, seen: seen.into(), means: means.into(), set: None }
    }

    /// Something that is good to know.
    pub(super) fn note(topic: Topic, seen: impl Into<String>, means: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, ..Self::fine(topic, seen, means) }
    }

    /// Something that loses requests, or keeps everything from working.
    pub(super) fn bad(topic: Topic, seen: impl Into<String>, means: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, ..Self::fine(topic, seen, means) }
    }

    /// What to do about it.
    pub(super) fn set(self, what: impl Into<String>) -> Self {
        Self { set: Some(what.into()), ..self }
    }
}
