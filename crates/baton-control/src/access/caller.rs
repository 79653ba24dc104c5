//! Who asks.

use std::fmt;
use std::sync::Arc;

use baton_core::access::{Credential, Right, Role, Scope, Token};
use baton_core::ids::{MemberId, ServiceName};

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Whoever reaches a server that asks nobody who they are.
    Anybody,
    /// Who has a token.
    Holder(Arc<Token>),
    /// A member.
    Member(Credential),
    /// A member whose credential has ended a while ago.
    Late(Credential),
}

impl Caller {
    /// Whether it may do this to something.
    pub(crate) fn may(&self, right: Right) -> bool {
        match self {
            Self::Anybody => true,
            Self::Holder(token) => token.role.may(right),
            Self::Member(_) => Role::Member.may(right),
            Self::Late(_) => right == Right::Renew,
        }
    }

    /// Whether a service is among what it may do that to.
    pub(crate) fn covers(&self, service: &ServiceName) -> bool {
        match self {
            Self::Anybody => true,
            Self::Holder(token) => token.scope.covers(service),
            Self::Member(credential) | Self::Late(credential) => credential.service == *service,
        }
    }

    /// Whether that is every service.
    pub(crate) fn covers_all(&self) -> bool {
        match self {
            Self::Anybody => true,
            Self::Holder(token) => token.scope == Scope::Every,
            Self::Member(_) | Self::Late(_) => false,
        }
    }

    /// Whether it may speak for this member.
    pub(crate) fn is(&self, service: &ServiceName, member: &MemberId) -> bool {
        match self {
            Self::Anybody => true,
            Self::Holder(_) | Self::Late(_) => false,
            Self::Member(credential) => credential.service == *service && credential.member == *member,
        }
    }

    /// When it ends that it is known, in milliseconds since 1970; none where that does not end by itself.
    pub(crate) fn ends(&self) -> Option<u64> {
        match self {
            Self::Anybody => None,
            Self::Holder(token) => token.expires,
            Self::Member(credential) | Self::Late(credential) => Some(credential.until()),
        }
    }

    /// The role, for people.
    pub(crate) fn role(&self) -> &'static str {
        match self {
            Self::Anybody => "anybody",
            Self::Holder(token) => token.role.as_str(),
            Self::Member(_) => Role::Member.as_str(),
            Self::Late(_) => "member whose credential has ended",
        }
    }

    /// Who asks for a deploy: the holder of the token, and what it says of itself only where nobody is asked for one.
    pub(crate) fn actor(&self, said: String) -> String {
        match self {
            Self::Holder(token) => token.holder.to_string(),
            Self::Anybody | Self::Member(_) | Self::Late(_) if said.is_empty() => "somebody".to_owned(),
            Self::Anybody | Self::Member(_) | Self::Late(_) => said,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("anybody"),
            Self::Holder(token) => write!(f, "{}/{}", token.holder, token.id()),
            Self::Member(credential) | Self::Late(credential) => {
                write!(f, "member {}/{}", credential.service, credential.member)
            }
        }
    }
}
