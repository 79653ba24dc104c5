//! What load to make.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use baton_core::units::{Millis, Share};

/// Where requests go: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(Arc<str>);

impl Target {
    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for Target {
    type Err = InvalidPlan;
    fn from_str(text: &str) -> Result<Self, InvalidPlan> {
        let valid =
            text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
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
    #[error("target {text:?} is not valid: write host:port")]
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

/// What load to make.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where requests go. Clients are spread over all of them.
    pub targets: Vec<Target>,
    /// How many clients open a new connection for each request.
    pub new: usize,
    /// How many clients keep their connection for as long as the program does.
    pub keep: usize,
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

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The HTTP method.
    pub method: &'static str,
    /// The path and query.
    pub path: String,
    /// The length of its body.
    pub body_bytes: usize,
    /// How long the sender rests in the middle of the body.
    pub rest: Millis,
    /// Whether it takes time by its nature.
    pub slow: bool,
}

impl Plan {
    /// A modest load on these targets, for tests that set the rest.
    pub fn on(targets: Vec<Target>) -> Self {
        Self {
            targets,
            new: 1,
            keep: 1,
            rate: 20,
            idle_gap: Millis::ZERO,
            slow_share: Share::NONE,
            slow: Millis(500),
            timeout: Millis::from_secs(10),
            duration: None,
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
        if self.new + self.keep == 0 {
            return Err(InvalidPlan::NoClients);
        }
        if self.slow_share > Share::NONE && self.slow >= self.timeout {
            return Err(InvalidPlan::SlowerThanTimeout { slow: self.slow, timeout: self.timeout });
        }
        Ok(())
    }

    /// What request number `seq` (from 1) asks for. The same number always asks for the same.
    pub(super) fn ask(&self, seq: u64) -> Ask {
        let slow_until = |seq: u64| seq * u64::from(self.slow_share.ppm()) / 1_000_000;
        let nth = slow_until(seq);
        if nth == slow_until(seq - 1) {
            return Ask { method: "GET", path: "/".into(), body_bytes: 0, rest: Millis::ZERO, slow: false };
        }
        // A prime step visits short and long times alike.
        let ms = 1 + nth.wrapping_mul(7919) % self.slow.0.max(1);
        let (method, path, body_bytes) = match nth % 3 {
            0 => ("POST", "/upload".into(), UPLOAD_BYTES),
            1 => ("GET", format!("/slow?ms={ms}"), 0),
            _ => ("GET", format!("/stream?ms={ms}"), 0),
        };
        Ask {
            method,
            path,
            body_bytes,
            rest: if body_bytes > 0 { Millis(ms) } else { Millis::ZERO },
            slow: true,
        }
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
        for good in ["127.0.0.1:80", "[::1]:8080", "web:1"] {
            assert_eq!(good.parse::<Target>().unwrap().as_str(), good);
        }
        for bad in ["", "web", ":80", "web:", "web:99999", "web:http"] {
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
        let count = |what: &str| asks.iter().filter(|ask| ask.path.starts_with(what)).count();
        assert_eq!((count("/slow"), count("/upload"), count("/stream")), (300, 300, 300));
        let rests: Vec<_> = asks.iter().filter(|ask| ask.body_bytes > 0).map(|ask| ask.rest.0).collect();
        assert!(rests.iter().all(|ms| (1..=300).contains(ms)));
        assert!(rests.iter().any(|ms| *ms < 50) && rests.iter().any(|ms| *ms > 250));
    }
}
