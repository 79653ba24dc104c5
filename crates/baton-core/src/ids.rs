//! Names of things: one type each, so that two of them cannot be swapped, parsed once at the border.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::str::FromStr;

/// Why a text is not a valid id or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// A name has a character, a first character or a length that names may not have.
    #[error(
        "{kind} {text:?} is not valid: use 1 to {max} of a-z, A-Z, 0-9, '.', '_' and '-', starting with a letter or digit"
    )]
    Name {
        /// What was being parsed, as people call it.
        kind: &'static str,
        /// The text as given.
        text: String,
        /// The greatest length in bytes.
        max: usize,
    },
    /// A hash is not the right number of lowercase hexadecimal digits.
    #[error("{kind} {text:?} is not valid: it has {digits} lowercase hexadecimal digits")]
    Hex {
        /// What was being parsed, as people call it.
        kind: &'static str,
        /// The text as given.
        text: String,
        /// The number of digits it needs.
        digits: usize,
    },
}

/// Longest name in bytes: fits a DNS label and a file name, and keeps tables readable.
pub const NAME_BYTES_MAX: usize = 63;

/// Whether a text can be the name of a thing.
pub(crate) fn valid_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(allowed)
}

/// A name with its hash, which is computed once: nothing is looked for as often as members are by their names.
#[derive(Clone, Eq, PartialOrd, Ord)]
struct Name {
    text: Arc<str>,
    hash: u64,
}

impl Name {
    fn new(text: &str) -> Self {
        Self { text: text.into(), hash: hash_of(text) }
    }
}

impl PartialEq for Name {
    /// Names that differ mostly differ in their hashes, which are at hand.
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Nobody finds many names of one hash.
#[expect(deprecated, reason = "the one that took its place is not in core")]
fn hash_of(text: &str) -> u64 {
    let mut hasher = core::hash::SipHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Name);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0.text
            }
        }
        impl FromStr for $type {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if valid_name(text) {
                    Ok(Self(Name::new(text)))
                } else {
                    Err(InvalidId::Name { kind: $kind, text: text.to_string(), max: NAME_BYTES_MAX })
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

name!(
    /// One place where a service runs: one bootloader and the program under it.
    MemberId,
    "member"
);
impl MemberId {
    /// A hash of the name.
    pub(crate) const fn digest(&self) -> u64 {
        self.0.hash
    }
}

name!(
    /// A named program that runs many times.
    ServiceName,
    "service"
);
impl ServiceName {
    /// The service that this one is a flavor of, as its name has it: `web` of `web.taskworker`. None of a name without a dot.
    pub fn base(&self) -> Option<Self> {
        let (base, _) = self.as_str().rsplit_once('.')?;
        base.parse().ok()
    }

    /// The services that it is a flavor of, the nearest first: what holds for one of them by name holds for this one.
    pub fn bases(&self) -> impl Iterator<Item = Self> + use<> {
        core::iter::successors(self.base(), Self::base)
    }
}

name!(
    /// One mode of a service's code, with its own settings and members.
    FlavorName,
    "flavor"
);
name!(
    /// Whose a token is: a person, or a program such as a build server.
    HolderName,
    "name"
);

/// The digits of hashes.
const HEX: [u8; 16] = *b"0123456789abcdef";

/// What each byte is worth as a digit of a hash; more than 15 for one that is none.
const DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut value = 0;
    while value < HEX.len() {
        digits[HEX[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

macro_rules! hex_id {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type([u8; $bytes]);

        impl $type {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
            /// The bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
            /// The first 12 hexadecimal digits: what people read and type.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(12);
                text
            }
        }
        impl FromStr for $type {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let mut bytes = [0; $bytes];
                if unhex(text, &mut bytes) {
                    Ok(Self(bytes))
                } else {
                    Err(InvalidId::Hex { kind: $kind, text: text.to_string(), digits: 2 * $bytes })
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Manifests have tens of thousands of them, and formatting each byte takes most of the time.
                let mut digits = [0; 2 * $bytes];
                for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
                    pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
                f.write_str(core::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }
    };
}

/// Reads exactly `2 * into.len()` lowercase hexadecimal digits.
fn unhex(text: &str, into: &mut [u8]) -> bool {
    if text.len() != 2 * into.len() {
        return false;
    }
    // Without a branch for each digit: a manifest has millions of them.
    let mut odd = 0;
    for (pair, byte) in text.as_bytes().chunks_exact(2).zip(into) {
        let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
        odd |= high | low;
        *byte = (high << 4) | (low & 15);
    }
    odd < 16
}

hex_id!(
    /// A release: the BLAKE3 hash of its manifest.
    ReleaseId,
    "release",
    32
);
hex_id!(
    /// What the outputs of a build step are kept under: the BLAKE3 hash of all that decides what they are.
    BuildKey,
    "build key",
    32
);
hex_id!(
    /// A chunk of a release's content: the BLAKE3 hash of its uncompressed bytes.
    ChunkId,
    "chunk",
    32
);
hex_id!(
    /// A pack of chunks: the BLAKE3 hash of its bytes.
    PackId,
    "pack",
    32
);
impl ChunkId {
    /// The name of the chunk with this content.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
}

impl PackId {
    /// The name of the pack with these bytes.
    pub fn of(pack: &[u8]) -> Self {
        Self(*blake3::hash(pack).as_bytes())
    }
}

hex_id!(
    /// A key that signs: its public half, as of Ed25519 ([RFC 8032](https://www.rfc-editor.org/rfc/rfc8032)).
    KeyId,
    "key",
    32
);
hex_id!(
    /// What a key makes of a text, as of Ed25519.
    SignatureBytes,
    "signature",
    64
);

hex_id!(
    /// A token: the BLAKE3 hash of its random bytes.
    TokenHash,
    "token hash",
    32
);
hex_id!(
    /// What people call a token by: the beginning of its hash.
    TokenId,
    "token",
    6
);
hex_id!(
    /// A deploy that waits for a second person.
    PendingId,
    "pending deploy",
    6
);
impl PendingId {
    /// That of a request by this token: the same for the same key, and where there is none another one each millisecond.
    pub fn of(service: &ServiceName, token: TokenId, key: Option<&str>, now: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(token.as_bytes()).update(service.as_str().as_bytes());
        match key {
            Some(key) => hasher.update(b" key ").update(key.as_bytes()),
            None => hasher.update(b" at ").update(&now.to_be_bytes()),
        };
        let mut id = [0; 6];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}
hex_id!(
    /// A record of the audit log, with all before it: their BLAKE3 hash.
    AuditHash,
    "hash of the audit log",
    32
);

hex_id!(
    /// A deploy: 16 random bytes, drawn when it is proposed.
    DeployId,
    "deploy",
    16
);

/// The number of a deploy within its service: every new deploy has a greater one. 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one. The last one has none, and is never reached.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One launch of a release inside one member, counted from 1 since the bootloader started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub u32);

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once_at_the_border() {
        for good in ["web", "web-1", "0", "a.b_c", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(good.parse::<MemberId>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "-a", "a b", "a/b", "ä", "a\n", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(bad.parse::<MemberId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_hash_is_read_back_as_it_was_printed_and_nothing_else_is() {
        let id = ReleaseId::from_bytes(core::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse::<ReleaseId>(), Ok(id));
        assert_eq!(id.short().len(), 12);
        for bad in ["", "00", &id.to_string().to_uppercase(), &id.to_string()[1..], &"g".repeat(64)] {
            assert!(bad.parse::<ReleaseId>().is_err(), "{bad:?}");
        }
    }
}
