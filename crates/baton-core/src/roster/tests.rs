use std::string::String;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::costs::Costs;
use crate::deploy::{Deploy, Kind, Policy};
use crate::fleet::{Fleet, Presence};
use crate::ids::{DeployId, Epoch, ReleaseId};
use crate::report::{Cause, Refusal, Report, Seen, Stamp};
use crate::rollout::Rollout;
use crate::target::Target;

const MEMBERS: usize = 12;

/// Something that happens to a fleet.
#[derive(Debug, Clone)]
enum Step {
    /// A member reports: how far it is, with which deploy, what it runs, and odds and ends.
    Report {
        member: usize,
        standing: u8,
        seen: u8,
        running: u8,
        odds: u8,
    },
    Heartbeat(usize),
    Leave(usize),
    /// Another server has heard a member so long ago.
    Renewed(usize, u64),
    /// Time passes.
    Pass(u64),
    Sweep,
    /// Slots for whoever may have one.
    Grant,
    Begin(u8),
    /// Another server has given these members slots, or has put another deploy in force.
    Adopt {
        slots: Vec<usize>,
        other: bool,
    },
    ListenAnew,
    Switched,
}

fn step() -> impl Strategy<Value = Step> {
    let member = || 0..MEMBERS;
    prop_oneof![
        8 => (member(), 0..7_u8, 0..4_u8, 0..3_u8, any::<u8>()).prop_map(
            |(member, standing, seen, running, odds)| Step::Report { member, standing, seen, running, odds }
        ),
        4 => member().prop_map(Step::Heartbeat),
        1 => member().prop_map(Step::Leave),
        1 => (member(), 0..20_000_u64).prop_map(|(member, ago)| Step::Renewed(member, ago)),
        4 => (1..12_000_u64).prop_map(Step::Pass),
        1 => (20_000..90_000_u64).prop_map(Step::Pass),
        4 => Just(Step::Sweep),
        3 => Just(Step::Grant),
        1 => (0..3_u8).prop_map(Step::Begin),
        1 => (proptest::collection::vec(member(), 0..4), any::<bool>())
            .prop_map(|(slots, other)| Step::Adopt { slots, other }),
        1 => Just(Step::ListenAnew),
        1 => Just(Step::Switched),
    ]
}

fn id(member: usize) -> MemberId {
    std::format!("m{member}").parse().unwrap()
}

fn deploy(epoch: u8, kind: u8) -> Deploy {
    let of = DeployId::from_bytes([epoch.saturating_sub(1); 16]);
    let label = (epoch.is_multiple_of(3)).then(|| "a".parse().unwrap());
    Deploy {
        id: DeployId::from_bytes([epoch; 16]),
        service: "web".parse().unwrap(),
        epoch: Epoch(epoch.into()),
        kind: [Kind::Rollout, Kind::Rollback { of }, Kind::Halt { of, hand_back: true }][usize::from(kind)],
        parent: None,
        release: ReleaseId::from_bytes([epoch; 32]),
        fallback: None,
        policy: Policy { target: Target { label, ..Target::ALL }, ..Policy::fast() },
        reason: String::new(),
        actor: String::new(),
        created: 0,
        warrant: None,
        blame: None,
    }
}

/// A fleet under test, and what is needed to make up the next step.
struct Scene {
    fleet: Fleet,
    now: Millis,
    epoch: u8,
    sequence: u64,
}

impl Scene {
    fn follow(&mut self, step: &Step) {
        match *step {
            Step::Report { member, standing, seen, running, odds } => {
                let report = self.report(member, standing, seen, running, odds);
                let _ = self.fleet.apply(report, self.now);
            }
            Step::Heartbeat(member) => {
                self.sequence += 1;
                let stamp = Stamp { life: 1, sequence: self.sequence };
                let _ = self.fleet.heartbeat(&id(member), stamp, self.now);
            }
            Step::Leave(member) => self.fleet.leave(&id(member), self.now),
            Step::Renewed(member, ago) => {
                let _ = self.fleet.renew(&id(member), self.now - Millis(ago));
            }
            Step::Pass(time) => self.now = self.now + Millis(time),
            Step::Sweep => self.sweep(),
            Step::Grant => {
                let Some(rollout) = Rollout::of(&self.fleet, self.now) else { return };
                let (members, grant) = (rollout.next_grants(), rollout.grant());
                assert_eq!(
                    rollout.admissible(rollout.deploy().epoch, &members).is_ok(),
                    rollout.stop().is_none()
                );
                self.fleet.grant(&members, grant);
            }
            Step::Begin(kind) => {
                self.epoch += 1;
                self.fleet.begin(deploy(self.epoch, kind), self.now);
            }
            Step::Adopt { ref slots, other } => self.adopt(slots, other),
            Step::ListenAnew => self.fleet.listen_anew(self.now),
            Step::Switched => self.fleet.note_switched(),
        }
    }

    fn report(&mut self, member: usize, standing: u8, seen: u8, running: u8, odds: u8) -> Report {
        self.sequence += 1;
        let has = |bit: u8| odds & (1 << bit) != 0;
        let refusal = Refusal { cause: Cause::Exit, detail: String::new() };
        let release = ReleaseId::from_bytes([self.epoch.saturating_sub(running); 32]);
        let epoch = self.epoch.saturating_sub(seen);
        Report {
            member: id(member),
            stamp: Stamp { life: 1, sequence: self.sequence },
            seen: (epoch > 0)
                .then(|| Seen { epoch: Epoch(epoch.into()), deploy: DeployId::from_bytes([epoch; 16]) }),
            committed: has(0).then_some((release, Epoch(1))),
            running: has(1).then_some(release),
            healthy: has(2),
            standing: [
                Standing::Behind,
                Standing::Staged,
                Standing::Granted,
                Standing::Trying,
                Standing::Proving,
                Standing::Proven,
                Standing::Refused(refusal),
            ][usize::from(standing)]
            .clone(),
            fetching: None,
            attempts: 1,
            relapses: u32::from(has(3) && has(4)),
            standby: has(5).then_some(release),
            drained: has(6),
            bake_connections: u64::from(has(7)),
            costs: Costs {
                handover: has(3).then_some(crate::units::Micros(3)),
                startup: has(3).then_some(Millis(3000)),
                startup_before: has(4).then_some(Millis(1000)),
                ..Costs::default()
            },
            labels: if has(7) { std::vec!["a".parse().unwrap()] } else { Vec::new() },
        }
    }

    fn adopt(&mut self, slots: &[usize], other: bool) {
        if other {
            self.epoch += 1;
        }
        let in_force =
            crate::fleet::InForce { deploy: deploy(self.epoch, 0), members_at_start: 3, switched: false };
        let members = self.fleet.members().map(|(id, member)| (id.clone(), member.tie()));
        let grant = crate::fleet::Grant { phase: slots.len(), bake: Millis(1), proven: false };
        let members: Vec<_> =
            members.chain(slots.iter().map(|&slot| (id(slot), Tie::Slot(grant)))).skip(1).collect();
        let stored = Fleet::restore(members, Some(in_force), Epoch(self.epoch.into()), self.now);
        self.fleet.adopt(&stored, None, self.now);
    }

    /// Whoever is lost goes, and nobody else, and nobody at all while most are silent.
    fn sweep(&mut self) {
        let scene = self.fleet.scene(self.now);
        let lost =
            self.fleet.members().filter(|(_, member)| is_lost(member, scene)).map(|(id, _)| id.clone());
        let lost: Vec<_> = lost.collect();
        let lost = if self.fleet.silence(self.now).is_mass() { Vec::new() } else { lost };
        assert_eq!(self.fleet.sweep(self.now), lost);
        assert!(lost.iter().all(|id| self.fleet.member(id).is_none_or(|member| member.gone)));
    }

    /// The sums are those of a full count now and whenever else.
    fn check_sums(&self) {
        for later in [0, 1, 5_000, 15_000, 25_000, 100_000] {
            let scene = self.fleet.scene(self.now + Millis(later));
            assert_eq!(
                self.fleet.roster().counts(scene),
                self.fleet.roster().fold(scene),
                "{later} ms later"
            );
        }
        let scene = self.fleet.scene(self.now);
        let staged =
            self.fleet.members().filter_map(|(id, member)| Some((rank_if_staged(member, scene)?, id)));
        let staged: BTreeSet<_> = staged.collect();
        assert!(self.fleet.staged().map(|(id, _)| id).eq(staged.into_iter().map(|(_, id)| id)));
    }
}

/// Whoever is not named as changed is as it was, but for when it was heard.
fn check_changes((before, then): (&Fleet, Millis), (after, now): (&Fleet, Millis)) {
    let Some(changed) = after.changed_since(before) else { return };
    let of = |fleet: &Fleet, at: Millis| {
        let quiet = fleet.members().filter(|(id, _)| !changed.contains(*id));
        let known = |(id, member): (&MemberId, &Member)| {
            let mut report = member.report().cloned();
            report.iter_mut().for_each(|report| report.stamp = Stamp::default());
            let (live, gone) = (member.presence(at) == Presence::Live, member.gone);
            (id.clone(), report, live, gone, member.rank, member.tie)
        };
        quiet.map(known).collect::<Vec<_>>()
    };
    assert_eq!(of(before, then), of(after, now));
}

proptest! {
    #[test]
    fn sums_kept_up_with_every_change_are_those_of_a_full_count(
        steps in proptest::collection::vec(step(), 1..80),
        keep in 1..20_usize,
    ) {
        let mut scene = Scene { fleet: Fleet::new(), now: Millis::from_secs(100), epoch: 0, sequence: 0 };
        let mut before = (scene.fleet.clone(), scene.now);
        for (number, step) in steps.iter().enumerate() {
            scene.follow(step);
            scene.check_sums();
            scene.fleet.sweep(scene.now);
            check_changes((&before.0, before.1), (&scene.fleet, scene.now));
            if number.is_multiple_of(keep) {
                before = (scene.fleet.clone(), scene.now);
            }
        }
    }
}

#[test]
fn what_is_gone_is_not_remembered_for_ever() {
    let mut scene = Scene { fleet: Fleet::new(), now: Millis::from_secs(100), epoch: 1, sequence: 0 };
    let before = scene.fleet.clone();
    for member in 0..10 * CHANGES_SPARE {
        let report = scene.report(member, 0, 0, 0, 0);
        let _ = scene.fleet.apply(report, scene.now);
        scene.fleet.leave(&id(member), scene.now);
    }
    assert!(scene.fleet.changed_since(&before).is_none(), "it cannot be told any more");
    let changes = &scene.fleet.roster().changes;
    assert!(changes.latest.len() + changes.before.len() <= 2 * (CHANGES_SPARE + 1));
    let before = scene.fleet.clone();
    let report = scene.report(1, 0, 0, 0, 0);
    let _ = scene.fleet.apply(report, scene.now);
    let changed = scene.fleet.changed_since(&before).unwrap();
    assert_eq!(changed.into_iter().collect::<Vec<_>>(), [&id(1)]);
}
