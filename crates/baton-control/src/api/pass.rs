//! The right to read a pack at this server for a while, as a part of its address.

use std::time::Duration;

use baton_core::ids::PackId;
use baton_core::units::Millis;
use serde::Deserialize;

use crate::clock::Clock;

/// What an address says of the right to use it.
#[derive(Debug, Deserialize)]
pub(super) struct Pass {
    /// When it ends, by the clock of this server's life.
    until: u64,
    /// Who does not have the key cannot make it.
    pass: String,
}

/// Makes passes, and knows its own. They end with this life of the server, whose clock and key are nobody else's: whoever
/// holds one then asks for a new grant.
pub(super) struct Passes {
    key: [u8; blake3::KEY_LEN],
    clock: Clock,
}

impl Passes {
    /// Passes of a new life.
    pub(super) fn new(clock: Clock) -> Result<Self, getrandom::Error> {
        let mut key = [0; blake3::KEY_LEN];
        getrandom::fill(&mut key)?;
        Ok(Self { key, clock })
    }

    /// Where a pack may be read for so long.
    pub(super) fn path(&self, pack: PackId, ttl: Duration) -> String {
        let until = self.clock.now().0.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        format!("/v1/packs/{pack}?until={until}&pass={}", self.mark(pack, until).to_hex())
    }

    /// Whether this is a pass for that pack, and has not ended.
    pub(super) fn allow(&self, pack: PackId, pass: &Pass) -> bool {
        // Hashes are compared in the same time wherever they differ.
        let right = blake3::Hash::from_hex(&pass.pass).is_ok_and(|mark| mark == self.mark(pack, pass.until));
        right && self.clock.now() < Millis(pass.until)
    }

    fn mark(&self, pack: PackId, until: u64) -> blake3::Hash {
        blake3::keyed_hash(&self.key, format!("{pack} {until}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass_of(path: &str) -> Pass {
        let (_, query) = path.split_once("?until=").unwrap();
        let (until, pass) = query.split_once("&pass=").unwrap();
        Pass { until: until.parse().unwrap(), pass: pass.to_owned() }
    }

    #[test]
    fn a_pass_is_for_one_pack_for_a_while_and_in_one_life() {
        let clock = Clock::start();
        let [passes, other_life] = [(); 2].map(|()| Passes::new(clock).unwrap());
        let [pack, other] = [&b"1"[..], b"2"].map(PackId::of);
        let pass = pass_of(&passes.path(pack, Duration::from_secs(60)));
        assert!(passes.allow(pack, &pass));
        assert!(!passes.allow(other, &pass));
        assert!(!other_life.allow(pack, &pass));
        assert!(!passes.allow(pack, &Pass { until: pass.until + 1, pass: pass.pass.clone() }));
        assert!(!passes.allow(pack, &Pass { until: pass.until, pass: "f".repeat(64) }));
        assert!(!passes.allow(pack, &Pass { until: pass.until, pass: String::new() }));
        assert!(!passes.allow(pack, &pass_of(&passes.path(pack, Duration::ZERO))));
    }
}
