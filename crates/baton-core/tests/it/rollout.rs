//! The rollout rule on fleets made by hand.

mod grants;
mod information;
mod limits;
mod shared;
mod verdicts;
mod way_back;

use baton_core::deploy::{Deploy, Kind, Policy};
use baton_core::fleet::{Fleet, GONE_AFTER, Heard};
use baton_core::ids::{DeployId, Epoch, MemberId, ReleaseId};
use baton_core::report::{Cause, Refusal, Report, Seen, Stamp, Standing};
use baton_core::rollout::Rollout;
use baton_core::units::Millis;
use baton_core::verdict::{Verdict, verdict};

const OLD: ReleaseId = ReleaseId::from_bytes([1; 32]);
const NEW: ReleaseId = ReleaseId::from_bytes([2; 32]);
const NOW: Millis = Millis::from_secs(1000);

fn id(index: usize) -> MemberId {
    format!("m{index}").parse().unwrap()
}

/// The second deploy of a service that ran [`OLD`].
fn deploy(policy: Policy) -> Deploy {
    Deploy {
        id: DeployId::from_bytes([2; 16]),
        service: "web".parse().unwrap(),
        epoch: Epoch(2),
        kind: Kind::Rollout,
        parent: Some(DeployId::from_bytes([1; 16])),
        release: NEW,
        fallback: Some(OLD),
        policy,
        reason: String::new(),
        actor: "ada".into(),
        created: 0,
        warrant: None,
        blame: None,
    }
}

fn refused() -> Standing {
    Standing::Refused(Refusal { cause: Cause::Exit, detail: "exit 1 after 0.8 s".into() })
}

/// What a member says that stands there in `deploy`, with the old release beside it where one would be.
fn report(index: usize, sequence: u64, deploy: &Deploy, standing: Standing) -> Report {
    let on_new = matches!(standing, Standing::Proving | Standing::Proven);
    let committed = if standing == Standing::Proven { deploy.release } else { OLD };
    Report {
        seen: Some(Seen { epoch: deploy.epoch, deploy: deploy.id }),
        committed: Some((committed, Epoch(1))),
        running: Some(if on_new { deploy.release } else { OLD }),
        standby: (standing == Standing::Proving).then_some(OLD),
        drained: standing != Standing::Proving,
        attempts: 1,
        bake_connections: 1,
        ..Report::plain(id(index), Stamp { life: 1, sequence }, standing)
    }
}

/// A fleet in which all members are live, and a deploy of which they have heard.
struct Scene {
    fleet: Fleet,
    deploy: Deploy,
    now: Millis,
    sequence: u64,
}

impl Scene {
    fn of(members: usize, policy: Policy) -> Self {
        Self::with(members, deploy(policy))
    }

    fn with(members: usize, deploy: Deploy) -> Self {
        let mut scene = Self { fleet: Fleet::new(), deploy: deploy.clone(), now: NOW, sequence: 0 };
        for index in 0..members {
            scene.says(index, |report| (report.seen, report.standing) = (None, Standing::Proven));
        }
        scene.fleet.begin(deploy, NOW);
        (0..members).for_each(|index| scene.stands(index, Standing::Staged));
        scene
    }

    /// A member reports what a staged one does, but for this change.
    fn says(&mut self, index: usize, change: impl FnOnce(&mut Report)) {
        self.sequence += 1;
        let mut report = report(index, self.sequence, &self.deploy, Standing::Staged);
        change(&mut report);
        assert_eq!(self.fleet.apply(report, self.now), Heard::News);
    }

    fn stands(&mut self, index: usize, standing: Standing) {
        self.sequence += 1;
        let report = report(index, self.sequence, &self.deploy, standing);
        assert_eq!(self.fleet.apply(report, self.now), Heard::News);
    }

    /// A member is not heard any more until it is gone; all others are.
    fn vanishes(&mut self, gone: usize) {
        self.now = self.now + GONE_AFTER;
        let others: Vec<_> = self.fleet.members().map(|(id, _)| id.clone()).collect();
        for other in others.iter().filter(|other| **other != id(gone)) {
            self.sequence += 1;
            let stamp = Stamp { life: 1, sequence: self.sequence };
            assert_eq!(self.fleet.heartbeat(other, stamp, self.now), Heard::News);
        }
        self.fleet.sweep(self.now);
    }

    fn rollout(&self) -> Rollout<'_> {
        Rollout::of(&self.fleet, self.now).unwrap()
    }

    fn verdict(&self) -> Verdict {
        verdict(&self.rollout())
    }

    /// Gives the slots that there are, and returns to whom.
    fn grant(&mut self) -> Vec<usize> {
        self.fleet.sweep(self.now);
        let rollout = self.rollout();
        let (members, grant) = (rollout.next_grants(), rollout.grant());
        assert_eq!(
            rollout.admissible(rollout.deploy().epoch, &members).err().filter(|_| !members.is_empty()),
            None
        );
        self.fleet.grant(&members, grant);
        members.iter().map(index).collect()
    }

    /// Gives slots and lets their holders prove the release, until nobody gets one. Returns who got one when.
    fn run(&mut self) -> Vec<Vec<usize>> {
        let mut rounds = Vec::new();
        loop {
            let granted = self.grant();
            if granted.is_empty() {
                return rounds;
            }
            granted.iter().for_each(|&index| self.stands(index, Standing::Proven));
            rounds.push(granted);
        }
    }
}

fn index(id: &MemberId) -> usize {
    id.as_str()[1..].parse().unwrap()
}
