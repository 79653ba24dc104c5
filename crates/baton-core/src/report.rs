//! What a member says of itself over its session.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::costs::Costs;
use crate::ids::{DeployId, Epoch, MemberId, ReleaseId};
use crate::target::Label;
use crate::units::Bytes;

/// One report. Each tells everything, so that a lost one does not matter once the next has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who says so.
    pub member: MemberId,
    /// Its place among the member's reports.
    pub stamp: Stamp,
    /// The newest deploy that the member has heard of and keeps on its disk.
    pub seen: Option<Seen>,
    /// What it would start again by itself: the last release that baked here, and the epoch it came with.
    pub committed: Option<(ReleaseId, Epoch)>,
    /// The release that serves, as verified by the bootloader; none when nothing serves or when what serves
    /// is not a release (the image's own program).
    pub running: Option<ReleaseId>,
    /// Whether what serves is healthy now.
    pub healthy: bool,
    /// How far the member is with the deploy it has seen.
    pub standing: Standing,
    /// What is on its way to the member's disk, if anything is.
    pub fetching: Option<Fetching>,
    /// How often it has started the release of the deploy it has seen.
    pub attempts: u32,
    /// How often that release crashed or lost its health here after it was proven, since the deploy was seen.
    pub relapses: u32,
    /// A live generation that it can hand back to at once.
    pub standby: Option<ReleaseId>,
    /// Whether no old generation is left.
    pub drained: bool,
    /// Connections that the candidate accepted during its bake.
    pub bake_connections: u64,
    /// What the release of the deploy it has seen costs here.
    pub costs: Costs,
    /// What it was told of itself, to be chosen by: sorted, each once.
    pub labels: Vec<Label>,
}

impl Report {
    /// That of a healthy member with nothing else to tell.
    pub fn plain(member: MemberId, stamp: Stamp, standing: Standing) -> Self {
        Self {
            member,
            stamp,
            seen: None,
            committed: None,
            running: None,
            healthy: true,
            standing,
            fetching: None,
            attempts: 0,
            relapses: 0,
            standby: None,
            drained: true,
            bake_connections: 0,
            costs: Costs::default(),
            labels: Vec::new(),
        }
    }
}

/// The place of a report among those of its member; a greater one is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    /// Greater with every start of the bootloader; the time of the start will do.
    pub life: u64,
    /// Counts the reports of that life.
    pub sequence: u64,
}

/// Which deploy a member has heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its id: two deploys with one epoch are a mistake that must not go unnoticed.
    pub deploy: DeployId,
}

/// How much of a release has come to a member, of what it does not have on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fetching {
    /// What has come, as files have it.
    pub fetched: Bytes,
    /// All that is to come.
    pub total: Bytes,
}

/// How far a member is with a deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It runs something else and does not have the release yet.
    Behind,
    /// It runs something else; the release is on its disk, verified.
    Staged,
    /// It has a slot.
    Granted,
    /// Its candidate starts or is being probed.
    Trying,
    /// The candidate serves and bakes.
    Proving,
    /// The release was healthy for the whole bake.
    Proven,
    /// It kept or took back the old release, or could not get the new one. It tries again every minute.
    Refused(Refusal),
}

impl Standing {
    /// Whether the member tries a release that is not proven on it.
    pub const fn on_trial(&self) -> bool {
        match self {
            Self::Granted | Self::Trying | Self::Proving => true,
            Self::Behind | Self::Staged | Self::Proven | Self::Refused(_) => false,
        }
    }

    /// One word for tables.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Staged => "staged",
            Self::Granted => "granted",
            Self::Trying => "trying",
            Self::Proving => "proving",
            Self::Proven => "proven",
            Self::Refused(_) => "refused",
        }
    }
}

/// Why a member does not run the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason for machines.
    pub cause: Cause,
    /// The reason for people: the exit cause and the last lines of output, shortened.
    pub detail: String,
}

/// The machine-readable reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The release could not be fetched.
    Fetch,
    /// What was fetched is not what the release says.
    Verify,
    /// Too few keys that the member trusts have signed the deploy, or the release.
    Untrusted,
    /// The disk is full, read-only or broken.
    Disk,
    /// Two generations do not fit into the member's memory.
    NoRoom,
    /// A secret that the program is to be given is not to be had.
    Secrets,
    /// The program could not be launched.
    Launch,
    /// The candidate ended by itself.
    Exit,
    /// The candidate was not ready within its start-up time.
    Startup,
    /// The candidate failed its probes or lost its health during the bake.
    Unhealthy,
    /// The candidate was killed for memory.
    Memory,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 11] = [
        Self::Fetch,
        Self::Verify,
        Self::Untrusted,
        Self::Disk,
        Self::NoRoom,
        Self::Secrets,
        Self::Launch,
        Self::Exit,
        Self::Startup,
        Self::Unhealthy,
        Self::Memory,
    ];

    /// A stable word for records, the API and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Verify => "verify",
            Self::Untrusted => "untrusted",
            Self::Disk => "disk",
            Self::NoRoom => "no-room",
            Self::Secrets => "secrets",
            Self::Launch => "launch",
            Self::Exit => "exit",
            Self::Startup => "startup",
            Self::Unhealthy => "unhealthy",
            Self::Memory => "memory",
        }
    }

    /// The cause with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fetch => "the release could not be fetched",
            Self::Verify => "the release did not verify",
            Self::Untrusted => "it is not signed as this member wants it",
            Self::Disk => "the disk refused the release",
            Self::NoRoom => "there is no memory for two generations",
            Self::Secrets => "a secret is not to be had",
            Self::Launch => "the program could not be launched",
            Self::Exit => "the candidate ended",
            Self::Startup => "the candidate was not ready in time",
            Self::Unhealthy => "the candidate was not healthy",
            Self::Memory => "the candidate was killed for memory",
        })
    }
}

impl Refusal {
    /// The cause and all of the detail.
    pub fn text(&self) -> String {
        if self.detail.is_empty() {
            self.cause.to_string()
        } else {
            format!("{}: {}", self.cause, self.detail)
        }
    }
}

impl fmt::Display for Refusal {
    /// The cause, then the first line of the detail.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.lines().next() {
            Some(line) => write!(f, "{}: {line}", self.cause),
            None => self.cause.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p46_every_cause_has_a_code_of_its_own() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_code(cause.code()), Some(cause));
        }
        assert_eq!(Cause::from_code("sunspots"), None);
    }

    #[test]
    fn a_later_life_is_newer_than_any_report_before_it() {
        assert!(Stamp { life: 2, sequence: 0 } > Stamp { life: 1, sequence: 99 });
    }
}
