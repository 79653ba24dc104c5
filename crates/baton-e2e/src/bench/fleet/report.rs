//! What it costs the rule of rollouts, without any network or disk, to take in one report and to decide what follows.

use baton_core::deploy::{Deploy, Kind, Policy};
use baton_core::fleet::Fleet;
use baton_core::ids::{DeployId, Epoch, MemberId, ReleaseId};
use baton_core::report::{Report, Seen, Stamp, Standing};
use baton_core::rollout::Rollout;
use baton_core::units::Millis;
use baton_core::verdict::{Verdict, verdict};
use rustix::time::{ClockId, clock_gettime};

use crate::bench::sample::Sample;

const DEPLOY: DeployId = DeployId::from_bytes([1; 16]);
const RELEASE: ReleaseId = ReleaseId::from_bytes([1; 32]);
/// How often it is measured.
const TURNS: usize = 11;
/// How many reports one measurement is of.
const REPORTS: usize = 2000;

/// Nanoseconds of a processor for one report of a fleet of this size: it is taken in, what is known is copied for readers, and
/// it is decided who may go and whether it goes on.
///
/// # Errors
/// When a name or a decision is not what it must be.
pub fn measure(members: usize) -> anyhow::Result<Sample> {
    let names: Vec<MemberId> =
        (0..members).map(|number| format!("web-{number:05}").parse()).collect::<Result<_, _>>()?;
    let now = Millis::from_secs(1000);
    let mut fleet = Fleet::new();
    let mut sequence = 0;
    let mut say = |fleet: &mut Fleet, member: &MemberId, standing: Standing| {
        sequence += 1;
        let _ = fleet.apply(report(member.clone(), sequence, standing), now);
    };
    names.iter().for_each(|name| say(&mut fleet, name, Standing::Behind));
    fleet.begin(deploy(&names)?, now);
    names.iter().for_each(|name| say(&mut fleet, name, Standing::Staged));
    let mut sample = Sample::default();
    for _ in 0..TURNS {
        let begun = processor_ns();
        for name in names.iter().cycle().take(REPORTS) {
            let for_readers = fleet.clone();
            say(&mut fleet, name, Standing::Staged);
            fleet.sweep(now);
            let rollout = Rollout::of(&fleet, now).ok_or_else(|| anyhow::anyhow!("nothing is in force"))?;
            anyhow::ensure!(
                verdict(&rollout) == Verdict::Continue && rollout.room() > 0,
                "it does not go on"
            );
            drop(for_readers);
        }
        sample.add((processor_ns() - begun) / REPORTS as f64);
    }
    Ok(sample)
}

/// The processor time of this thread.
fn processor_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn deploy(names: &[MemberId]) -> anyhow::Result<Deploy> {
    anyhow::ensure!(!names.is_empty(), "a fleet without members");
    Ok(Deploy {
        id: DEPLOY,
        service: "web".parse()?,
        epoch: Epoch(1),
        kind: Kind::Rollout,
        parent: None,
        release: RELEASE,
        fallback: None,
        policy: Policy::safe(),
        reason: String::new(),
        actor: String::new(),
        created: 0,
        warrant: None,
        blame: None,
    })
}

fn report(member: MemberId, sequence: u64, standing: Standing) -> Report {
    let seen = Some(Seen { epoch: Epoch(1), deploy: DEPLOY });
    Report { seen, ..Report::plain(member, Stamp { life: 1, sequence }, standing) }
}
