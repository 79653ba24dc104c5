//! Where control is, by its name: asked anew at each attempt, since it may have moved, and kept for when nobody can tell.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long an answer is waited for: a part of what connecting may take. One that comes later is for the next attempt.
pub const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How many addresses are kept: control may be several servers, and all of them share the time that connecting may take.
const GOOD_MAX: usize = 4;

/// The addresses of all names that were asked for.
#[derive(Clone, Default)]
pub struct Names {
    hosts: Arc<Mutex<BTreeMap<String, Host>>>,
    news: Arc<Notify>,
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Host {
    /// What was answered last; none while that is an error.
    found: Vec<IpAddr>,
    /// What had been answered when control was heard, the latest first. At which of them it was, nobody can tell.
    good: Vec<IpAddr>,
    /// Why there was no answer.
    why: String,
    /// Somebody is being asked. A resolver that does not answer holds up one thread, and not one more at each attempt.
    asked: bool,
    /// How often control was looked for since it was heard.
    attempts: u32,
}

impl Host {
    /// Where to look for control now, the likeliest first: where it is said to be, and every other time where it was. So an
    /// answer that is wrong keeps nobody away for long, and neither does an address that is somebody else's by now.
    fn candidates(&self) -> Vec<IpAddr> {
        let (first, second) = match self.attempts % 2 {
            0 => (&self.good, &self.found),
            _ => (&self.found, &self.good),
        };
        let others = second.iter().filter(|address| !first.contains(address));
        first.iter().chain(others).copied().collect()
    }
}

impl Names {
    /// Control was heard at one of the addresses that this name was looked for at. Those of other servers are as unsure as before.
    pub fn works(&self, name: &str) {
        if let Some(host) = self.hosts().get_mut(name).filter(|host| host.attempts > 0) {
            host.good = host.candidates();
            host.good.truncate(GOOD_MAX);
            host.attempts = 0;
        }
    }

    /// Where to look for control by this name, the likeliest place first.
    ///
    /// # Errors
    /// Nobody says in time, and nothing is known from before.
    pub async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let news = self.news.notified();
        self.ask(name);
        let answered = async {
            tokio::pin!(news);
            while self.hosts().get(name).is_some_and(|host| host.asked) {
                news.as_mut().await;
                news.set(self.news.notified());
            }
        };
        // Late or not, what is known by then counts.
        let in_time = timeout(ANSWER_MAX, answered).await.is_ok();
        let mut hosts = self.hosts();
        let host = hosts.entry(name.to_owned()).or_default();
        host.attempts = host.attempts.saturating_add(1);
        let candidates = host.candidates();
        match candidates.is_empty() {
            false => Ok(candidates),
            true if in_time => Err(io::Error::other(format!("{name} has no address: {}", host.why))),
            true => Err(io::Error::other(format!("nobody says in time what address {name} has"))),
        }
    }

    /// Has somebody ask for a name, unless that is being done.
    fn ask(&self, name: &str) {
        let mut hosts = self.hosts();
        let host = hosts.entry(name.to_owned()).or_default();
        if std::mem::replace(&mut host.asked, true) {
            return;
        }
        let (names, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            let answer = lookup_host((name.as_str(), 0)).await;
            let answer = answer.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>());
            let mut hosts = names.hosts();
            let host = hosts.entry(name).or_default();
            host.asked = false;
            (host.found, host.why) = match answer {
                Ok(found) => (found, "there is none".to_owned()),
                Err(error) => (Vec::new(), error.to_string()),
            };
            drop(hosts);
            names.news.notify_waiters();
        });
    }

    /// As if control had been heard at these last.
    #[cfg(test)]
    pub fn know(&self, name: &str, good: &[IpAddr]) {
        self.hosts().entry(name.to_owned()).or_default().good = good.to_vec();
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: &[u8]) -> Vec<IpAddr> {
        last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
    }

    #[test]
    fn f56_control_is_looked_for_where_it_is_said_to_be_and_where_it_was() {
        for (found, good, attempts, candidates) in [
            (&[1][..], &[][..], 1, &[1][..]),
            (&[], &[2], 1, &[2]),
            (&[], &[], 1, &[]),
            (&[1, 3], &[2], 1, &[1, 3, 2]),
            (&[1, 3], &[2], 2, &[2, 1, 3]),
            (&[1, 3], &[2], 3, &[1, 3, 2]),
            (&[1, 2], &[2], 2, &[2, 1]),
        ] {
            let host = Host { found: addresses(found), good: addresses(good), attempts, ..Host::default() };
            assert_eq!(host.candidates(), addresses(candidates), "{found:?} {good:?} {attempts}");
        }
    }

    #[tokio::test]
    async fn f56_a_name_that_nobody_knows_any_more_keeps_its_last_good_address() {
        let names = Names::default();
        // `invalid` never has an address (RFC 6761).
        let ask = async || names.addresses("control.invalid").await;
        let why = ask().await.unwrap_err().to_string();
        assert!(why.contains("control.invalid"), "{why}");
        names.know("control.invalid", &addresses(&[1]));
        names.works("control.invalid");
        for _ in 0..3 {
            assert_eq!(ask().await.unwrap(), addresses(&[1]));
        }
        // Nothing was found since that could have been heard.
        names.works("control.invalid");
        assert!(ask().await.is_ok());
    }

    #[tokio::test]
    async fn f56_control_that_is_heard_by_one_name_says_nothing_of_another() {
        let names = Names::default();
        for name in ["one.invalid", "two.invalid"] {
            let host = Host { found: addresses(&[1]), attempts: 1, ..Host::default() };
            names.hosts().insert(name.to_owned(), host);
        }
        names.works("two.invalid");
        let good = |name: &str| names.hosts()[name].good.clone();
        assert_eq!((good("one.invalid"), good("two.invalid")), (Vec::new(), addresses(&[1])));
    }
}
