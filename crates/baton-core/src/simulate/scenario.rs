//! What a simulated rollout has to cope with.

use alloc::format;
use alloc::string::String;
use core::fmt;

use super::prng::Prng;
use super::{End, Outcome};
use crate::deploy::{PhaseSize, Policy};
use crate::limits::{Connections, Limits};
use crate::rollout::slots;
use crate::units::{Millis, Share};

/// A rollout to simulate: over which fleet, how, and what goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// How many members there are at the start.
    pub members: u32,
    /// The name of the policy, for people.
    pub policy_name: &'static str,
    /// How the release is rolled out.
    pub policy: Policy,
    /// What goes wrong, beside lost, late, doubled and reordered messages and a restart of control.
    pub trouble: Trouble,
    /// Whether a candidate runs beside the old generation, which then stands by through the bake.
    pub overlap: bool,
    /// How the release starts and crashes, where somebody asks about one; else it follows from the trouble, and control may
    /// be restarted in the middle.
    pub program: Option<Program>,
}

/// How a program behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// How long a member fetches the release, at the least and at the most.
    pub fetch: (Millis, Millis),
    /// How long a start takes.
    pub start: (Millis, Millis),
    /// How long it takes to launch again what ran before.
    pub relaunch: (Millis, Millis),
    /// How many starts of the new release crash.
    pub start_crashes: Share,
    /// How long after the switch the new release crashes, if it does.
    pub crashes_after: Option<Millis>,
}

impl Program {
    /// One that does what this trouble says.
    pub(super) fn of(trouble: Trouble) -> Self {
        Self {
            fetch: (Millis(50), Millis::from_secs(3)),
            start: (Millis(300), Millis::from_secs(3)),
            relaunch: (Millis(300), Millis::from_secs(2)),
            start_crashes: trouble.start_crashes(),
            crashes_after: trouble.crashes_after(),
        }
    }

    /// One whose starts take about so long, a fifth more or less, and fetches at most so long.
    pub fn starting_in(start: Millis, fetch: Millis) -> Self {
        let about = (Millis(start.0 - start.0 / 5), Millis(start.0.saturating_add(start.0 / 5)));
        Self {
            fetch: (Millis::ZERO, fetch),
            start: about,
            relaunch: about,
            start_crashes: Share::NONE,
            crashes_after: None,
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// One start in a hundred crashes.
    FlakyStart,
    /// Every start crashes.
    CrashAtStart,
    /// Every generation of the release crashes half a minute after it was switched to.
    CrashAfterHalfAMinute,
    /// Members join and leave all the time, some without goodbye.
    JoinsAndLeaves,
    /// One member in a hundred never gets the release to run, and some cannot even fetch it.
    RefusedMembers,
    /// More than half of the fleet cannot be heard for a while.
    MassSilence,
    /// A person halts the rollout, and resumes it later.
    HaltAndResume,
    /// A person deploys something else in the middle.
    Superseded,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::FlakyStart,
        Self::CrashAtStart,
        Self::CrashAfterHalfAMinute,
        Self::JoinsAndLeaves,
        Self::RefusedMembers,
        Self::MassSilence,
        Self::HaltAndResume,
        Self::Superseded,
    ];

    const fn start_crashes(self) -> Share {
        match self {
            Self::CrashAtStart => Share::ALL,
            Self::FlakyStart => Share::from_percent(1),
            Self::None
            | Self::CrashAfterHalfAMinute
            | Self::JoinsAndLeaves
            | Self::RefusedMembers
            | Self::MassSilence
            | Self::HaltAndResume
            | Self::Superseded => Share::NONE,
        }
    }

    /// How long after the switch the release crashes, if it does.
    fn crashes_after(self) -> Option<Millis> {
        (self == Self::CrashAfterHalfAMinute).then_some(Millis::from_secs(30))
    }
}

/// Fleet sizes at which rounding matters.
pub const SMALL_FLEETS: [u32; 6] = [1, 2, 3, 5, 8, 10];

/// One of three rollouts has a limit that is a number. It leaves a fortieth of the fleet a turn at the least, and one member,
/// or a rollout would take days.
fn limits(prng: &mut Prng, members: u32, overlap: bool) -> Limits {
    let more = (members / 40).max(1) + prng.below(u64::from(members / 4 + 1)) as u32;
    let limits = Limits::default();
    match prng.below(12) {
        0 => Limits { never_more_than: Some(members + more), ..limits },
        1 => {
            Limits { connections: Some(Connections { budget: (members + more) * 7 + 6, each: 7 }), ..limits }
        }
        2 => Limits { min_available: Some(members - more.min(members)), ..limits },
        3 => Limits { singleton: !overlap && members <= 40, ..limits },
        _ => limits,
    }
}

impl Scenario {
    /// The scenario of a seed for a fleet of this size. Neighbouring seeds differ in everything.
    pub fn drawn(seed: u64, members: u32) -> Self {
        let trouble = Trouble::ALL[(seed % Trouble::ALL.len() as u64) as usize];
        let mut prng = Prng::new(seed ^ 0x5ce9_a210);
        let (policy_name, policy) = match prng.below(8) {
            0 => ("careful", Policy::careful()),
            1 | 2 => ("fast", Policy::fast()),
            _ => ("safe", Policy::safe()),
        };
        let overlap = prng.below(4) > 0;
        let policy = Policy { limits: limits(&mut prng, members, overlap), ..policy };
        Self { members, policy_name, policy, trouble, overlap, program: None }.with(trouble)
    }

    /// The same with this trouble. While members come and go, nobody could keep to limits that are numbers.
    #[must_use]
    pub fn with(mut self, trouble: Trouble) -> Self {
        if trouble == Trouble::JoinsAndLeaves {
            self.policy.limits = Limits::default();
        }
        Self { trouble, ..self }
    }

    /// Whether a limit leaves so little room that single members stop a rollout.
    fn is_limited(&self) -> bool {
        self.policy.limits != Limits::default()
    }

    /// How many members may be on trial at once in a rollout, at the most.
    pub(super) fn slots_max(&self) -> u32 {
        let Policy { max_unhealthy, limits, .. } = &self.policy;
        let by_size = slots(PhaseSize::Share(Share::ALL), *max_unhealthy, self.members);
        let by_least = limits.min_available.map_or(u32::MAX, |least| self.members.saturating_sub(least));
        let alone = if limits.singleton { 1 } else { u32::MAX };
        by_size.min(by_least).min(alone)
    }

    /// How many members may try at once before any has proven the release.
    pub fn first_slots(&self) -> u32 {
        let first = self.policy.phases.first().map_or(PhaseSize::One, |phase| phase.size);
        slots(first, self.policy.max_unhealthy, self.members).min(self.slots_max())
    }

    /// Whether the rollout may end like that. The invariants hold in any case; this is about the goal.
    ///
    /// # Errors
    /// Says what should have come out.
    pub fn check(&self, outcome: &Outcome) -> Result<(), String> {
        let big = self.members >= 1000;
        let ends: &[End] = match self.trouble {
            Trouble::None | Trouble::HaltAndResume | Trouble::Superseded => &[End::Switched],
            // Two failed starts in a row on one of a handful of members are a failing release.
            Trouble::FlakyStart if big && !self.is_limited() => &[End::Switched],
            Trouble::FlakyStart => &[End::Switched, End::RolledBack],
            Trouble::CrashAtStart => &[End::RolledBack],
            // What is through before the first crash shows is through.
            Trouble::CrashAfterHalfAMinute if big && self.policy_name != "fast" => &[End::RolledBack],
            Trouble::CrashAfterHalfAMinute => &[End::Switched, End::RolledBack],
            // Who leaves or falls silent in the middle of a try may have been killed by it.
            Trouble::JoinsAndLeaves | Trouble::MassSilence => &[End::Switched, End::RolledBack],
            Trouble::RefusedMembers => &[End::Switched, End::Incomplete, End::RolledBack],
        };
        if !ends.contains(&outcome.end) {
            return Err(format!("it ended {:?}, not {ends:?}", outcome.end));
        }
        if self.trouble == Trouble::CrashAtStart && outcome.touched > self.first_slots() {
            return Err(format!("it touched {} members, not {}", outcome.touched, self.first_slots()));
        }
        Ok(())
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let overlap = if self.overlap { "side by side" } else { "one after the other" };
        write!(f, "{:?}, {} members, {}, {overlap}", self.trouble, self.members, self.policy_name)
    }
}
