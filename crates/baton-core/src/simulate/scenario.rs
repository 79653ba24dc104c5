//! What a simulated rollout has to cope with.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::network::Network;
use super::prng::Prng;
use super::release::{Flaws, Program, Release};
use super::script::{Cut, Flaw, NamedPolicy, Script, Setup, Step, StoreFault, Until, Way};
use super::{End, Outcome};
use crate::costs::Cost;
use crate::deploy::{PhaseSize, Policy};
use crate::fleet::LEASE;
use crate::limits::{Connections, Limits};
use crate::rollout::slots;
use crate::target::{Amount, Label, Target};
use crate::units::{Millis, Share};

/// A rollout to simulate: over which fleet, how, and what goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// How many members there are at the start.
    pub members: u32,
    /// The name of the policy, for people.
    pub policy_name: String,
    /// How the release is rolled out.
    pub policy: Policy,
    /// What goes wrong, beside lost, late, doubled and reordered messages and a restart of control.
    pub trouble: Trouble,
    /// Whether a candidate runs beside the old generation, which then stands by through the bake.
    pub overlap: bool,
    /// How the program behaves.
    pub program: Program,
    /// What is wrong with the release.
    pub flaws: Flaws,
    /// Whether control may be restarted in the middle.
    pub restarts: bool,
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
    /// A person rolls back: in the middle, or what is everywhere; now and then twice.
    TakenBack,
    /// A person aborts it, and now and then deploys it again.
    Aborted,
    /// A person locks the service, which refuses what somebody deploys, until it is unlocked or taken back.
    Locked,
    /// It is for a part of the fleet: a share, a number, or who has a label.
    PartOfTheFleet,
    /// The release costs more than the one before it, and gates are set.
    Costly,
    /// The fleet is made several times larger and a fraction of itself, at once, by a platform that asks members to stop.
    Scaled,
    /// Several servers share a store, and some of them end and start.
    ServersRestart,
    /// Several servers share a store, and it ends, loses its newest writes, or all of them.
    StoreForgets,
    /// Several servers share a store, and members or servers are cut off from others, both ways or one.
    Partitions,
}

impl Trouble {
    /// Those of one server.
    const ALONE: [Self; 15] = [
        Self::None,
        Self::FlakyStart,
        Self::CrashAtStart,
        Self::CrashAfterHalfAMinute,
        Self::JoinsAndLeaves,
        Self::RefusedMembers,
        Self::MassSilence,
        Self::HaltAndResume,
        Self::Superseded,
        Self::TakenBack,
        Self::Aborted,
        Self::Locked,
        Self::PartOfTheFleet,
        Self::Costly,
        Self::Scaled,
    ];

    /// The trouble of a seed. One in eight is of several servers: those take about as long to simulate as all the others.
    const fn drawn(seed: u64) -> Self {
        match (seed % SEEDS) as usize {
            21 => Self::ServersRestart,
            22 => Self::StoreForgets,
            23 => Self::Partitions,
            alone => Self::ALONE[alone % Self::ALONE.len()],
        }
    }

    const fn flaws(self) -> Flaws {
        match self {
            Self::CrashAtStart => Flaws { crashes: Share::ALL, ..Flaws::NONE },
            Self::FlakyStart => Flaws { crashes: Share::from_percent(1), ..Flaws::NONE },
            Self::CrashAfterHalfAMinute => {
                Flaws { crashes_after: Some(Millis::from_secs(30)), ..Flaws::NONE }
            }
            Self::Costly => Flaws { larger: 60, ..Flaws::NONE },
            Self::None
            | Self::JoinsAndLeaves
            | Self::RefusedMembers
            | Self::MassSilence
            | Self::HaltAndResume
            | Self::Superseded
            | Self::TakenBack
            | Self::Aborted
            | Self::Locked
            | Self::PartOfTheFleet
            | Self::Scaled
            | Self::ServersRestart
            | Self::StoreForgets
            | Self::Partitions => Flaws::NONE,
        }
    }

    /// Whether it takes several servers.
    const fn is_of_servers(self) -> bool {
        matches!(self, Self::ServersRestart | Self::StoreForgets | Self::Partitions)
    }

    /// Whether members come and go, so that nobody could keep to limits that are numbers.
    const fn moves_members(self) -> bool {
        matches!(self, Self::JoinsAndLeaves | Self::Scaled)
    }
}

/// So many neighbouring seeds have every trouble.
pub const SEEDS: u64 = 24;

/// Fleet sizes at which rounding matters.
pub const SMALL_FLEETS: [u32; 6] = [1, 2, 3, 5, 8, 10];

/// What sets the chances of a scenario off from those of its course.
const SCENARIO: u64 = 0x5ce9_a210;
const PLAN: u64 = 0x91a4_0c3f;

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
        let trouble = Trouble::drawn(seed);
        let mut prng = Prng::new(seed ^ SCENARIO);
        let (policy_name, policy) = match prng.below(8) {
            0 => ("careful", Policy::careful()),
            1 | 2 => ("fast", Policy::fast()),
            _ => ("safe", Policy::safe()),
        };
        let overlap = prng.below(4) > 0;
        let policy = Policy { limits: limits(&mut prng, members, overlap), ..policy };
        let scenario = Self {
            members,
            policy_name: policy_name.into(),
            policy,
            trouble,
            overlap,
            program: Program::QUICK,
            flaws: Flaws::NONE,
            restarts: true,
        };
        scenario.with(trouble)
    }

    /// The same with this trouble. While members come and go, nobody could keep to limits that are numbers.
    #[must_use]
    pub fn with(mut self, trouble: Trouble) -> Self {
        if trouble.moves_members() {
            self.policy.limits = Limits::default();
        }
        self.policy.gates.clear();
        if trouble == Trouble::Costly {
            self.policy.gates.push(Cost::Memory);
        }
        Self { trouble, flaws: trouble.flaws(), ..self }
    }

    /// The part of the fleet that it is for, and who has a label.
    fn draw_part(&self, prng: &mut Prng) -> (Target, Vec<(Label, Amount)>) {
        let share = |prng: &mut Prng| Share::from_percent(1 + prng.below(99) as u32);
        let Ok(label) = "zone=a".parse::<Label>() else { return (Target::ALL, Vec::new()) };
        match prng.below(4) {
            0 => (share(prng).into(), Vec::new()),
            1 => {
                let many = Amount::Members(1 + prng.below(self.members.into()) as u32);
                (Target { amount: many, label: None }, Vec::new())
            }
            2 => {
                let of = Amount::Share(share(prng));
                (Target { label: Some(label.clone()), ..Target::ALL }, alloc::vec![(label, of)])
            }
            _ => {
                let (amount, of) = (Amount::Share(share(prng)), Amount::Share(share(prng)));
                (Target { amount, label: Some(label.clone()) }, alloc::vec![(label, of)])
            }
        }
    }

    /// What happens in it, drawn from a seed.
    pub fn script(&self, seed: u64) -> Script {
        let mut prng = Prng::new(seed ^ PLAN);
        let servers = if self.trouble.is_of_servers() { 2 + prng.below(2) as usize } else { 1 };
        let (members, program, overlap) = (self.members, self.program, self.overlap);
        let network = Network::Bad;
        let (target, labels) = if self.trouble == Trouble::PartOfTheFleet {
            self.draw_part(&mut prng)
        } else {
            (Target::ALL, Vec::new())
        };
        let setup = Setup { seed, members, servers, network, labels, program, overlap };
        let policy = Policy { target, ..self.policy.clone() };
        let mut steps = alloc::vec![Step::Policy(NamedPolicy::like(&self.policy_name, policy))];
        steps.extend(Flaw::all_of(&self.flaws).map(|flaw| Step::Flaw(Release::NEW, flaw)));
        if self.trouble == Trouble::RefusedMembers {
            let rate = Share::from_percent(if members >= 100 { 1 } else { 20 });
            let cursed = (0..members).filter(|_| prng.chance(rate)).count() as u32;
            let unfetchable = prng.below(u64::from(cursed) + 1) as u32;
            let refuse = Step::Refuse(Release::NEW, Amount::Members(cursed - unfetchable));
            let fetch = Step::Unfetchable(Release::NEW, Amount::Members(unfetchable));
            steps.extend((cursed > unfetchable).then_some(refuse));
            steps.extend((unfetchable > 0).then_some(fetch));
        }
        let mut plan = self.plan(&mut prng, servers);
        plan.sort_by_key(|(at, _)| *at);
        let mut now = Millis::ZERO;
        for (at, step) in plan {
            if at > now {
                steps.push(Step::Run(Until::After(at - now)));
                now = at;
            }
            steps.push(step);
        }
        steps.push(Step::Run(Until::Quiet));
        Script::new(setup, steps)
    }

    /// What happens when.
    fn plan(&self, prng: &mut Prng, servers: usize) -> Vec<(Millis, Step)> {
        let deploy = |release| Step::Deploy { release, again: true };
        let mut plan = alloc::vec![(Millis::from_secs(1), deploy(Release::NEW))];
        let at = later(prng, 2, 60);
        match self.trouble {
            Trouble::MassSilence => {
                let many = (self.members * 3).div_ceil(5).max(self.members / 2 + 1);
                let cut = Cut { members: Amount::Members(many), server: None, way: Way::Both };
                plan.push((at, Step::Cut(cut)));
                plan.push((at + later(prng, 20, 150), Step::Heal));
            }
            Trouble::HaltAndResume => {
                plan.push((at, Step::Halt));
                plan.push((at + later(prng, 1, 60), Step::Resume));
            }
            Trouble::Superseded => plan.push((at, deploy(Release::OTHER))),
            Trouble::TakenBack => {
                plan.push((at, Step::RollBack(None)));
                if prng.chance(Share::from_percent(50)) {
                    plan.push((at + later(prng, 0, 60), Step::RollBack(None)));
                }
            }
            Trouble::Aborted => {
                plan.push((at, Step::Abort));
                if prng.chance(Share::from_percent(50)) {
                    plan.push((at + later(prng, 1, 60), deploy(Release::NEW)));
                }
            }
            Trouble::Locked => plan_lock(prng, at, &mut plan),
            Trouble::JoinsAndLeaves => self.plan_joins(prng, &mut plan),
            Trouble::Scaled => self.plan_bursts(prng, &mut plan),
            Trouble::ServersRestart => plan_restarts(prng, servers, &mut plan),
            Trouble::StoreForgets => plan_losses(prng, &mut plan),
            Trouble::Partitions => plan_partitions(prng, servers, &mut plan),
            Trouble::None
            | Trouble::FlakyStart
            | Trouble::CrashAtStart
            | Trouble::CrashAfterHalfAMinute
            | Trouble::PartOfTheFleet
            | Trouble::Costly
            | Trouble::RefusedMembers => {}
        }
        // A goodbye to nobody is no goodbye.
        let restarts = self.restarts && !self.trouble.is_of_servers() && self.trouble != Trouble::Scaled;
        if restarts && prng.chance(Share::from_percent(30)) {
            let at = later(prng, 2, 60);
            plan.push((at, Step::Server { number: 0, up: false }));
            plan.push((at + later(prng, 1, 20), Step::Server { number: 0, up: true }));
        }
        plan
    }

    fn plan_joins(&self, prng: &mut Prng, plan: &mut Vec<(Millis, Step)>) {
        let one = Amount::Members(1);
        for _ in 0..=self.members / 40 {
            plan.push((later(prng, 0, 120), Step::Join(1)));
            let goodbye = prng.chance(Share::from_percent(80));
            plan.push((later(prng, 0, 120), Step::Leave { members: one, goodbye }));
        }
        for _ in 0..self.members / 100 {
            plan.push((later(prng, 0, 120), Step::Restart(one)));
        }
    }

    /// Many come at once, and many are asked to stop.
    fn plan_bursts(&self, prng: &mut Prng, plan: &mut Vec<(Millis, Step)>) {
        for _ in 0..=prng.below(3) {
            let step = if prng.chance(Share::from_percent(50)) {
                Step::Join(1 + prng.below(2 * u64::from(self.members)) as u32)
            } else {
                let members = Amount::Share(Share::from_percent(10 + prng.below(81) as u32));
                Step::Leave { members, goodbye: true }
            };
            plan.push((later(prng, 0, 90), step));
        }
    }

    /// Whether a limit leaves so little room that single members stop a rollout.
    fn is_limited(&self) -> bool {
        self.policy.limits != Limits::default()
    }

    /// How many members may be on trial at once in a rollout, at the most.
    fn slots_max(&self) -> u32 {
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
            Trouble::None | Trouble::HaltAndResume | Trouble::Superseded | Trouble::PartOfTheFleet => {
                &[End::Switched]
            }
            // Whoever is asked to stop has not shown that the release fails. Of a handful it may be the one that tries, each time.
            Trouble::Scaled if self.members >= 100 => &[End::Switched],
            Trouble::Scaled => &[End::Switched, End::RolledBack],
            Trouble::TakenBack | Trouble::Costly => &[End::RolledBack],
            // What was through before is not under way any more; and it may be deployed again.
            Trouble::Aborted | Trouble::Locked => &[End::Switched, End::RolledBack],
            // Two failed starts in a row on one of a handful of members are a failing release.
            Trouble::FlakyStart if big && !self.is_limited() => &[End::Switched],
            Trouble::FlakyStart => &[End::Switched, End::RolledBack],
            Trouble::CrashAtStart => &[End::RolledBack],
            // What is through before the first crash shows is through.
            Trouble::CrashAfterHalfAMinute if big && self.policy_name != "fast" => &[End::RolledBack],
            Trouble::CrashAfterHalfAMinute => &[End::Switched, End::RolledBack],
            // Who leaves or falls silent in the middle of a try may have been killed by it.
            Trouble::JoinsAndLeaves | Trouble::MassSilence => &[End::Switched, End::RolledBack],
            // Who falls silent on the way back as well leaves it to people.
            Trouble::ServersRestart | Trouble::StoreForgets | Trouble::Partitions => {
                &[End::Switched, End::RolledBack, End::Halted]
            }
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

/// A moment within so many seconds.
fn later(prng: &mut Prng, least: u64, most: u64) -> Millis {
    prng.between(Millis::from_secs(least), Millis::from_secs(most))
}

/// The service is locked before or after the release is deployed. What else is deployed is refused until it is unlocked.
fn plan_lock(prng: &mut Prng, at: Millis, plan: &mut Vec<(Millis, Step)>) {
    let deploy = |release| Step::Deploy { release, again: true };
    let locked = if prng.chance(Share::from_percent(30)) { Millis::ZERO } else { at };
    plan.push((locked, Step::Lock("let us see".into())));
    plan.push((at + later(prng, 0, 30), deploy(Release::OTHER)));
    if prng.chance(Share::from_percent(50)) {
        plan.push((at + later(prng, 0, 60), Step::RollBack(None)));
    }
    let unlocked = at + later(prng, 30, 90);
    plan.push((unlocked, Step::Unlock));
    if prng.chance(Share::from_percent(50)) {
        plan.push((unlocked + later(prng, 0, 30), deploy(Release::OTHER)));
    }
}

/// Servers end and start again, now and then all of them at once.
fn plan_restarts(prng: &mut Prng, servers: usize, plan: &mut Vec<(Millis, Step)>) {
    for number in 0..servers {
        for _ in 0..=prng.below(2) {
            let at = later(prng, 0, 90);
            plan.push((at, Step::Server { number, up: false }));
            plan.push((at + later(prng, 1, 30), Step::Server { number, up: true }));
        }
    }
}

/// The store ends and starts, or another process takes over that has less. Between two losses there is time to mend one.
fn plan_losses(prng: &mut Prng, plan: &mut Vec<(Millis, Step)>) {
    let mut at = later(prng, 0, 20);
    for _ in 0..=prng.below(3) {
        let fault = match prng.below(4) {
            0 => StoreFault::Empties,
            1 => StoreFault::Dies,
            _ => StoreFault::Loses(1 + prng.below(4) as u32),
        };
        plan.push((at, Step::Store(fault)));
        if fault == StoreFault::Dies {
            at = at + later(prng, 1, 30);
            plan.push((at, Step::Store(StoreFault::Starts)));
        }
        at = at + LEASE + later(prng, 10, 40);
    }
}

/// A part of the members and a server do not hear each other, or a server does not reach the store; then all is well again.
fn plan_partitions(prng: &mut Prng, servers: usize, plan: &mut Vec<(Millis, Step)>) {
    let mut at = later(prng, 0, 20);
    for _ in 0..=prng.below(3) {
        let server = prng.below(servers as u64) as usize;
        let members = Amount::Share(Share::from_percent(10 + prng.below(81) as u32));
        let way = [Way::Both, Way::Deaf, Way::Mute][prng.below(3) as usize];
        plan.push((
            at,
            match prng.below(3) {
                0 => Step::Isolate(server),
                1 => Step::Cut(Cut { members, server: Some(server), way }),
                _ => Step::Cut(Cut {
                    members: Amount::Share(Share::from_percent(50)),
                    server: Some(server),
                    way,
                }),
            },
        ));
        at = at + later(prng, 1, 60);
        plan.push((at, Step::Heal));
        at = at + later(prng, 1, 30);
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let overlap = if self.overlap { "side by side" } else { "one after the other" };
        write!(f, "{:?}, {} members, {}, {overlap}", self.trouble, self.members, self.policy_name)
    }
}
