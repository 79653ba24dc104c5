//! Scripts: rollouts as people write them down, to be simulated and read.
//!
//! A script sets up a fleet, says what happens when, and shows how it stands. Played, it gives its own text back with what
//! came out below each line, behind a bar; such lines are skipped when it is read, so that what was played can be played
//! again. What a seed draws is a script too, which is how a failing one is made small.

mod parse;
mod text;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::network::Network;
use super::release::{Flaws, Program, RELEASES, Release};
use crate::deploy::Policy;
use crate::target::{Amount, Label};
use crate::units::{Millis, Share};

pub use parse::ScriptError;

/// What stands before a line that tells what came out.
pub(super) const TOLD: &str = "|";
/// Most servers of a script.
pub(super) const SERVERS_MAX: usize = 5;

/// A script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub(super) setup: Setup,
    pub(super) lines: Vec<Line>,
}

/// One line of a script: as it was written, and what it makes happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    pub step: Option<Step>,
}

/// What there is before anything happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    pub seed: u64,
    pub members: u32,
    pub servers: usize,
    pub network: Network,
    /// Who has a label.
    pub labels: Vec<(Label, Amount)>,
    pub program: Program,
    /// Whether a candidate runs beside the old generation.
    pub overlap: bool,
}

impl Setup {
    /// So many members, and nothing special.
    pub(super) const fn of(members: u32) -> Self {
        Self {
            seed: 1,
            members,
            servers: 1,
            network: Network::Good,
            labels: Vec::new(),
            program: Program::QUICK,
            overlap: true,
        }
    }
}

/// What happens, is waited for, or is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// What is deployed from now on goes like this.
    Policy(NamedPolicy),
    /// Something is wrong with a release.
    Flaw(Release, Flaw),
    /// A release never starts on these members.
    Refuse(Release, Amount),
    /// A release cannot be fetched by these members.
    Unfetchable(Release, Amount),
    Deploy {
        release: Release,
        again: bool,
    },
    Halt,
    Resume,
    Abort,
    RollBack(Option<Release>),
    Lock(String),
    Unlock,
    Join(u32),
    /// Members leave, with a word or without.
    Leave {
        members: Amount,
        goodbye: bool,
    },
    /// Bootloaders are started anew.
    Restart(Amount),
    /// Members and servers do not hear each other any more.
    Cut(Cut),
    /// A server does not reach the store any more.
    Isolate(usize),
    /// Everybody hears everybody again.
    Heal,
    Server {
        number: usize,
        up: bool,
    },
    Store(StoreFault),
    Run(Until),
    Show(What),
}

/// Who does not hear whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub members: Amount,
    /// The one server, counted from 0; else all.
    pub server: Option<usize>,
    pub way: Way,
}

/// Which way messages are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Both,
    /// Members do not hear.
    Deaf,
    /// Members are not heard.
    Mute,
}

/// What happens to the store that servers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreFault {
    Dies,
    Starts,
    /// Another process takes over that has not got the newest writes, so many.
    Loses(u32),
    /// It comes back with nothing.
    Empties,
}

/// What is wrong with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    Crashes(Share),
    CrashesAfter(Millis),
    Slower(u32),
    Larger(u32),
}

impl Flaw {
    pub(super) const fn add_to(self, flaws: &mut Flaws) {
        match self {
            Self::Crashes(share) => flaws.crashes = share,
            Self::CrashesAfter(after) => flaws.crashes_after = Some(after),
            Self::Slower(percent) => flaws.slower = percent,
            Self::Larger(percent) => flaws.larger = percent,
        }
    }

    /// One for each thing that is wrong.
    pub(super) fn all_of(flaws: &Flaws) -> impl Iterator<Item = Self> + use<> {
        let Flaws { crashes, crashes_after, slower, larger } = *flaws;
        let crashes = (crashes > Share::NONE).then_some(Self::Crashes(crashes));
        let slower = (slower > 0).then_some(Self::Slower(slower));
        let larger = (larger > 0).then_some(Self::Larger(larger));
        [crashes, crashes_after.map(Self::CrashesAfter), slower, larger].into_iter().flatten()
    }
}

/// How long to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// For this time.
    After(Millis),
    /// Until what is under way has come to its end, or nothing happens any more.
    Quiet,
    /// Until so many members have proven what is in force.
    Proven(u32),
}

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Fleet,
    Members,
    Deploys,
}

/// A policy, and which one of those with names it is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedPolicy {
    pub name: &'static str,
    pub policy: Policy,
}

impl NamedPolicy {
    /// The policy with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "safe" => Some(Self { name: "safe", policy: Policy::safe() }),
            "fast" => Some(Self { name: "fast", policy: Policy::fast() }),
            "careful" => Some(Self { name: "careful", policy: Policy::careful() }),
            _ => None,
        }
    }

    /// A policy, told by what sets it off from the one with this name, or else from `safe`.
    pub(super) fn like(name: &str, policy: Policy) -> Self {
        let name = Self::named(name).map_or("safe", |named| named.name);
        Self { name, policy }
    }
}

impl Script {
    /// A script that was not written by anybody.
    pub(super) fn new(setup: Setup, steps: impl IntoIterator<Item = Step>) -> Self {
        let settings = setup.lines().into_iter().map(|text| Line { text, step: None });
        let steps = steps.into_iter().map(|step| Line { text: format!("{step}"), step: Some(step) });
        let lines = settings.chain(steps).collect();
        Self { setup, lines }
    }

    /// What happens, in order.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.lines.iter().filter_map(|line| line.step.as_ref())
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{}", line.text))
    }
}

/// Nothing is wrong with any release.
pub(super) const NO_FLAWS: [Flaws; RELEASES] = [Flaws::NONE; RELEASES];
