//! Scripts as text: what is written here, `parse` reads.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::{Cut, Flaw, NamedPolicy, Setup, Step, StoreFault, Until, Way, What};
use crate::deploy::{Phase, PhaseSize, Policy};
use crate::limits::Limits;
use crate::simulate::network::Network;
use crate::simulate::release::{Program, Release};
use crate::target::Amount;
use crate::units::{Millis, Share};

fn share(share: Share) -> String {
    share.to_string().replace(' ', "")
}

fn amount(amount: Amount) -> String {
    match amount {
        Amount::Share(of) => share(of),
        Amount::Members(members) => members.to_string(),
    }
}

fn duration(time: Millis) -> String {
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let (mut left, mut text) = (time.0, String::new());
    for (unit, ms) in units {
        if left >= ms {
            text += &format!("{}{unit}", left / ms);
            left %= ms;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

impl Setup {
    /// A line for each thing that is not as always.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { seed, members, servers, network, labels, program, overlap } = self;
        let mut lines = alloc::vec![format!("seed {seed}"), format!("fleet {members}")];
        lines.extend((*servers > 1).then(|| format!("servers {servers}")));
        lines.extend((*network == Network::Bad).then(|| "network bad".into()));
        lines.extend(labels.iter().map(|(label, of)| format!("label {label} {}", amount(*of))));
        if *program != Program::QUICK {
            let middle = Millis(program.start.0.0.midpoint(program.start.1.0));
            lines.push(format!("startup {}", duration(middle)));
            lines.push(format!("fetch {}", duration(program.fetch.1)));
        }
        lines.extend(program.traffic.map(|traffic| format!("traffic {traffic}")));
        lines.extend((!overlap).then(|| "no overlap".into()));
        lines
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(policy) => policy.fmt(f),
            Self::Flaw(release, Flaw::Crashes(of)) => write!(f, "crash {release} {}", share(*of)),
            Self::Flaw(release, Flaw::CrashesAfter(after)) => {
                write!(f, "crash {release} after {}", duration(*after))
            }
            Self::Flaw(release, Flaw::Slower(percent)) => write!(f, "slower {release} {percent}%"),
            Self::Flaw(release, Flaw::Larger(percent)) => write!(f, "larger {release} {percent}%"),
            Self::Refuse(release, members) => write!(f, "refuse {release} {}", amount(*members)),
            Self::Unfetchable(release, members) => write!(f, "unfetchable {release} {}", amount(*members)),
            Self::Deploy { release, again: false } => write!(f, "deploy {release}"),
            Self::Deploy { release, again: true } => write!(f, "deploy {release} again"),
            Self::Halt => f.write_str("halt"),
            Self::Resume => f.write_str("resume"),
            Self::Abort => f.write_str("abort"),
            Self::RollBack(None) => f.write_str("rollback"),
            Self::RollBack(Some(release)) => write!(f, "rollback {release}"),
            Self::Lock(reason) => write!(f, "lock {reason}"),
            Self::Unlock => f.write_str("unlock"),
            Self::Join(members) => write!(f, "join {members}"),
            Self::Leave { members, goodbye: true } => write!(f, "leave {}", amount(*members)),
            Self::Leave { members, goodbye: false } => write!(f, "vanish {}", amount(*members)),
            Self::Restart(members) => write!(f, "restart {}", amount(*members)),
            Self::Cut(Cut { members, server: None, way: Way::Both }) => {
                write!(f, "silence {}", amount(*members))
            }
            Self::Cut(Cut { members, server, way }) => {
                write!(f, "partition {}", amount(*members))?;
                server.map_or(Ok(()), |server| write!(f, " from server {}", server + 1))?;
                f.write_str(match way {
                    Way::Both => "",
                    Way::Deaf => " deaf",
                    Way::Mute => " mute",
                })
            }
            Self::Isolate(server) => write!(f, "partition server {}", server + 1),
            Self::Heal => f.write_str("heal"),
            Self::Server { number, up: false } => write!(f, "server {} dies", number + 1),
            Self::Server { number, up: true } => write!(f, "server {} starts", number + 1),
            Self::Store(StoreFault::Dies) => f.write_str("store dies"),
            Self::Store(StoreFault::Starts) => f.write_str("store starts"),
            Self::Store(StoreFault::Loses(writes)) => write!(f, "store loses {writes}"),
            Self::Store(StoreFault::Empties) => f.write_str("store empties"),
            Self::Run(Until::After(time)) => write!(f, "run {}", duration(*time)),
            Self::Run(Until::Quiet) => f.write_str("run until quiet"),
            Self::Run(Until::Proven(members)) => write!(f, "run until {members} proven"),
            Self::Show(What::Fleet) => f.write_str("show"),
            Self::Show(What::Members) => f.write_str("show members"),
            Self::Show(What::Deploys) => f.write_str("show deploys"),
        }
    }
}

impl fmt::Display for NamedPolicy {
    /// The name, and what is not as that policy has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, policy } = self;
        write!(f, "policy {name}")?;
        let plain = Self::named(name).map_or_else(Policy::safe, |named| named.policy);
        let plain = if policy.all_at_once { plain.at_once() } else { plain };
        write_phases(f, &plain.phases, &policy.phases)?;
        let Policy { target, max_unhealthy, failure_limit, gates, limits, .. } = policy;
        if target.amount != plain.target.amount {
            write!(f, " target {}", amount(target.amount))?;
        }
        if let Some(label) = &target.label {
            write!(f, " label {label}")?;
        }
        if *max_unhealthy != plain.max_unhealthy && !policy.all_at_once {
            write!(f, " max-unhealthy {}", share(*max_unhealthy))?;
        }
        if *failure_limit != plain.failure_limit {
            write!(f, " failure-limit {}", share(*failure_limit))?;
        }
        let words = [
            (policy.all_at_once, "all-at-once"),
            (!policy.auto_rollback, "no-auto-rollback"),
            (policy.lock_after_rollback, "lock-after-rollback"),
            (limits.singleton, "singleton"),
        ];
        for (_, word) in words.iter().filter(|(holds, _)| *holds) {
            write!(f, " {word}")?;
        }
        if policy.bake_connections != plain.bake_connections {
            write!(f, " bake-connections {}", policy.bake_connections)?;
        }
        gates.iter().try_for_each(|gate| write!(f, " gate {}", gate.code()))?;
        write_limits(f, limits)
    }
}

fn write_phases(f: &mut fmt::Formatter<'_>, plain: &[Phase], phases: &[Phase]) -> fmt::Result {
    let size = |phase: &Phase| match phase.size {
        PhaseSize::One => "1".into(),
        PhaseSize::Share(of) => share(of),
    };
    let list = |text: &dyn Fn(&Phase) -> String| phases.iter().map(text).collect::<Vec<_>>().join(",");
    let same = |a: &dyn Fn(&Phase) -> String| plain.iter().map(a).eq(phases.iter().map(a));
    if !same(&size) {
        write!(f, " phases {}", list(&size))?;
    }
    let bake = |phase: &Phase| duration(phase.bake);
    match phases.first() {
        Some(_) if same(&bake) => Ok(()),
        Some(first) if phases.iter().all(|phase| phase.bake == first.bake) => {
            write!(f, " bake {}", bake(first))
        }
        Some(_) => write!(f, " bake {}", list(&bake)),
        None => Ok(()),
    }
}

fn write_limits(f: &mut fmt::Formatter<'_>, limits: &Limits) -> fmt::Result {
    if let Some(most) = limits.never_more_than {
        write!(f, " never-more-than {most}")?;
    }
    if let Some(least) = limits.min_available {
        write!(f, " min-available {least}")?;
    }
    match limits.connections {
        Some(connections) => write!(f, " connections {} each {}", connections.budget, connections.each),
        None => Ok(()),
    }
}

/// The words of a script, for whoever writes a wrong one.
pub(super) const FORMS: &[&str] = &[
    "seed NUMBER",
    "fleet NUMBER",
    "servers NUMBER",
    "network good|bad",
    "label LABEL AMOUNT",
    "startup DURATION",
    "fetch DURATION",
    "traffic NUMBER",
    "no overlap",
    "policy NAME ...",
    "crash [RELEASE] SHARE",
    "crash [RELEASE] after DURATION",
    "slower [RELEASE] PERCENT",
    "larger [RELEASE] PERCENT",
    "refuse [RELEASE] AMOUNT",
    "unfetchable [RELEASE] AMOUNT",
    "deploy RELEASE [again]",
    "halt",
    "resume",
    "abort",
    "rollback [RELEASE]",
    "lock REASON",
    "unlock",
    "join NUMBER",
    "leave AMOUNT",
    "vanish AMOUNT",
    "restart AMOUNT",
    "silence AMOUNT",
    "partition AMOUNT [from server NUMBER] [deaf|mute]",
    "partition server NUMBER",
    "heal",
    "server NUMBER dies|starts",
    "store dies|starts|empties",
    "store loses NUMBER",
    "run DURATION",
    "run until quiet",
    "run until NUMBER proven",
    "show",
    "show members",
    "show deploys",
];

/// The release that is meant where none is named.
pub(super) const MEANT: Release = Release::NEW;
