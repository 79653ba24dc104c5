//! What happened: every step of a rollout is an event that people can see.

use alloc::string::String;

use crate::ids::{DeployId, MemberId, ServiceName};

/// One thing that happened to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds since 1970, for people; events are ordered by their number.
    pub at: u64,
    /// The service.
    pub service: ServiceName,
    /// The deploy it belongs to, if any.
    pub deploy: Option<DeployId>,
    /// The member it happened to; none when it happened to the whole service.
    pub member: Option<MemberId>,
    /// What happened, for machines.
    pub what: What,
    /// What happened, for people: a sentence that needs nothing else to be understood.
    pub text: String,
}

macro_rules! happenings {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What can happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum What {
            $($(#[$doc])* $name,)*
        }

        impl What {
            /// Everything that can happen.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A stable word for records, the API and metrics.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

happenings! {
    /// A release arrived in the artefact store.
    Pushed = "pushed",
    /// A release was removed from the artefact store.
    Pruned = "pruned",
    /// A rollout came into force.
    Deployed = "deployed",
    /// A halt came into force.
    Halted = "halted",
    /// A halted rollout or rollback goes on.
    Resumed = "resumed",
    /// A rollback came into force.
    RolledBack = "rolled-back",
    /// A service takes no new release for now.
    Locked = "locked",
    /// A service takes new releases again.
    Unlocked = "unlocked",
    /// The next phase of a rollout began.
    PhaseBegan = "phase-began",
    /// A deploy reached its target.
    Switched = "switched",
    /// A release that has reached its target costs members remarkably more than the one before it.
    CostsMore = "costs-more",
    /// No old generation is left.
    Drained = "drained",
    /// Only members are left that refuse the release or cannot get it.
    Incomplete = "incomplete",
    /// So many members are silent that nothing is decided.
    Frozen = "frozen",
    /// Enough members are back for decisions.
    Thawed = "thawed",
    /// A server took over the service.
    TookOver = "took-over",
    /// A member was heard for the first time.
    Joined = "joined",
    /// A member said goodbye.
    Left = "left",
    /// A member was not heard within its lease.
    Silent = "silent",
    /// A silent member was heard again.
    Returned = "returned",
    /// A member was silent for so long that it counts as gone.
    Gone = "gone",
    /// A member was given a slot.
    Granted = "granted",
    /// A candidate took over the traffic of its member.
    HandedOver = "handed-over",
    /// A release was healthy on a member for the whole bake.
    Proven = "proven",
    /// A member kept or took back the old release, or could not get the new one.
    Refused = "refused",
    /// A member went back to the generation that stood by.
    HandedBack = "handed-back",
    /// A release crashed or lost its health on a member after it was proven there.
    Relapsed = "relapsed",
    /// A member obeys a deploy that this server does not know as the one in force.
    Contradicted = "contradicted",
    /// The state store had lost what it had accepted, and a server has written it back.
    StoreRestored = "store-restored",
    /// The state store has lost a deploy, and another one has taken its place.
    DeployLost = "deploy-lost",
}

impl What {
    /// What this code stands for.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|what| what.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_can_happen_has_a_code_of_its_own() {
        for &what in What::ALL {
            assert_eq!(What::from_code(what.code()), Some(what));
        }
        assert_eq!(What::from_code("sunspots"), None);
    }
}
