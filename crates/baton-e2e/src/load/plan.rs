//! What load to make.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use baton_core::units::{Millis, Share};
use serde::{Deserialize, Serialize};

/// Where requests go: `host:port`, or `unix:` and the absolute path of a socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(Arc<str>);

impl Target {
    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of its socket, if it has one.
    pub fn path(&self) -> Option<&str> {
        self.0.strip_prefix("unix:")
    }

    /// How requests name the server: its address, or what is usual for one without any.
    pub fn host(&self) -> &str {
        self.path().map_or(self.as_str(), |_| "localhost")
    }
}
impl FromStr for Target {
    type Err = InvalidPlan;
    fn from_str(text: &str) -> Result<Self, InvalidPlan> {
        let valid = match text.strip_prefix("unix:") {
            Some(path) => path.starts_with('/'),
            None => text
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
        };
        if valid { Ok(Self(text.into())) } else { Err(InvalidPlan::Target { text: text.into() }) }
    }
}
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a plan makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// Not an address.
    #[error("target {text:?} is not valid: write host:port or unix:/path")]
    Target {
        /// As given.
        text: String,
    },
    /// Nowhere to send requests.
    #[error("there is no target: name at least one host:port")]
    NoTargets,
    /// Nobody to send requests.
    #[error("there are no clients: ask for at least one with --new or --keep")]
    NoClients,
    /// A slow request would look like a lost one.
    #[error("slow requests may take {slow}, but requests time out after {timeout}: raise --timeout")]
    SlowerThanTimeout {
        /// How long slow requests may take.
        slow: Millis,
        /// How long any request may take.
        timeout: Millis,
    },
}

/// What a client does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Habit {
    /// A new one for each request, over the targets in turn.
    New,
    /// One, to one target, for as long as the server keeps it.
    Keep,
    /// The same, by HTTP/2.
    Http2,
    /// The same, by gRPC.
    Grpc,
    /// The same, as a WebSocket.
    WebSocket,
}

impl Habit {
    /// Every habit.
    pub const ALL: [Self; 5] = [Self::New, Self::Keep, Self::Http2, Self::Grpc, Self::WebSocket];
}

/// What load to make.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where requests go. Clients are spread over all of them.
    pub targets: Vec<Target>,
    /// How many clients open a new connection for each request.
    pub new: usize,
    /// How many clients keep their connection for as long as the program does.
    pub keep: usize,
    /// How many clients keep an HTTP/2 connection.
    pub http2: usize,
    /// How many clients call by gRPC, on a connection that they keep.
    pub grpc: usize,
    /// How many clients keep a WebSocket.
    pub websocket: usize,
    /// Requests a second of each client at most; 0 is as fast as answers come.
    pub rate: u32,
    /// How long a kept connection is idle after each answer, at least.
    pub idle_gap: Millis,
    /// Which share of the requests takes time: slow answers, uploads and streams in turn.
    pub slow_share: Share,
    /// How long those take at most. Their times are spread from 1 ms to this.
    pub slow: Millis,
    /// How long one attempt may take, from connecting to the last byte of the answer.
    pub timeout: Millis,
    /// When to stop; without it, when told to.
    pub duration: Option<Millis>,
}

/// The body of an upload: more than one socket buffer's worth would need a reader, less would arrive with the head.
const UPLOAD_BYTES: usize = 64 * 1024;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An answer at once.
    Plain,
    /// An answer after a while.
    Slow,
    /// A body of 64 KiB, with a rest in its middle where the protocol has bodies.
    Upload,
    /// An answer in parts, where the protocol has them; else a slow one.
    Stream,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// What it asks for.
    pub kind: Kind,
    /// How long that takes.
    pub ms: Millis,
}

impl Ask {
    /// The HTTP method.
    pub fn method(&self) -> &'static str {
        if self.kind == Kind::Upload { "POST" } else { "GET" }
    }

    /// The path and query.
    pub fn path(&self) -> String {
        let ms = self.ms.0;
        match self.kind {
            Kind::Plain => "/".into(),
            Kind::Slow => format!("/slow?ms={ms}"),
            Kind::Upload => "/upload".into(),
            Kind::Stream => format!("/stream?ms={ms}"),
        }
    }

    /// The length of its body.
    pub fn body_bytes(&self) -> usize {
        if self.kind == Kind::Upload { UPLOAD_BYTES } else { 0 }
    }

    /// How long the sender rests in the middle of the body.
    pub fn rest(&self) -> Millis {
        if self.kind == Kind::Upload { self.ms } else { Millis::ZERO }
    }

    /// How long the program works.
    pub fn work(&self) -> Millis {
        self.ms - self.rest()
    }
}

impl Plan {
    /// A modest load on these targets, for tests that set the rest.
    pub fn on(targets: Vec<Target>) -> Self {
        Self {
            targets,
            new: 1,
            keep: 1,
            http2: 0,
            grpc: 0,
            websocket: 0,
            rate: 20,
            idle_gap: Millis::ZERO,
            slow_share: Share::NONE,
            slow: Millis(500),
            timeout: Millis::from_secs(10),
            duration: None,
        }
    }

    /// New and kept connections with some slow requests, as a program's clients are.
    pub fn mixed(targets: Vec<Target>) -> Self {
        Self {
            new: 4,
            keep: 4,
            rate: 50,
            idle_gap: Millis(5),
            slow_share: Share::from_percent(10),
            slow: Millis(300),
            timeout: Millis::from_secs(20),
            ..Self::on(targets)
        }
    }

    /// Whether this load can be made.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check(&self) -> Result<(), InvalidPlan> {
        if self.targets.is_empty() {
            return Err(InvalidPlan::NoTargets);
        }
        if self.clients() == 0 {
            return Err(InvalidPlan::NoClients);
        }
        if self.slow_share > Share::NONE && self.slow >= self.timeout {
            return Err(InvalidPlan::SlowerThanTimeout { slow: self.slow, timeout: self.timeout });
        }
        Ok(())
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.habits().map(|(_, count)| count).sum()
    }

    /// How many clients have each habit.
    pub(super) fn habits(&self) -> impl Iterator<Item = (Habit, usize)> {
        let Self { new, keep, http2, grpc, websocket, .. } = *self;
        Habit::ALL.into_iter().zip([new, keep, http2, grpc, websocket])
    }

    /// What request number `seq` (from 1) asks for. The same number always asks for the same.
    pub(super) fn ask(&self, seq: u64) -> Ask {
        let slow_until = |seq: u64| seq * u64::from(self.slow_share.ppm()) / 1_000_000;
        let nth = slow_until(seq);
        if nth == slow_until(seq - 1) {
            return Ask { kind: Kind::Plain, ms: Millis::ZERO };
        }
        // A prime step visits short and long times alike.
        let ms = Millis(1 + nth.wrapping_mul(7919) % self.slow.0.max(1));
        let kind = match nth % 3 {
            0 => Kind::Upload,
            1 => Kind::Slow,
            _ => Kind::Stream,
        };
        Ask { kind, ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::on(vec!["127.0.0.1:1".parse().unwrap()])
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for good in ["127.0.0.1:80", "[::1]:8080", "web:1", "unix:/run/web.sock"] {
            assert_eq!(good.parse::<Target>().unwrap().as_str(), good);
        }
        for bad in ["", "web", ":80", "web:", "web:99999", "web:http", "unix:web"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_plan_that_cannot_work_is_refused() {
        let none = Plan::on(vec![]);
        assert_eq!(none.check(), Err(InvalidPlan::NoTargets));
        let mut idle = plan();
        (idle.new, idle.keep) = (0, 0);
        assert_eq!(idle.check(), Err(InvalidPlan::NoClients));
        let mut slow = plan();
        (slow.slow_share, slow.slow) = (Share::from_percent(1), slow.timeout);
        assert!(matches!(slow.check(), Err(InvalidPlan::SlowerThanTimeout { .. })));
        assert_eq!(plan().check(), Ok(()));
    }

    #[test]
    fn the_slow_share_is_exact_and_has_every_kind_and_length() {
        let mut plan = plan();
        plan.slow_share = Share::from_percent(10);
        plan.slow = Millis(300);
        let asks: Vec<_> = (1..=9000).map(|seq| plan.ask(seq)).collect();
        let count = |what: &str| asks.iter().filter(|ask| ask.path().starts_with(what)).count();
        assert_eq!((count("/slow"), count("/upload"), count("/stream")), (300, 300, 300));
        let rests: Vec<_> = asks.iter().filter(|ask| ask.body_bytes() > 0).map(|ask| ask.rest().0).collect();
        assert!(rests.iter().all(|ms| (1..=300).contains(ms)));
        assert!(rests.iter().any(|ms| *ms < 50) && rests.iter().any(|ms| *ms > 250));
    }
}
