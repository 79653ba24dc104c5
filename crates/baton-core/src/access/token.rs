//! Tokens: what people and programs show.
//!
//! ```text
//! baton_ SECRET [ . FINGERPRINT ]
//! ```
//!
//! The secret is 32 random bytes, drawn by whoever makes the token; control keeps their hash only, so what is stolen from
//! control's disk opens nothing. The fingerprint is that of control's own certificate authority: who has the token knows by it
//! whom it may be shown to. It is no part of what is shown.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::role::{Role, Scope};
use crate::ids::{HolderName, MemberId, TokenHash, TokenId};
use crate::run::secrets::Secret;

/// How many random bytes a token has.
pub const TOKEN_BYTES: usize = 32;

/// What a token begins with, so that people and scanners of source code know one.
const PREFIX: &str = "baton_";
/// What the credential of a member begins with.
const MEMBER_PREFIX: &str = "member_";
/// Longest text that is looked at: several times that of the longest credential.
const SHOWN_BYTES_MAX: usize = 1024;

/// A token as control knows it: what it is good for, and not what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The hash of its secret.
    pub hash: TokenHash,
    /// Whose it is.
    pub holder: HolderName,
    /// What it may do.
    pub role: Role,
    /// For which services.
    pub scope: Scope,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// From when on it is none any more, if ever.
    pub expires: Option<u64>,
    /// The only member that it may make, if that was said; only of one that makes members.
    pub member: Option<MemberId>,
    /// Whether it makes members as often as it is shown; only of one that makes members.
    pub reusable: bool,
}

impl Token {
    /// What people call it by.
    pub fn id(&self) -> TokenId {
        self.hash.id()
    }

    /// Whether it is still one.
    pub fn is_valid(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl TokenHash {
    /// The hash of this secret.
    pub fn of(secret: &[u8]) -> Self {
        Self::from_bytes(*blake3::hash(secret).as_bytes())
    }

    /// The beginning of it, which is what people see of a token.
    pub fn id(&self) -> TokenId {
        let mut id = [0; 6];
        id.copy_from_slice(&self.as_bytes()[..6]);
        TokenId::from_bytes(id)
    }
}

/// The certificate authority of a control server, by the hash of its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(*blake3::hash(certificate).as_bytes())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let mut bytes = [0; 32];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(32) => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(BadToken),
        }
    }
}

/// A text that is neither a token nor a credential. It is not repeated: it may be most of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "that is no token: one begins with baton_ and is given by `baton token create` or `baton token join`"
)]
pub struct BadToken;

/// What is shown to control, a token or a credential, and to which control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What is shown.
    pub secret: Secret,
    /// Whom it may be shown to, where that is known.
    pub fingerprint: Option<Fingerprint>,
}

impl Shown {
    /// A token of these random bytes.
    pub fn token(random: &[u8; TOKEN_BYTES], fingerprint: Option<Fingerprint>) -> Self {
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(random));
        Self { secret: Secret::new(format!("{PREFIX}{}", *encoded)), fingerprint }
    }

    /// The whole text, for who keeps it.
    pub fn to_secret(&self) -> Secret {
        let mut text = self.secret.reveal().to_string();
        if let Some(fingerprint) = self.fingerprint {
            text.push('.');
            text.push_str(&fingerprint.to_string());
        }
        Secret::new(text)
    }

    /// The hash by which control knows a token; none of what is no token.
    pub fn hash(secret: &str) -> Option<TokenHash> {
        let encoded = secret.strip_prefix(PREFIX)?;
        let mut random = Zeroizing::new([0; TOKEN_BYTES]);
        match URL_SAFE_NO_PAD.decode_slice(encoded, random.as_mut()) {
            Ok(TOKEN_BYTES) => Some(TokenHash::of(random.as_ref())),
            Ok(_) | Err(_) => None,
        }
    }
}

impl FromStr for Shown {
    type Err = BadToken;

    /// Reads a token or a credential as people and files have it: a line feed at the end does not count.
    fn from_str(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        let (secret, fingerprint) = match text.split_once('.') {
            Some((secret, fingerprint)) => (secret, Some(fingerprint.parse()?)),
            None => (text, None),
        };
        let body = secret.strip_prefix(PREFIX).or_else(|| secret.strip_prefix(MEMBER_PREFIX));
        let is_body = |body: &str| {
            !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if text.len() > SHOWN_BYTES_MAX || !body.is_some_and(is_body) {
            return Err(BadToken);
        }
        Ok(Self { secret: Secret::new(String::from(secret)), fingerprint })
    }
}

/// The text of a credential with this content, and back.
pub(super) fn member_text(content: &[u8]) -> Secret {
    Secret::new(format!("{MEMBER_PREFIX}{}", URL_SAFE_NO_PAD.encode(content)))
}

/// The content of a credential's text.
pub(super) fn member_content(secret: &str) -> Option<alloc::vec::Vec<u8>> {
    let encoded = secret.strip_prefix(MEMBER_PREFIX).filter(|text| text.len() <= SHOWN_BYTES_MAX)?;
    URL_SAFE_NO_PAD.decode(encoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn a_token_is_read_as_it_is_written_and_known_by_its_hash() {
        let random = [7; TOKEN_BYTES];
        for fingerprint in [None, Some(Fingerprint::of(b"certificate"))] {
            let token = Shown::token(&random, fingerprint);
            let read: Shown = format!("{}\n", token.to_secret().reveal()).parse().unwrap();
            assert_eq!(read, token);
            assert_eq!(Shown::hash(read.secret.reveal()), Some(TokenHash::of(&random)));
        }
    }

    #[test]
    fn p43_a_token_does_not_show_itself() {
        let token = Shown::token(&[7; TOKEN_BYTES], None);
        let shown = format!("{token:?} {:?}", "baton_not-a-token!".parse::<Shown>());
        assert!(!shown.contains(&token.secret.reveal()[6..]) && !shown.contains("not-a-token"), "{shown}");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = Shown::token(&[7; TOKEN_BYTES], None).to_secret();
        for bad in ["", "baton_", "bearer", "baton_a b", &format!("{}.short", good.reveal()), "BATON_AAAA"] {
            assert_eq!(bad.parse::<Shown>(), Err(BadToken), "{bad}");
        }
        assert!("baton_".repeat(400).parse::<Shown>().is_err());
        for bad in ["baton_AAAA", "member_AAAA", "", "baton_é"] {
            assert_eq!(Shown::hash(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_ends_when_it_was_said_to() {
        let token = |expires| Token {
            hash: TokenHash::of(b"x"),
            holder: "ada".parse().unwrap(),
            role: Role::Viewer,
            scope: Scope::Every,
            created: 0,
            expires,
            member: None,
            reusable: false,
        };
        assert!(token(None).is_valid(u64::MAX));
        assert!(token(Some(10)).is_valid(9) && !token(Some(10)).is_valid(10));
    }
}
