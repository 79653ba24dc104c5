//! What is asked of control, with who asks and a key that makes asking twice harmless.

use std::io;

use baton_wire::api::{Propose, Wanted};

use crate::failure::Failure;

/// Random bytes of a key: two are never equal.
const KEY_BYTES: usize = 16;

/// A proposal with everything that all have in common.
///
/// # Errors
/// The machine has no random numbers.
pub fn proposal(wanted: Wanted, reason: String) -> Result<Propose, Failure> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)
        .map_err(|error| Failure::System { what: "get random numbers", source: io::Error::from(error) })?;
    Ok(Propose {
        wanted,
        release: None,
        policy: None,
        again: false,
        parent: None,
        reason,
        actor: actor(),
        idempotency_key: Some(key.iter().map(|byte| format!("{byte:02x}")).collect()),
        dry_run: false,
        warrant: None,
        unsigned: false,
    })
}

/// Who asks: `kim@laptop`. Nothing is decided by it.
pub fn actor() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_else(|| "somebody".to_owned());
    let host = rustix::system::uname();
    format!("{user}@{}", host.nodename().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_proposal_has_a_key_of_its_own() {
        let key = || proposal(Wanted::Halt, String::new()).unwrap().idempotency_key.unwrap();
        assert_ne!(key(), key());
        assert_eq!(key().len(), 2 * KEY_BYTES);
    }
}
