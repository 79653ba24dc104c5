//! Roles, what each may do, and for which services.

use alloc::collections::BTreeSet;
use core::fmt;
use core::str::FromStr;

use crate::ids::ServiceName;

/// What a caller is to control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks at everything and changes nothing.
    Viewer,
    /// Pushes releases and deploys them.
    Deployer,
    /// Lets others' deploys of protected services begin.
    Approver,
    /// Runs the services: deploys too, and keeps the store.
    Operator,
    /// Says who may do what, and reads what everybody did.
    Admin,
    /// Becomes a member, once, and nothing else.
    Join,
    /// One member.
    Member,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// See services, members, deploys, releases, events and metrics.
    Look,
    /// Read what releases are made of.
    Fetch,
    /// Bring releases and what belongs to them.
    Push,
    /// Put a deploy in force, halt, resume and go back.
    Deploy,
    /// Put a deploy in force on every member at once.
    AllAtOnce,
    /// Let somebody else's deploy begin.
    Approve,
    /// Check what the store has, remove what nobody needs, and let members go that will not come back.
    Keep,
    /// Make and revoke tokens, protect services, read the audit log.
    Administer,
    /// Become a member.
    Join,
    /// Have a session, and be told what a member is told.
    Attend,
    /// Get the next credential for the one that is shown.
    Renew,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Viewer, Self::Deployer, Self::Approver, Self::Operator, Self::Admin, Self::Join, Self::Member];

    /// Those that a person or a program can be given.
    pub const GIVEN: [Self; 5] = [Self::Viewer, Self::Deployer, Self::Approver, Self::Operator, Self::Admin];

    /// Whether the role has the right. This is the whole table.
    pub const fn may(self, right: Right) -> bool {
        use Right::{Administer, AllAtOnce, Approve, Attend, Deploy, Fetch, Join, Keep, Look, Push, Renew};
        match self {
            Self::Viewer => matches!(right, Look),
            Self::Deployer => matches!(right, Look | Fetch | Push | Deploy),
            Self::Approver => matches!(right, Look | Approve),
            Self::Operator => matches!(right, Look | Fetch | Push | Deploy | AllAtOnce | Keep),
            Self::Admin => {
                matches!(right, Look | Fetch | Push | Deploy | AllAtOnce | Approve | Keep | Administer)
            }
            Self::Join => matches!(right, Join),
            Self::Member => matches!(right, Fetch | Attend | Renew),
        }
    }

    /// Its name, as people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Approver => "approver",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Join => "join",
            Self::Member => "member",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such role: write viewer, deployer, approver, operator or admin")]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(NoRole)
    }
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Look,
        Self::Fetch,
        Self::Push,
        Self::Deploy,
        Self::AllAtOnce,
        Self::Approve,
        Self::Keep,
        Self::Administer,
        Self::Join,
        Self::Attend,
        Self::Renew,
    ];

    /// Its name, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Fetch => "fetch",
            Self::Push => "push",
            Self::Deploy => "deploy",
            Self::AllAtOnce => "all-at-once",
            Self::Approve => "approve",
            Self::Keep => "keep",
            Self::Administer => "administer",
            Self::Join => "join",
            Self::Attend => "attend",
            Self::Renew => "renew",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// For which services a role is had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// For all, also those that there are not yet.
    Every,
    /// For these only.
    Only(BTreeSet<ServiceName>),
}

impl Scope {
    /// Whether a service is one of them.
    pub fn covers(&self, service: &ServiceName) -> bool {
        match self {
            Self::Every => true,
            Self::Only(services) => services.contains(service),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn p37_each_role_has_its_rights_and_no_others() {
        // One row for each role, one column for each of `Right::ALL`.
        let table = [
            (Role::Viewer, "x.........."),
            (Role::Deployer, "xxxx......."),
            (Role::Approver, "x....x....."),
            (Role::Operator, "xxxxx.x...."),
            (Role::Admin, "xxxxxxxx..."),
            (Role::Join, "........x.."),
            (Role::Member, ".x.......xx"),
        ];
        for (role, row) in table {
            for (right, mark) in Right::ALL.into_iter().zip(row.chars()) {
                assert_eq!(role.may(right), mark == 'x', "{role} {right}");
            }
        }
        assert_eq!(table.map(|(role, _)| role), Role::ALL);
    }

    #[test]
    fn p39_who_can_be_stolen_from_a_host_can_neither_deploy_nor_look() {
        for role in [Role::Join, Role::Member] {
            for right in [Right::Look, Right::Push, Right::Deploy, Right::Approve, Right::Administer] {
                assert!(!role.may(right), "{role} {right}");
            }
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("root".parse::<Role>(), Err(NoRole));
    }

    #[test]
    fn a_scope_covers_what_it_names() {
        let web: ServiceName = "web".parse().unwrap();
        let api: ServiceName = "api".parse().unwrap();
        let only = Scope::Only([web.clone()].into());
        assert!(Scope::Every.covers(&api) && only.covers(&web) && !only.covers(&api));
    }
}
