//! What is told of a simulated world to whoever reads it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::World;
use super::decided::AS_WISHED;
use crate::deploy::{Deploy, Kind};
use crate::fleet::{Presence, Tie};
use crate::history::Past;
use crate::report::{Seen, Standing};
use crate::rollout::Rollout;
use crate::simulate::release::Release;
use crate::simulate::script::What;
use crate::simulate::server::{Look, Server};
use crate::turn::{Turn, Why};
use crate::verdict::Verdict;

/// How wide a moment is: `10 min 10 s`.
const MOMENT: usize = 11;

/// A deploy in a line.
pub(super) fn of_deploy(deploy: &Deploy) -> String {
    let (release, epoch) = (Release::of(deploy.release), deploy.epoch);
    let what = match deploy.kind {
        Kind::Rollout => format!("rollout of {release}"),
        Kind::Halt { hand_back: false, .. } => format!("halt of {release}"),
        Kind::Halt { hand_back: true, .. } => format!("halt of {release}, which is handed back"),
        Kind::Rollback { .. } => format!("rollback to {release}"),
    };
    match deploy.reason.as_str() {
        AS_WISHED => format!("{what} (epoch {epoch})"),
        reason => format!("{what} (epoch {epoch}): {reason}"),
    }
}

impl World {
    /// Notes something that happened, if anybody reads it.
    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now();
        if let Some(log) = &mut self.log {
            log.push(format!("{:>MOMENT$}  {}", now.to_string(), text()));
        }
    }

    /// What happened since somebody read it last.
    pub(in crate::simulate) fn take_log(&mut self) -> Vec<String> {
        self.log.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// Notes where the rollout stands, as far as that has changed for the first server that is up.
    pub(super) fn note_look(&mut self, number: usize) {
        let now = self.now();
        let first = self.servers.iter().find(|server| server.up);
        let Some(server) = first.filter(|server| server.number == number && self.log.is_some()) else {
            return;
        };
        let Some(look) = server.look(now) else { return };
        let before = self.look.take().filter(|before| before.deploy == look.deploy);
        for text in changes(before.as_ref(), &look) {
            self.note(|| text);
        }
        self.look = Some(look);
    }

    /// What somebody wants to see.
    pub(in crate::simulate) fn show(&self, what: What) -> Vec<String> {
        match what {
            What::Fleet => self.show_fleet(),
            What::Members => self.members.iter().filter(|m| m.alive).map(|m| m.describe()).collect(),
            What::Deploys => {
                let past = self.speaker().map(Server::past).unwrap_or_default();
                let line = |past: &Past| {
                    let switched = if past.switched { ", switched" } else { "" };
                    format!("{}{switched}", of_deploy(&past.deploy))
                };
                past.iter().map(line).collect()
            }
        }
    }

    fn speaker(&self) -> Option<&Server> {
        self.servers.iter().find(|server| server.up)
    }

    fn show_fleet(&self) -> Vec<String> {
        let Some(server) = self.speaker() else { return alloc::vec!["no server is up".into()] };
        let Some(rollout) = Rollout::of(&server.fleet, self.now()) else {
            return alloc::vec!["nothing is in force".into()];
        };
        let (deploy, counts) = (rollout.deploy(), rollout.counts());
        let mut lines = alloc::vec![format!("{:>MOMENT$}  {}", self.now().to_string(), headline(&rollout))];
        let mut line = |text: String| lines.push(format!("{:MOMENT$}  {text}", ""));
        if let Kind::Rollout | Kind::Rollback { .. } = deploy.kind {
            let (phase, of) = (rollout.phase() + 1, rollout.phases().len());
            let bake = rollout.deploy().bake(rollout.grant().bake);
            line(format!("phase {phase} of {of}: {} at once, bake {bake}", rollout.slots()));
        }
        let mut sorts =
            alloc::vec![format!("{} proven", counts.proven), format!("{} on trial", counts.unsettled)];
        for (count, word) in [
            (counts.refused, "refused it"),
            (counts.unstageable, "cannot get it"),
            (counts.silent, "silent"),
            (counts.gone, "gone with it"),
        ] {
            sorts.extend((count > 0).then(|| format!("{count} {word}")));
        }
        line(format!("{} members: {}", counts.present(), sorts.join(", ")));
        let serving = self.observer.serving().iter().enumerate().filter(|(_, count)| **count > 0);
        let serving: Vec<_> = serving.map(|(release, count)| format!("r{release} on {count}")).collect();
        line(format!("serving: {}", serving.join(", ")));
        for (text, count) in waiting(&rollout) {
            line(format!("{count} wait: {text}"));
        }
        if let Some(lock) = server.history.lock() {
            line(format!("locked by {}: {}", lock.actor, lock.reason));
        }
        lines
    }
}

fn headline(rollout: &Rollout<'_>) -> String {
    let what = of_deploy(rollout.deploy());
    if rollout.switched() { format!("{what}, switched") } else { what }
}

/// Why members wait that neither have the release nor try it, and how many each.
fn waiting(rollout: &Rollout<'_>) -> BTreeMap<String, u32> {
    let mut reasons = BTreeMap::new();
    // Asked once for each sort of member: who waits for the others waits as all of its sort do.
    let mut known = None;
    let next: BTreeSet<_> = rollout.next_grants().into_iter().collect();
    for (id, member) in rollout.fleet().members().filter(|(id, _)| !next.contains(*id)) {
        let plain = member.presence(rollout.now()) == Presence::Live
            && member.tie() == Tie::Nothing
            && rollout.deploy().policy.target.label.is_none()
            && member
                .report()
                .is_some_and(|report| report.standing == Standing::Staged && report.seen == seen(rollout));
        let text = match known.clone().filter(|_| plain) {
            Some(text) => text,
            None => match rollout.turn(id) {
                Turn::Go | Turn::Wait(Why::AlreadyThere | Why::OnTrial { .. } | Why::NeedsTraffic { .. }) => {
                    continue;
                }
                Turn::Wait(why) => why.to_string(),
            },
        };
        if plain {
            known.get_or_insert_with(|| text.clone());
        }
        *reasons.entry(text).or_insert(0) += 1;
    }
    reasons
}

/// What members report that have heard of the deploy.
fn seen(rollout: &Rollout<'_>) -> Option<Seen> {
    let deploy = rollout.deploy();
    Some(Seen { epoch: deploy.epoch, deploy: deploy.id })
}

/// What has changed since a rollout stood like `before`.
fn changes(before: Option<&Look>, now: &Look) -> Vec<String> {
    let mut texts = Vec::new();
    let stop = |look: &Look| look.stop.as_ref().map(Why::code);
    let stopped = before.and_then(stop);
    // What halts it was told when it began.
    let told = matches!(now.stop, Some(Why::Halted { .. } | Why::Failing(_)));
    match &now.stop {
        Some(why) if stop(now) != stopped && !told => texts.push(format!("nobody gets a slot: {why}")),
        None if stopped.is_some() => texts.push("slots are given again".into()),
        Some(_) | None => {}
    }
    let phase = |look: &Look| (look.phase, look.slots);
    if now.stop.is_none() && !now.switched && before.map(phase) != Some(phase(now)) {
        texts.push(format!("phase {}: {} at once, bake {}", now.phase + 1, now.slots, now.bake));
    }
    let was = before.map(|before| &before.verdict);
    match &now.verdict {
        Verdict::Incomplete if was != Some(&now.verdict) => {
            let names: Vec<_> = now.refuse.iter().map(ToString::to_string).collect();
            texts.push(format!("incomplete: {} left", names.join(", ")));
        }
        Verdict::Done { drained } => {
            let done = matches!(was, Some(Verdict::Done { .. }));
            if !done {
                texts.push("switched".into());
            }
            if *drained && was != Some(&now.verdict) {
                texts.push("drained".into());
            }
        }
        Verdict::Incomplete | Verdict::Continue | Verdict::Halt(_) | Verdict::RollBack(_) => {}
    }
    texts
}
