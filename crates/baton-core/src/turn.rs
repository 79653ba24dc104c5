//! Whose turn it is, and if not, why not: in data, so that every view can explain it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::fleet::LEASE;
use crate::ids::{DeployId, Epoch, MemberId};
use crate::limits::Limit;
use crate::report::Refusal;
use crate::target::{Label, Target};
use crate::units::Millis;
use crate::verdict::Rule;

/// Whether a member may try the new release now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// It gets a slot.
    Go,
    /// It waits.
    Wait(Why),
}

/// Why a member waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It has proven the release.
    AlreadyThere,
    /// It has a slot and is using it.
    OnTrial {
        /// The word of its standing.
        standing: &'static str,
    },
    /// It bakes, and needs more connections than it has accepted.
    NeedsTraffic {
        /// How many it has accepted, as it has told.
        accepted: u64,
        /// How many it needs.
        wanted: u32,
    },
    /// It had its turn and kept or took back the old release.
    Refused(Refusal),
    /// It could not get the release.
    CannotStage(Refusal),
    /// It does not have the release on its disk yet.
    NotStaged {
        /// Whether it has heard of the deploy.
        aware: bool,
        /// Whether anything of it is on its way there: what lies on its disk is looked through first.
        fetches: bool,
    },
    /// It has proven the release before, and does not run it healthily now.
    Starting,
    /// This server, which has started since, knows of it from its state store only.
    Unheard,
    /// It cannot be heard.
    Silent {
        /// For how long.
        quiet: Millis,
    },
    /// It is gone, or was never there.
    Gone,
    /// As many members as shall have the release have it or are trying it.
    TargetReached {
        /// Who shall have it.
        target: Target,
    },
    /// The deploy is for members with a label that it does not have.
    NotMeant {
        /// The label.
        label: Label,
    },
    /// All slots are taken.
    SlotsTaken {
        /// How many slots there are.
        slots: u32,
        /// How many members take one.
        taken: u32,
        /// The first few of them.
        by: Vec<MemberId>,
        /// How many of them cannot be heard, and take one only until they are gone.
        silent: u32,
    },
    /// A limit of the rollout leaves no room for another try.
    Limited(Limit),
    /// The rollout is halted.
    Halted {
        /// The deploy that halted it.
        by: DeployId,
        /// Why it did.
        because: String,
    },
    /// The rollout has failed and is about to be stopped.
    Failing(Rule),
    /// Too many members are silent to decide anything.
    Frozen {
        /// How many are silent.
        silent: u32,
        /// Of how many.
        of: u32,
    },
    /// Control does not know the fleet yet.
    Listening {
        /// How many known members have not reported.
        unheard: u32,
        /// It runs for a while: the state store was away, or may have lost something. If not, it has just started.
        anew: bool,
    },
    /// It obeys a newer deploy than the one in force here, and most of the others do not.
    Ahead {
        /// The epoch that it obeys.
        epoch: Epoch,
    },
    /// Most members obey a newer deploy than the one in force here: this server is behind.
    Outranked {
        /// The epoch that they obey.
        epoch: Epoch,
    },
}

impl Why {
    /// A stable word for records, the API and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AlreadyThere => "already-there",
            Self::OnTrial { .. } => "on-trial",
            Self::NeedsTraffic { .. } => "needs-traffic",
            Self::Refused(_) => "refused",
            Self::CannotStage(_) => "cannot-stage",
            Self::NotStaged { .. } => "not-staged",
            Self::Starting => "starting",
            Self::Unheard => "unheard",
            Self::Silent { .. } => "silent",
            Self::Gone => "gone",
            Self::TargetReached { .. } => "target-reached",
            Self::NotMeant { .. } => "not-meant",
            Self::SlotsTaken { .. } => "slots-taken",
            Self::Limited(_) => "limited",
            Self::Halted { .. } => "halted",
            Self::Failing(_) => "failing",
            Self::Frozen { .. } => "frozen",
            Self::Listening { .. } => "listening",
            Self::Ahead { .. } => "ahead",
            Self::Outranked { .. } => "outranked",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyThere => f.write_str("it runs the release, proven"),
            Self::OnTrial { standing: "staged" | "behind" } => {
                f.write_str("it has a slot, and has not begun")
            }
            Self::OnTrial { standing } => write!(f, "it is on trial ({standing})"),
            Self::NeedsTraffic { accepted, wanted } => {
                write!(f, "it is on trial (proving), and has accepted {accepted} of {wanted} connections")
            }
            Self::Refused(refusal) => {
                write!(f, "it refused the release: {refusal}; it tries again every minute")
            }
            Self::CannotStage(refusal) => write!(f, "{refusal}; it tries again every minute"),
            Self::NotStaged { aware: true, fetches: true } => f.write_str("it is still fetching the release"),
            Self::NotStaged { aware: true, fetches: false } => {
                f.write_str("it looks through what it has of the release")
            }
            Self::NotStaged { aware: false, .. } => f.write_str("it has not heard of the deploy yet"),
            Self::Starting => f.write_str("it has the release, and is not healthy on it yet"),
            Self::Unheard => f.write_str("it was not heard of since this server started"),
            Self::Silent { quiet } => write!(f, "it has been silent for {quiet}"),
            Self::Gone => f.write_str("it is gone"),
            Self::TargetReached { target } => write!(f, "the target of {target} is reached or being tried"),
            Self::NotMeant { label } => write!(f, "the deploy is for members labelled {label}"),
            Self::SlotsTaken { slots, taken, by, silent } => {
                write!(
                    f,
                    "{taken} of {slots} {} taken by ",
                    if *slots == 1 { "slot is" } else { "slots are" }
                )?;
                write_names(f, by, *taken)?;
                match silent {
                    0 => Ok(()),
                    silent => write!(
                        f,
                        "; {silent} of them cannot be heard: if {} will not come back, `baton members forget --silent`",
                        if *silent == 1 { "it" } else { "they" }
                    ),
                }
            }
            Self::Limited(limit) => write!(f, "{limit}"),
            Self::Halted { by, because } if because.is_empty() => {
                write!(f, "halted by deploy {}", by.short())
            }
            Self::Halted { by, because } => write!(f, "halted by deploy {}: {because}", by.short()),
            Self::Failing(rule) => write!(f, "it is about to be stopped, because {rule}"),
            Self::Frozen { silent, of } => write!(
                f,
                "frozen: {silent} of {of} members went silent, so nothing is done until they are back; \
                 look at the network and at this server first"
            ),
            Self::Listening { anew: true, .. } => write!(
                f,
                "the state store was away or has lost something: members are listened to for {LEASE} before any gets a slot"
            ),
            Self::Listening { unheard: 0, .. } => {
                f.write_str("this server has just started and listens for members")
            }
            Self::Listening { unheard: 1, .. } => {
                f.write_str("this server has just started and waits for 1 member to report")
            }
            Self::Listening { unheard, .. } => {
                write!(f, "this server has just started and waits for {unheard} members to report")
            }
            Self::Ahead { epoch } => write!(
                f,
                "it obeys epoch {epoch}, which is newer than the deploy in force and which no other member knows: \
                 deploy again, and it follows"
            ),
            Self::Outranked { epoch } => write!(
                f,
                "most members obey epoch {epoch}, which is newer than the deploy in force here: \
                 this server's store is behind, deploy again to go on"
            ),
        }
    }
}

/// `a, b, c and 14 others`.
fn write_names(f: &mut fmt::Formatter<'_>, names: &[MemberId], of: u32) -> fmt::Result {
    for (i, name) in names.iter().enumerate() {
        write!(f, "{}{name}", if i == 0 { "" } else { ", " })?;
    }
    match (of as usize).saturating_sub(names.len()) {
        0 => Ok(()),
        others => write!(f, " and {others} others"),
    }
}
