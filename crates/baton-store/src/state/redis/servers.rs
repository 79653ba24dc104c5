//! Which other servers there are, and whether they tell what they hear.

use baton_core::fleet::LEASE;
use redis::Value;

use super::answer::{Unexpected, number, pairs, text};
use super::said::{KEPT, millis};

/// The servers besides this one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    /// Who is there, or may come back.
    pub(super) there: Vec<String>,
    /// Who has ended long ago.
    pub(super) ended: Vec<String>,
    /// Whether one of those that are there has not told for a lease what it hears.
    pub(super) is_any_away: bool,
}

impl Servers {
    pub(super) fn read(answer: &Value, own: &str, store_now: u64) -> Result<Self, Unexpected> {
        let mut servers = Self::default();
        for (server, at) in pairs(answer)? {
            let (server, at) = (text(server)?, number(at)?);
            let away = store_now.saturating_sub(at);
            if server != own {
                let is_there = away < millis(KEPT);
                let list = if is_there { &mut servers.there } else { &mut servers.ended };
                list.push(server);
                servers.is_any_away |= is_there && away >= LEASE.0;
            }
        }
        Ok(servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_tell_what_it_hears_is_away_until_it_has_ended() {
        let read = |ago: u64| {
            let entry = |text: &str| Value::BulkString(text.as_bytes().to_vec());
            let (now, own) = (1_000_000, entry("own"));
            let answer = Value::Array(vec![own, entry("0"), entry("other"), entry(&(now - ago).to_string())]);
            Servers::read(&answer, "own", now).unwrap()
        };
        let there = |is_any_away| Servers { there: vec!["other".to_owned()], ended: vec![], is_any_away };
        assert_eq!(read(0), there(false));
        assert_eq!(read(LEASE.0 - 1), there(false));
        assert_eq!(read(LEASE.0), there(true));
        assert_eq!(read(millis(KEPT) - 1), there(true));
        let ended = Servers { ended: vec!["other".to_owned()], ..Servers::default() };
        assert_eq!(read(millis(KEPT)), ended);
    }
}
