//! Who keeps a deploy from its end, by name.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::fleet::Presence;
use crate::ids::MemberId;
use crate::rollout::Rollout;
use crate::turn::{Turn, Why};
use crate::verdict::{Verdict, verdict};

/// What keeps a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lag {
    /// It does not run the release, or that is not known.
    Waits(Why),
    /// It runs the release, and an old generation is left.
    Drains,
}

impl Lag {
    /// A stable word for the API.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Waits(why) => why.code(),
            Self::Drains => "drains",
        }
    }

    /// A sentence that stays the same while nothing changes.
    pub fn text(&self) -> String {
        match self {
            Self::Waits(Why::Silent { .. }) => "it is silent".into(),
            Self::Waits(why) => why.to_string(),
            Self::Drains => "an old generation is left there".into(),
        }
    }
}

/// The members that a deploy still waits for once nobody else is to get a slot, in the order of their names. Before
/// that nobody lags: all wait for their turn.
pub fn laggards<'a>(rollout: &Rollout<'a>) -> Vec<(&'a MemberId, Lag)> {
    let ends = rollout.switched()
        || rollout.wanted() == 0
        || matches!(verdict(rollout), Verdict::Incomplete | Verdict::Done { .. });
    // Where members obey a later deploy, this one has no end that anybody could wait for.
    if !ends || rollout.is_outranked() {
        return Vec::new();
    }
    let lag = |id: &MemberId| match rollout.turn(id) {
        Turn::Wait(why) => match why {
            Why::OnTrial { .. }
            | Why::NeedsTraffic { .. }
            | Why::Refused(_)
            | Why::CannotStage(_)
            | Why::NotStaged { .. }
            | Why::Starting
            | Why::Unheard
            | Why::Ahead { .. }
            | Why::Silent { .. } => Some(Lag::Waits(why)),
            Why::AlreadyThere
            | Why::Gone
            | Why::TargetReached { .. }
            | Why::NotMeant { .. }
            | Why::SlotsTaken { .. }
            | Why::Limited(_)
            | Why::Halted { .. }
            | Why::Failing(_)
            | Why::Frozen { .. }
            | Why::Listening { .. }
            | Why::Outranked { .. } => None,
        },
        Turn::Go => None,
    };
    let of = |(id, member): (&'a MemberId, &crate::fleet::Member)| {
        let live = member.presence(rollout.now()) == Presence::Live;
        let drains = live && member.report().is_some_and(|report| !report.drained);
        lag(id).or_else(|| drains.then_some(Lag::Drains)).map(|lag| (id, lag))
    };
    rollout.fleet().members().filter_map(of).collect()
}
