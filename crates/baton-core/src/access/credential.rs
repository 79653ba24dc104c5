//! Credentials: what members show.
//!
//! A credential names one member of one service and ends soon. Control keeps nothing of it: it knows its own by a mark that
//! only who has its key can make. So a fleet of any size costs it no memory and no write, and what is stolen from a member is
//! worth that member for a day.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::token::{member_content, member_text};
use crate::ids::{MemberId, ServiceName};
use crate::run::secrets::Secret;

const HOUR_MS: u64 = 60 * 60 * 1000;

/// Which member somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Of which service.
    pub service: ServiceName,
    /// Which member.
    pub member: MemberId,
    /// When it was given, in milliseconds since 1970, by control's clock.
    pub issued: u64,
}

/// What a credential is good for at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// For everything that a member may do.
    Valid,
    /// Only to get the next one.
    Renewable,
    /// For nothing.
    Ended,
}

impl Credential {
    /// How long one is good for everything. A day: a stolen one is worth little, and control may be away for a night.
    pub const TTL_MS: u64 = 24 * HOUR_MS;
    /// After how long a member gets the next one: it has two more tries of that length.
    pub const RENEW_AFTER_MS: u64 = 8 * HOUR_MS;
    /// How long after its end it still gets the next one. Control may be away for a long weekend, or a member: a fleet that
    /// comes back then must not need new tokens.
    pub const RENEWABLE_MS: u64 = 7 * 24 * HOUR_MS;
    /// How far the clocks of two servers may be apart: what one of them has issued before a revocation by the other is
    /// worth nothing all the same. Five minutes, as with other protocols that compare clocks.
    pub const SKEW_MS: u64 = 5 * 60 * 1000;

    /// When it ends.
    pub const fn until(&self) -> u64 {
        self.issued.saturating_add(Self::TTL_MS)
    }

    /// What it is good for now.
    pub const fn standing(&self, now: u64) -> Standing {
        if now < self.until() {
            Standing::Valid
        } else if now < self.until().saturating_add(Self::RENEWABLE_MS) {
            Standing::Renewable
        } else {
            Standing::Ended
        }
    }
}

/// A text that is no credential of this control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("that is no credential of this server")]
pub struct BadCredential;

/// What control makes and knows credentials by.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialKey([u8; blake3::KEY_LEN]);

impl core::fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("[key]")
    }
}

impl CredentialKey {
    /// One of these random bytes.
    pub const fn new(random: [u8; blake3::KEY_LEN]) -> Self {
        Self(random)
    }

    /// Its bytes, for who keeps it.
    pub const fn reveal(&self) -> &[u8; blake3::KEY_LEN] {
        &self.0
    }

    /// The credential as text, for the member alone.
    pub fn seal(&self, credential: &Credential) -> Secret {
        let Credential { service, member, issued } = credential;
        let text = format!("1 {service} {member} {issued}");
        let mut content = self.mark(text.as_bytes()).as_bytes().to_vec();
        content.extend_from_slice(text.as_bytes());
        member_text(&content)
    }

    /// The credential in a text, if this key has made it. Whether it has ended is another question.
    ///
    /// # Errors
    /// It is none, was altered, or is of another control.
    pub fn open(&self, secret: &str) -> Result<Credential, BadCredential> {
        let content = member_content(secret).ok_or(BadCredential)?;
        let (mark, text) = content.split_first_chunk::<{ blake3::OUT_LEN }>().ok_or(BadCredential)?;
        // Hashes are compared in the same time wherever they differ.
        if blake3::Hash::from_bytes(*mark) != self.mark(text) {
            return Err(BadCredential);
        }
        read(text).ok_or(BadCredential)
    }

    fn mark(&self, text: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, text)
    }
}

fn read(text: &[u8]) -> Option<Credential> {
    let text = String::from_utf8(text.to_vec()).ok()?;
    let words: Vec<&str> = text.split(' ').collect();
    let ["1", service, member, issued] = words[..] else { return None };
    Some(Credential {
        service: service.parse().ok()?,
        member: member.parse().ok()?,
        issued: issued.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(member: &str) -> Credential {
        Credential { service: "web".parse().unwrap(), member: member.parse().unwrap(), issued: 1000 }
    }

    #[test]
    fn p39_a_credential_is_that_of_one_member_and_cannot_be_altered_or_made() {
        let key = CredentialKey::new([1; 32]);
        let sealed = key.seal(&web("web-1"));
        assert_eq!(key.open(sealed.reveal()), Ok(web("web-1")));
        assert_eq!(CredentialKey::new([2; 32]).open(sealed.reveal()), Err(BadCredential));
        let content = member_content(sealed.reveal()).unwrap();
        for at in 0..content.len() {
            let mut other = content.clone();
            other[at] ^= 1;
            assert_eq!(key.open(member_text(&other).reveal()), Err(BadCredential), "{at}");
            assert_eq!(key.open(member_text(&content[..at]).reveal()), Err(BadCredential), "{at}");
        }
        for bad in ["", "member_", "baton_AAAA", "member_!!"] {
            assert_eq!(key.open(bad), Err(BadCredential), "{bad}");
        }
    }

    #[test]
    fn a_credential_is_renewed_before_it_ends_and_for_a_while_after() {
        let credential = web("web-1");
        let end = credential.until();
        assert!(credential.issued + 2 * Credential::RENEW_AFTER_MS < end, "there is time for a second try");
        for (now, standing) in [
            (0, Standing::Valid),
            (end - 1, Standing::Valid),
            (end, Standing::Renewable),
            (end + Credential::RENEWABLE_MS - 1, Standing::Renewable),
            (end + Credential::RENEWABLE_MS, Standing::Ended),
        ] {
            assert_eq!(credential.standing(now), standing, "{now}");
        }
    }
}
