//! The plain record of what a program did when it was tried out.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use crate::units::Millis;

/// What was seen of a program, in the order in which it was looked for. What could not be looked for, because
/// something before it failed or does not apply, is `None` or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// How its start went.
    pub start: Start,
    /// Its processes once it was healthy, the main process first.
    pub processes: Vec<Process>,
    /// What its main process does at the stop signal, as far as the kernel knows.
    pub reaction: Option<Reaction>,
    /// The names of its other processes that the stop signal ends at once.
    pub dropping: Vec<String>,
    /// How it got the socket of each listener, by the listener's name.
    pub given: Vec<(String, Given)>,
    /// Everything that its processes listen on.
    pub listening: Vec<Place>,
    /// Whether it listens elsewhere when `$PORT` says so; otherwise why it was not healthy there.
    pub follows_port: Option<Result<(), String>>,
    /// A reload.
    pub reload: Option<Reload>,
    /// A stop.
    pub stop: Option<Stop>,
}

impl Seen {
    /// A program of which nothing was seen but its start.
    pub const fn of(start: Start) -> Self {
        Self {
            start,
            processes: Vec::new(),
            reaction: None,
            dropping: Vec::new(),
            given: Vec::new(),
            listening: Vec::new(),
            follows_port: None,
            reload: None,
            stop: None,
        }
    }

    /// The processes that drop their work when they are asked to stop, where their main process, asked alone, lets them finish it.
    pub(super) fn drops(&self) -> Option<String> {
        let waits = self.reaction == Some(Reaction::Handles);
        (waits && !self.dropping.is_empty()).then(|| self.dropping.join(", "))
    }
}

/// How a start went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// It was healthy after this time.
    Healthy(Millis),
    /// It was not.
    Failed {
        /// What the bootloader says of it.
        why: String,
        /// The processes that it left behind when it ended: it made itself a daemon.
        left_behind: Vec<String>,
    },
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// What the kernel calls it.
    pub name: String,
    /// Its command line.
    pub words: Vec<String>,
}

/// What a process does at a signal (`SigCgt`, `SigIgn`, `SigBlk` of `man 5 proc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// It has a handler, or takes the signal in another way.
    Handles,
    /// It ignores it.
    Ignores,
    /// Nothing: the kernel ends it.
    Ends,
}

/// How a program got the socket of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// It bound this address, and got the socket instead.
    Bound(String),
    /// It took the open socket.
    Took,
    /// The bootloader accepts and forwards, since it could not be given.
    Relayed,
    /// The bootloader accepts and forwards, as the settings want it.
    Proxied,
    /// It could not have it.
    Refused(String),
    /// Nobody accepts there.
    Nobody,
}

/// Where a process listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A path, or with `@` a name of the abstract namespace.
    Unix(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

/// A reload under load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// How it ended.
    pub end: ReloadEnd,
    /// What became of the requests meanwhile; nothing where none could be sent.
    pub traffic: Option<Traffic>,
}

/// How a reload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadEnd {
    /// The new generation took over and stayed healthy.
    Proven,
    /// It did not: this is why.
    Refused(String),
}

/// What became of requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Answered as before the reload.
    pub answered: u64,
    /// Without a whole and right answer.
    pub lost: u64,
    /// Met a kept connection that was just closed.
    pub idle_closes: u64,
    /// What happened to the first that was lost.
    pub first_lost: Option<String>,
}

/// A stop of the whole member, with one request under way and one connection kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The exit code; 128 and the signal's number for one that a signal ended.
    pub code: u8,
    /// How long after the stop signal.
    pub after: Millis,
    /// What became of the request under way.
    pub running: Option<(Request, Running)>,
    /// What became of the kept connection.
    pub idle: Option<Idle>,
    /// A connection that had never sent anything kept it from ending, for so long; then the client closed it.
    pub held_by_silent: Option<Millis>,
    /// The processes that were left when the main process had ended, and for how long they were.
    pub left: (Vec<String>, Millis),
}

/// The request that was under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A `GET` of this path, which takes its time.
    Slow(String),
    /// A `POST` to this path, whose body was sent halfway.
    HalfSent(String),
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow(path) => write!(f, "GET {path}"),
            Self::HalfSent(path) => write!(f, "POST {path}, its body sent halfway"),
        }
    }
}

/// What became of a request that was under way at the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// It was answered, with this status.
    Finished(u16),
    /// The connection ended before the whole answer had come.
    Cut,
    /// No answer came as long as the program was left to live.
    Unanswered,
    /// It was answered before the stop, so that nothing was under way.
    AnsweredBefore,
}

/// What became of a connection that a client kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// The program closes after every answer.
    NotKept,
    /// It was closed at once.
    Closed,
    /// It stayed open, and the next request on it was answered; `told`: with `Connection: close`.
    LastRequest {
        /// The client was told not to send another one.
        told: bool,
    },
    /// It stayed open, and the next request on it was not answered.
    NotAnswered,
}
