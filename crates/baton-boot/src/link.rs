//! How the session with control stands, for whoever asks the member.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The session as it stands now, kept by the session and looked at by others.
#[derive(Debug)]
pub struct Link(Mutex<Standing>);

/// How it stands.
#[derive(Debug, Clone)]
struct Standing {
    connected: bool,
    since: Instant,
    /// The server that was tried last.
    server: Option<String>,
    /// Why there is no session.
    trouble: Option<String>,
}

/// The same, for a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether control is heard.
    pub connected: bool,
    /// Since when that is so.
    pub since: Duration,
    /// The server that is heard, or was tried last.
    pub server: Option<String>,
    /// Why it is not heard.
    pub trouble: Option<String>,
}

impl Default for Link {
    fn default() -> Self {
        let standing = Standing { connected: false, since: Instant::now(), server: None, trouble: None };
        Self(Mutex::new(standing))
    }
}

impl Link {
    /// This server is tried now.
    pub fn tries(&self, server: &str) {
        self.standing().server = Some(server.to_owned());
    }

    /// The server that was tried has answered.
    pub fn begins(&self) {
        let mut standing = self.standing();
        (standing.connected, standing.since, standing.trouble) = (true, Instant::now(), None);
    }

    /// There is no session, or no more.
    pub fn ends(&self, why: String) {
        let mut standing = self.standing();
        if std::mem::replace(&mut standing.connected, false) {
            standing.since = Instant::now();
        }
        standing.trouble = Some(why);
    }

    /// How it stands.
    pub fn status(&self) -> LinkStatus {
        let Standing { connected, since, server, trouble } = self.standing().clone();
        LinkStatus { connected, since: since.elapsed(), server, trouble }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_from_the_loss_of_the_session_however_often_it_is_tried_again() {
        let link = Link::default();
        assert_eq!((link.status().connected, link.status().trouble), (false, None));
        link.tries("https://a:1");
        link.begins();
        let connected = link.standing().since;
        assert!(link.status().connected && link.status().trouble.is_none());
        link.ends("control closed the session".to_owned());
        let lost = link.standing().since;
        assert!(lost >= connected);
        link.tries("https://b:1");
        link.ends("cannot connect".to_owned());
        assert_eq!(link.standing().since, lost);
        let LinkStatus { connected, server, trouble, .. } = link.status();
        assert_eq!(
            (connected, server.as_deref(), trouble.as_deref()),
            (false, Some("https://b:1"), Some("cannot connect"))
        );
    }
}
