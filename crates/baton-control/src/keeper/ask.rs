//! What the keeper is asked and told, and what it answers.

use baton_core::event::Event;
use baton_core::fleet::Fleet;
use baton_core::history::{Lock, Proposal, Tag, TagName};
use baton_core::ids::{DeployId, MemberId, ServiceName};
use baton_core::metric::Sample;
use baton_core::units::Millis;
use baton_store::state::{Accepted, News};
use baton_wire::session::Hello;
use tokio::sync::oneshot;

use crate::api::Refusal;
use crate::outgoing::Outgoing;

/// What comes of a proposal.
pub(crate) type Answer = Result<Accepted, Refusal>;

/// Chooses members of a fleet at a moment. The last one says of a member whether it was heard and that is not in the fleet yet.
pub(crate) type Choose =
    Box<dyn FnOnce(&Fleet, Millis, &dyn Fn(&MemberId) -> bool) -> Result<Vec<MemberId>, Refusal> + Send>;

/// What the keeper is asked or told.
#[expect(
    clippy::large_enum_variant,
    reason = "it waits in a queue of a few, is moved a few times, and is kept nowhere"
)]
pub(crate) enum Ask {
    /// A member has connected.
    Hello {
        /// Who it is.
        hello: Hello,
        /// Where it is told things.
        out: Outgoing,
    },
    /// A member says something.
    News {
        /// Its service.
        service: ServiceName,
        /// What.
        news: News,
    },
    /// An operator wants something.
    Propose {
        /// For which service.
        service: ServiceName,
        /// What.
        proposal: Proposal,
        /// How many turns to prune had begun when it was found that its release is there; none where it names none.
        begun: Option<u64>,
        /// Told once it is durable and on the board.
        reply: oneshot::Sender<Answer>,
    },
    /// An operator locks a service, or unlocks it with none.
    Lock {
        /// Which.
        service: ServiceName,
        /// Why, and who does it.
        lock: Option<Lock>,
        /// Told once it is durable and on the board.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// An operator gives a release a name, or takes the name away with none.
    Tag {
        /// Of which service.
        service: ServiceName,
        /// Which name.
        name: TagName,
        /// Which release, and who does it.
        tag: Option<Tag>,
        /// Told once it is durable and on the board.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// An operator lets members go that will not come back.
    Forget {
        /// Of which service.
        service: ServiceName,
        /// Who, of those that are known at that moment.
        choose: Choose,
        /// Told who has gone, once that is on the board.
        reply: oneshot::Sender<Result<Vec<MemberId>, Refusal>>,
    },
    /// What was answered to a query of a metric.
    Measured {
        /// For which service.
        service: ServiceName,
        /// For which deploy.
        deploy: DeployId,
        /// What.
        sample: Sample,
    },
    /// Something happened elsewhere in the server.
    Note(Event),
    /// Another server may have changed something.
    LookAgain,
    /// The server ends.
    Stop,
}

impl Ask {
    /// Whether a member says it.
    pub(super) const fn is_of_member(&self) -> bool {
        match self {
            Self::Hello { .. } | Self::News { .. } => true,
            Self::Propose { .. }
            | Self::Lock { .. }
            | Self::Tag { .. }
            | Self::Forget { .. }
            | Self::Measured { .. }
            | Self::Note(_)
            | Self::LookAgain
            | Self::Stop => false,
        }
    }
}
