//! What servers write where others could read it or change it: sealed with a key that only they have.
//!
//! ```text
//! baton-sealed 1 LF SALT CIPHERTEXT TAG
//! ```
//!
//! Each text has a key of its own, the BLAKE3 hash of 32 random bytes, the salt, under the key of the servers. So a nonce is
//! never used twice, and is always zero. The cipher is ChaCha20-Poly1305 (RFC 8439), which tells whether anything was changed.

use std::fs;
use std::path::Path;

use baton_release::disk::{DiskError, failed};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

const HEAD: &[u8] = b"baton-sealed 1\n";
const SALT_BYTES: usize = 32;
/// What makes the key of the servers another one than what anybody else makes of the same text.
const CONTEXT: &str = "baton 2026-11-21 seal of who may do what";
/// Shortest line that is taken for a key: one of 16 random bytes in Base64. It is no password: nothing makes guessing slow.
const LINE_BYTES_MIN: usize = 22;

/// The keys that servers share and the store has not. The first one seals; all of them open, so that one can be replaced by
/// another while servers run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SealKey(Vec<[u8; 32]>);

/// What was sealed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The text.
    pub text: String,
    /// Whether it was sealed as it would be now: with the first key.
    pub is_current: bool,
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[seal key]")
    }
}

/// Why something is not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file with the key cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no key in it.
    #[error(
        "the file has no key in it: make one with `head -c 32 /dev/urandom | base64`, one line of at least {LINE_BYTES_MIN} characters"
    )]
    NoKey,
    /// There are no random numbers to be had.
    #[error("the system has no random numbers")]
    Randomness(#[source] getrandom::Error),
    /// It does not open.
    #[error("it was sealed with another key than this server has, or changed by somebody who has none")]
    Closed,
}

impl SealKey {
    /// Reads the keys in a file, one on each line.
    ///
    /// # Errors
    /// It cannot be read, or has none.
    pub(crate) fn read(path: &Path) -> Result<Self, SealError> {
        let text = fs::read_to_string(path).map_err(failed("read", path))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, SealError> {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() || lines.iter().any(|line| line.len() < LINE_BYTES_MIN) {
            return Err(SealError::NoKey);
        }
        Ok(Self(lines.into_iter().map(|line| blake3::derive_key(CONTEXT, line.as_bytes())).collect()))
    }

    /// Seals a text.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn seal(&self, text: &str) -> Result<Vec<u8>, SealError> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(SealError::Randomness)?;
        let Some(key) = self.0.first() else { return Err(SealError::NoKey) };
        let mut body = text.as_bytes().to_vec();
        let sealed = cipher(key, &salt)
            .and_then(|cipher| cipher.seal_in_place_append_tag(nonce(), Aad::from(HEAD), &mut body));
        sealed.map_err(|_| SealError::Closed)?;
        Ok([HEAD, &salt, &body].concat())
    }

    /// Opens what was sealed with one of the keys.
    ///
    /// # Errors
    /// It was not.
    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Opened, SealError> {
        let rest = sealed.strip_prefix(HEAD).ok_or(SealError::Closed)?;
        let (salt, body) = rest.split_at_checked(SALT_BYTES).ok_or(SealError::Closed)?;
        let open = |(number, key): (usize, &[u8; 32])| {
            let mut body = body.to_vec();
            let opened = cipher(key, salt).ok()?.open_in_place(nonce(), Aad::from(HEAD), &mut body).ok()?;
            let text = String::from_utf8(opened.to_vec()).ok()?;
            Some(Opened { text, is_current: number == 0 })
        };
        self.0.iter().enumerate().find_map(open).ok_or(SealError::Closed)
    }
}

/// Of one text, so that any nonce is used once.
fn cipher(key: &[u8; 32], salt: &[u8]) -> Result<LessSafeKey, ring::error::Unspecified> {
    let once = blake3::keyed_hash(key, salt);
    Ok(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, once.as_bytes())?))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(lines: &str) -> SealKey {
        SealKey::parse(lines).unwrap()
    }

    const FIRST: &str = "rW3JbOtmCWl2ql0xmLZqRg==";
    const SECOND: &str = "0tKZuC1Jqg0c3cH7dyYQ9A==";

    #[test]
    fn p38_what_is_sealed_opens_with_its_key_and_only_as_it_was() {
        let key = key(FIRST);
        let sealed = key.seal("who may do what").unwrap();
        let opened = Opened { text: "who may do what".to_owned(), is_current: true };
        assert_eq!(key.open(&sealed).unwrap(), opened);
        assert!(!sealed.windows(7).any(|part| part == b"who may"), "it is not readable");
        assert_ne!(key.seal("who may do what").unwrap(), sealed, "nobody sees that it is the same");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(matches!(key.open(&changed), Err(SealError::Closed)), "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(key.open(&sealed[..length]).is_err(), "cut off after {length}");
        }
        assert!(SealKey::parse(SECOND).unwrap().open(&sealed).is_err());
    }

    #[test]
    fn a_key_is_replaced_while_others_have_the_old_one() {
        let (old, both, new) = (key(FIRST), key(&format!("{SECOND}\n{FIRST}\n")), key(SECOND));
        let by_old = old.seal("x").unwrap();
        assert!(both.open(&by_old).is_ok() && new.open(&by_old).is_err());
        let by_both = both.seal("x").unwrap();
        assert!(new.open(&by_both).is_ok() && old.open(&by_both).is_err());
        let waiting = key(&format!("{FIRST}\n{SECOND}"));
        assert!(waiting.open(&by_both).is_ok() && old.open(&waiting.seal("x").unwrap()).is_ok());
        let is_current = |key: &SealKey, sealed: &[u8]| key.open(sealed).unwrap().is_current;
        assert!(is_current(&both, &by_both) && is_current(&waiting, &by_old), "the first one seals");
        assert!(!is_current(&both, &by_old) && !is_current(&waiting, &by_both));
    }

    #[test]
    fn what_is_no_key_is_refused_and_a_key_does_not_show_itself() {
        for bad in ["", "\n\n", "password", &format!("{FIRST}\nshort")] {
            assert!(matches!(SealKey::parse(bad), Err(SealError::NoKey)), "{bad:?}");
        }
        let shown = format!("{:?} {}", key(FIRST), SealKey::parse("password").unwrap_err());
        assert!(!shown.contains("rW3J") && !shown.contains("password"), "p43: {shown}");
    }
}
