//! The file in which control keeps tokens: JSON, which a person may read with an editor.

use baton_core::access::Token;
use baton_core::ids::{InvalidId, MemberId, ServiceName, TokenHash};
use serde::{Deserialize, Serialize};

use super::{PendingView, role, scope, services};

/// The only version there is.
const VERSION: u32 = 1;

/// Everything that is kept.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredBook {
    /// Of this format.
    pub version: u32,
    /// When it was begun, in milliseconds since 1970; 0 where that was not written down.
    #[serde(default)]
    pub made_ms: u64,
    /// What control knows its members' credentials by, as 64 digits.
    pub key: String,
    /// The tokens.
    pub tokens: Vec<StoredToken>,
    /// The members whose credentials from before a time are worth nothing.
    pub revoked: Vec<StoredRevocation>,
    /// The hashes of tokens that were revoked, so that no older list brings them back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<StoredGone>,
    /// The services whose deploys wait for a second person, as older versions have written them.
    #[serde(default, skip_serializing)]
    pub protected: Vec<String>,
    /// Which services' deploys wait for a second person, or no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protection: Vec<StoredProtection>,
    /// The deploys that wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<PendingView>,
    /// Those that wait no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<StoredEnd>,
    /// The authority that vouches for the servers, where the list is one of several servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<StoredAuthority>,
}

/// Something that has ended, and until when that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEnd {
    /// What it is known by.
    pub id: String,
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
}

/// A token that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredGone {
    /// Its hash.
    pub id: String,
    /// Until when that is remembered, in milliseconds since 1970.
    pub until_ms: u64,
    /// When it was revoked, in milliseconds since 1970; 0 where that was not written down, or is of no use any more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub at_ms: u64,
    /// The token as it was then, for whoever has not heard the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<StoredToken>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(time: &u64) -> bool {
    *time == 0
}

/// Whether deploys of a service wait for a second person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredProtection {
    /// The service.
    pub service: String,
    /// They do.
    pub protected: bool,
    /// Since when, in milliseconds since 1970.
    pub at_ms: u64,
}

/// An authority, in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredAuthority {
    /// Its certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// When it was made, in milliseconds since 1970; 0 where that was not written down.
    #[serde(default)]
    pub made_ms: u64,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredToken {
    hash: String,
    holder: String,
    role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    services: Option<Vec<String>>,
    created_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    #[serde(default)]
    reusable: bool,
    /// What has become of one that makes members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<StoredJoin>,
}

/// Who has joined with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredJoin {
    /// Of which service.
    pub service: String,
    /// Which member.
    pub member: String,
    /// The hash of its key.
    pub key: String,
    /// When, in milliseconds since 1970; 0 where that was not written down.
    #[serde(default)]
    pub at_ms: u64,
}

/// A member whose credentials from before a time are worth nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredRevocation {
    /// Of which service.
    pub service: String,
    /// Which member.
    pub member: String,
    /// From before when, in milliseconds since 1970.
    pub before_ms: u64,
}

/// Why a file is not one of these.
#[derive(Debug, thiserror::Error)]
pub enum BadBook {
    /// It is no JSON, or has other fields.
    #[error("it cannot be read")]
    Json(#[from] serde_json::Error),
    /// It is from another version of this program.
    #[error("it has version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// A name or hash in it is none.
    #[error("a name in it is none")]
    Id(#[from] InvalidId),
    /// A role in it is none.
    #[error("a role in it is none")]
    Role(#[from] baton_core::access::NoRole),
}

impl StoredBook {
    /// One without tokens.
    pub const fn new(made_ms: u64, key: String) -> Self {
        Self {
            version: VERSION,
            made_ms,
            key,
            tokens: Vec::new(),
            gone: Vec::new(),
            revoked: Vec::new(),
            protected: Vec::new(),
            protection: Vec::new(),
            pending: Vec::new(),
            settled: Vec::new(),
            authority: None,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub fn parse(text: &str) -> Result<Self, BadBook> {
        let book: Self = serde_json::from_str(text)?;
        if book.version == VERSION { Ok(book) } else { Err(BadBook::Version(book.version)) }
    }

    /// The text of the file.
    ///
    /// # Errors
    /// None that is known: it is written to memory.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

impl StoredToken {
    /// Of a token, and of what has become of it.
    pub fn of(token: &Token, joined: Option<StoredJoin>) -> Self {
        Self {
            hash: token.hash.to_string(),
            holder: token.holder.to_string(),
            role: token.role.to_string(),
            services: services(&token.scope),
            created_ms: token.created,
            expires_ms: token.expires,
            member: token.member.as_ref().map(ToString::to_string),
            reusable: token.reusable,
            joined,
        }
    }

    /// The token.
    ///
    /// # Errors
    /// A field is not what it should be.
    pub fn token(&self) -> Result<Token, BadBook> {
        Ok(Token {
            hash: self.hash.parse::<TokenHash>()?,
            holder: self.holder.parse()?,
            role: role(&self.role)?,
            scope: scope(self.services.as_deref())?,
            created: self.created_ms,
            expires: self.expires_ms,
            member: self.member.as_deref().map(str::parse::<MemberId>).transpose()?,
            reusable: self.reusable,
        })
    }
}

impl StoredRevocation {
    /// Whose, and from before when.
    ///
    /// # Errors
    /// A name is none.
    pub fn read(&self) -> Result<((ServiceName, MemberId), u64), BadBook> {
        Ok(((self.service.parse()?, self.member.parse()?), self.before_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::access::{Role, Scope};

    #[test]
    fn a_list_that_an_older_version_wrote_is_read() {
        let text = r#"{ "version": 1, "key": "00", "tokens": [], "revoked": [],
            "gone": [{ "id": "01", "until_ms": 5 }],
            "authority": { "certificate": "c", "key": "k" } }"#;
        let read = StoredBook::parse(text).unwrap();
        assert_eq!(read.gone, [StoredGone { id: "01".into(), until_ms: 5, at_ms: 0, token: None }]);
        // And what has no more to say is written as it was, for who goes back to such a version.
        assert_eq!(serde_json::to_string(&read.gone).unwrap(), r#"[{"id":"01","until_ms":5}]"#);
        let authority = read.authority.unwrap();
        assert_eq!((&*authority.certificate, &*authority.key, authority.made_ms), ("c", "k", 0));
    }

    #[test]
    fn a_book_is_read_as_it_was_written_and_nothing_else_is() {
        let token = Token {
            hash: TokenHash::of(b"secret"),
            holder: "ada".parse().unwrap(),
            role: Role::Join,
            scope: Scope::Only(["web".parse().unwrap()].into()),
            created: 1,
            expires: Some(2),
            member: Some("web-1".parse().unwrap()),
            reusable: false,
        };
        let joined = StoredJoin { service: "web".into(), member: "web-1".into(), key: "ab".into(), at_ms: 3 };
        let mut book = StoredBook::new(1, "00".repeat(32));
        book.tokens.push(StoredToken::of(&token, Some(joined.clone())));
        let text = book.to_text().unwrap();
        let read = StoredBook::parse(&text).unwrap();
        assert_eq!(read.tokens[0].token().unwrap(), token);
        assert_eq!(read.tokens[0].joined, Some(joined));
        assert!(!text.contains("secret"), "{text}");
        for (from, to) in
            [("\"version\": 1", "\"version\": 2"), ("\"join\"", "\"root\""), ("\"web\"", "\"w b\"")]
        {
            let spoiled = text.replace(from, to);
            let read = StoredBook::parse(&spoiled).map(|book| book.tokens[0].token());
            assert!(!matches!(read, Ok(Ok(_))), "{to}");
        }
        assert!(StoredBook::parse("{}").is_err() && StoredBook::parse("").is_err());
    }
}
