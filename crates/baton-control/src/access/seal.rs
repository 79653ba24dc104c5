//! What servers write where others could read it or change it: sealed with a key that only they have.
//!
//! ```text
//! baton-sealed 2 SP FLEET LF SALT CIPHERTEXT TAG
//! ```
//!
//! The first line is sealed along, so that what servers of another fleet have sealed is not taken for this one's where they
//! have the same key. `baton-sealed 1 LF` is that of older versions, which opens for every fleet, and for whoever asks for that
//! only. Each text has a key of its own, the BLAKE3 hash of 32 random bytes, the salt, under the key of the servers. So a nonce
//! is never used twice, and is always zero. The cipher is ChaCha20-Poly1305 (RFC 8439), which tells whether anything was
//! changed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use baton_release::disk::{DiskError, failed};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// What it begins with, before the fleet.
const HEAD: &str = "baton-sealed 2 ";
/// What older versions begin with.
const HEAD_OLD: &[u8] = b"baton-sealed 1\n";
const SALT_BYTES: usize = 32;
/// What makes the key of the servers another one than what anybody else makes of the same text.
const CONTEXT: &str = "baton 2026-11-21 seal of who may do what";
/// Shortest line that is taken for a key: one of 16 random bytes in Base64. It is no password: nothing makes guessing slow.
const LINE_BYTES_MIN: usize = 22;
/// Who may do what with the file that nobody but servers should: its group may read it, since that is how a container's volume
/// and systemd give a secret to who is not root.
const OTHERS: u32 = 0o027;

/// The keys that servers share and the store has not. The first one seals; all of them open, so that one can be replaced by
/// another while servers run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SealKey(Vec<[u8; 32]>);

/// What was sealed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The text.
    pub text: String,
    /// Whether it was sealed as it would be now: with the first key, for this fleet.
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
        "the file has no key in it: make one with `(umask 077; head -c 32 /dev/urandom | base64 > seal.key)`, one line of at \
         least {LINE_BYTES_MIN} characters"
    )]
    NoKey,
    /// Others can read the file.
    #[error(
        "others may read or change it: run `chmod 600` on it, and replace the key if somebody may have read it"
    )]
    Open,
    /// There are no random numbers to be had.
    #[error("the system has no random numbers")]
    Randomness(#[source] getrandom::Error),
    /// It does not open.
    #[error("it was sealed with another key than this server has, or changed by somebody who has none")]
    Closed,
    /// It is not said whose it is.
    #[error(
        "an older version has sealed it, and so whoever has kept what that has written may have put it there"
    )]
    Old,
    /// It is another fleet's.
    #[error("it is that of the fleet {theirs:?}, and this is {ours:?}")]
    Elsewhere {
        /// Whose it is.
        theirs: String,
        /// Whose it should be.
        ours: String,
    },
}

impl SealKey {
    /// Reads the keys in a file, one on each line.
    ///
    /// # Errors
    /// It cannot be read, or others can read it too, or it has none.
    pub(crate) fn read(path: &Path) -> Result<Self, SealError> {
        let mut file = File::open(path).map_err(failed("read", path))?;
        if file.metadata().map_err(failed("read", path))?.mode() & OTHERS != 0 {
            return Err(SealError::Open);
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed("read", path))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, SealError> {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() || lines.iter().any(|line| line.len() < LINE_BYTES_MIN) {
            return Err(SealError::NoKey);
        }
        Ok(Self(lines.into_iter().map(|line| blake3::derive_key(CONTEXT, line.as_bytes())).collect()))
    }

    /// Seals a text for a fleet.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn seal(&self, fleet: &str, text: &str) -> Result<Vec<u8>, SealError> {
        self.seal_under(&head(fleet), text)
    }

    /// As an older version seals.
    #[cfg(test)]
    pub(crate) fn seal_old(&self, text: &str) -> Vec<u8> {
        self.seal_under(HEAD_OLD, text).unwrap()
    }

    fn seal_under(&self, head: &[u8], text: &str) -> Result<Vec<u8>, SealError> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(SealError::Randomness)?;
        let Some(key) = self.0.first() else { return Err(SealError::NoKey) };
        let mut body = text.as_bytes().to_vec();
        let sealed = cipher(key, &salt)
            .and_then(|cipher| cipher.seal_in_place_append_tag(nonce(), Aad::from(head), &mut body));
        sealed.map_err(|_| SealError::Closed)?;
        Ok([head, &salt, &body].concat())
    }

    /// Opens what was sealed for a fleet with one of the keys.
    ///
    /// # Errors
    /// It was not.
    pub(crate) fn open(&self, fleet: &str, sealed: &[u8]) -> Result<Opened, SealError> {
        let (found, number, text) = self.open_any(sealed)?;
        if found == head(fleet) {
            return Ok(Opened { text, is_current: number == 0 });
        }
        if found == HEAD_OLD {
            return Err(SealError::Old);
        }
        let theirs = String::from_utf8_lossy(found);
        let theirs = theirs.trim_end_matches('\n').strip_prefix(HEAD).ok_or(SealError::Closed)?;
        Err(SealError::Elsewhere { theirs: theirs.to_owned(), ours: fleet.to_owned() })
    }

    /// Opens what an older version has sealed with one of the keys, for whichever fleet.
    ///
    /// # Errors
    /// It has not.
    pub(crate) fn open_old(&self, sealed: &[u8]) -> Result<Opened, SealError> {
        let (found, _, text) = self.open_any(sealed)?;
        if found == HEAD_OLD { Ok(Opened { text, is_current: false }) } else { Err(SealError::Closed) }
    }

    /// The first line, which key it was, and the text.
    fn open_any<'a>(&self, sealed: &'a [u8]) -> Result<(&'a [u8], usize, String), SealError> {
        let line = sealed.iter().position(|byte| *byte == b'\n').ok_or(SealError::Closed)?;
        let (found, rest) = sealed.split_at(line + 1);
        let (salt, body) = rest.split_at_checked(SALT_BYTES).ok_or(SealError::Closed)?;
        let open = |(number, key): (usize, &[u8; 32])| {
            let mut body = body.to_vec();
            let opened = cipher(key, salt).ok()?.open_in_place(nonce(), Aad::from(found), &mut body).ok()?;
            Some((number, String::from_utf8(opened.to_vec()).ok()?))
        };
        // Before anything is said of it: only who has a key has written what opens.
        let (number, text) = self.0.iter().enumerate().find_map(open).ok_or(SealError::Closed)?;
        Ok((found, number, text))
    }
}

/// Whether this says whose it is, as what older versions have sealed does not.
pub(super) fn is_bound(sealed: &[u8]) -> bool {
    sealed.starts_with(HEAD.as_bytes())
}

/// The first line of what is sealed for a fleet.
fn head(fleet: &str) -> Vec<u8> {
    format!("{HEAD}{}\n", fleet.escape_debug()).into_bytes()
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
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(lines: &str) -> SealKey {
        SealKey::parse(lines).unwrap()
    }

    const FIRST: &str = "rW3JbOtmCWl2ql0xmLZqRg==";
    const SECOND: &str = "0tKZuC1Jqg0c3cH7dyYQ9A==";

    #[test]
    fn p38_what_is_sealed_opens_with_its_key_and_only_as_it_was() {
        let key = key(FIRST);
        let sealed = key.seal("shop", "who may do what").unwrap();
        let opened = Opened { text: "who may do what".to_owned(), is_current: true };
        assert_eq!(key.open("shop", &sealed).unwrap(), opened);
        assert!(!sealed.windows(7).any(|part| part == b"who may"), "it is not readable");
        assert_ne!(key.seal("shop", "who may do what").unwrap(), sealed, "nobody sees that it is the same");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(matches!(key.open("shop", &changed), Err(SealError::Closed)), "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(key.open("shop", &sealed[..length]).is_err(), "cut off after {length}");
        }
        assert!(SealKey::parse(SECOND).unwrap().open("shop", &sealed).is_err());
    }

    #[test]
    fn a_key_is_replaced_while_others_have_the_old_one() {
        let (old, both, new) = (key(FIRST), key(&format!("{SECOND}\n{FIRST}\n")), key(SECOND));
        let seal = |key: &SealKey| key.seal("shop", "x").unwrap();
        let opens =
            |key: &SealKey, sealed: &[u8]| key.open("shop", sealed).ok().map(|opened| opened.is_current);
        let by_old = seal(&old);
        assert_eq!((opens(&both, &by_old), opens(&new, &by_old)), (Some(false), None));
        let by_both = seal(&both);
        assert_eq!((opens(&new, &by_both), opens(&old, &by_both)), (Some(true), None));
        let waiting = key(&format!("{FIRST}\n{SECOND}"));
        assert_eq!((opens(&waiting, &by_both), opens(&old, &seal(&waiting))), (Some(false), Some(true)));
    }

    #[test]
    fn p38_what_another_fleet_has_sealed_with_the_same_key_is_not_taken_for_this_ones() {
        let key = key(&format!("{FIRST}\n{SECOND}"));
        for theirs in ["staging", "", "shop\n", "shop 2", "\u{1b}[2J"] {
            let sealed = key.seal(theirs, "who may do what").unwrap();
            assert!(key.open(theirs, &sealed).unwrap().is_current);
            let why = key.open("shop", &sealed).unwrap_err();
            assert!(matches!(why, SealError::Elsewhere { .. }), "{theirs:?}: {why}");
            assert!(!why.to_string().contains(char::is_control), "{why:?}");
            // Nor with the other's first line before it.
            let line = sealed.iter().position(|byte| *byte == b'\n').unwrap();
            let moved = [&head("shop"), &sealed[line + 1..]].concat();
            assert!(matches!(key.open("shop", &moved), Err(SealError::Closed)), "{theirs:?}");
        }
    }

    /// As version 1 has sealed `{}` with the first key.
    const OLD: &str = "6261746f6e2d7365616c656420310af453c57177020f9d644c467309517d653d5b1e18eae929efd572a8a25eb5f91773a17dad00b58c026ec11b0e71856a49e2b9";

    #[test]
    fn p38_what_an_older_version_has_sealed_is_opened_for_who_asks_for_that() {
        let old: Vec<u8> =
            (0..OLD.len()).step_by(2).map(|at| u8::from_str_radix(&OLD[at..at + 2], 16).unwrap()).collect();
        assert!(old.starts_with(HEAD_OLD));
        let opened = Opened { text: "{}".to_owned(), is_current: false };
        assert!(matches!(key(FIRST).open("shop", &old), Err(SealError::Old)));
        assert_eq!(key(FIRST).open_old(&old).unwrap(), opened);
        assert!(key(SECOND).open_old(&old).is_err());
        assert!(key(FIRST).open_old(&key(FIRST).seal("shop", "{}").unwrap()).is_err());
    }

    #[test]
    fn p43_a_key_that_others_may_read_or_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        fs::write(&path, FIRST).unwrap();
        for (mode, refused) in
            [(0o600, false), (0o400, false), (0o440, false), (0o644, true), (0o620, true), (0o404, true)]
        {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = SealKey::read(&path);
            assert_eq!(matches!(read, Err(SealError::Open)), refused, "{mode:o}: {read:?}");
            assert!(refused || read.is_ok(), "{mode:o}: {read:?}");
        }
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
