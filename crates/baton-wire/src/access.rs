//! Who may do what: the JSON by which tokens are made and members join, and of the file in which control keeps it.
//!
//! | method and path | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/tokens` | | `[`[`TokenView`]`]`, by holder |
//! | `POST /v1/tokens` | [`MakeToken`] | `201` [`MadeToken`]; sent again it is the same token |
//! | `DELETE /v1/tokens/{id}` | | `200` [`TokenView`] of the one that is none any more; sent again within a day it is the same |
//! | `POST /v1/join` | [`Join`] | [`Joined`]; sent again with the same key it is the same member |
//! | `POST /v1/renew` | | [`Joined`] |
//! | `DELETE /v1/services/{service}/members/{member}/credential` | | `200`: what the member has is worth nothing any more |
//! | `PUT /v1/services/{service}/protection` | [`Protection`] | [`ProtectionView`] |
//! | `GET /v1/pending` | | `[`[`PendingView`]`]`: deploys that wait for a second person |
//! | `POST /v1/services/{service}/pending/{id}` | | `201` and the deploy: it has begun |
//! | `DELETE /v1/services/{service}/pending/{id}` | | [`PendingView`] of the one that waits no more |
//! | `GET /v1/guards` | | `[`[`GuardView`]`]`: what is switched off |
//! | `GET /v1/audit?after=N` | | [`AuditPage`]: at most 1000 lines after that record |
//!
//! Secrets are never sent to control in a body, and never answered, but for the credential of a member.

mod stored;

use baton_core::access::{Role, Scope, Token};
use baton_core::ids::ServiceName;
use serde::{Deserialize, Serialize};

use crate::api::{DeployName, Propose};

pub use stored::{
    BadBook, StoredAuthority, StoredBook, StoredEnd, StoredGone, StoredJoin, StoredProtection,
    StoredRevocation, StoredToken,
};

/// A token to be made. Whoever makes it draws its secret, and keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeToken {
    /// The BLAKE3 hash of its 32 random bytes.
    pub hash: String,
    /// Whose it is.
    pub holder: String,
    /// What it may do: `viewer`, `deployer`, `approver`, `operator`, `admin`, or `join`.
    pub role: String,
    /// For which services; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
    /// How long it is good for; absent: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Of one that makes members: the only member that it makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Of one that makes members: whether it makes more than one.
    #[serde(default)]
    pub reusable: bool,
}

/// A token that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeToken {
    /// The token.
    pub token: TokenView,
    /// The fingerprint of control's own certificate authority, which goes behind the secret; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// A token, without what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// The beginning of its hash.
    pub id: String,
    /// Whose it is.
    pub holder: String,
    /// What it may do.
    pub role: String,
    /// For which services; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
    /// When it was made.
    pub created_ms: u64,
    /// When it ends; absent: when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// The only member that it makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Whether it makes more than one.
    #[serde(default)]
    pub reusable: bool,
    /// The member that it has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<String>,
}

impl TokenView {
    /// Of a token, and of the member that it has made.
    pub fn of(token: &Token, joined: Option<String>) -> Self {
        Self {
            id: token.id().to_string(),
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
}

/// Who wants to be a member. The token says of which services it may be one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Of which service.
    pub service: String,
    /// Which member.
    pub member: String,
    /// Random, kept by the member until it has its answer: who sends it again is the same one.
    pub key: String,
}

/// A member's credential.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// What it shows from now on.
    pub credential: String,
    /// In what time it is to ask for the next one.
    pub renew_after_ms: u64,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").field("renew_after_ms", &self.renew_after_ms).finish_non_exhaustive()
    }
}

/// Whether deploys of a service wait for a second person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// They do.
    pub protected: bool,
}

/// Whether deploys of a service wait for a second person, once it was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectionView {
    /// They do because of the service itself.
    pub protected: bool,
    /// The service that this is a flavor of, and because of which they do all the same; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Let a deploy begin that waits for a second person.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Approving {
    /// Its warrant, with the signature of whoever lets it begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warrant: Option<String>,
    /// Whether fewer keys than those of the deploy in force are enough.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_signed: bool,
}

/// A deploy that waits for a second person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingView {
    /// What people call it by.
    pub id: String,
    /// Of which service.
    pub service: String,
    /// Whose token has asked for it.
    pub asked_by: String,
    /// When.
    pub at_ms: u64,
    /// Until when it waits.
    pub ends_ms: u64,
    /// Who has let it begin, where it has not begun yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// When somebody has let it begin last, or that was taken back since it could not begin; absent where nobody ever has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_ms: Option<u64>,
    /// What was asked for, with the deploy that was in force then.
    pub asked: Propose,
    /// What has come into force since, so that it cannot begin any more. It is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overtaken_by: Option<DeployName>,
}

/// Something that keeps mistakes and strangers from the fleet, and is switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardView {
    /// `credentials`, `tls`, `certificate`, `single-use` or `auto-rollback`.
    pub guard: String,
    /// Of which service; absent where it concerns all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What that means, in a sentence.
    pub text: String,
}

/// A part of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// Its lines, as they are in the file.
    pub lines: Vec<String>,
    /// How many records the log has.
    pub records: u64,
    /// The hash of the last one.
    pub head: String,
}

fn services(scope: &Scope) -> Option<Vec<String>> {
    match scope {
        Scope::Every => None,
        Scope::Only(services) => Some(services.iter().map(ServiceName::to_string).collect()),
    }
}

/// The scope that a list of services is.
///
/// # Errors
/// One of them is no name of a service.
pub fn scope(services: Option<&[String]>) -> Result<Scope, baton_core::ids::InvalidId> {
    let Some(services) = services else { return Ok(Scope::Every) };
    Ok(Scope::Only(services.iter().map(|service| service.parse()).collect::<Result<_, _>>()?))
}

/// Roles that a request may name.
///
/// # Errors
/// It is none, or that of a member, which nobody is given.
pub fn role(text: &str) -> Result<Role, baton_core::access::NoRole> {
    let role: Role = text.parse()?;
    if role == Role::Member { Err(baton_core::access::NoRole) } else { Ok(role) }
}
