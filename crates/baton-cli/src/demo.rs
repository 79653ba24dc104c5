//! `baton demo`: the whole product on one machine, under load, with everything that goes wrong on the way.

mod load;
mod releases;
mod stage;
mod table;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use baton_core::deploy::Policy;
use baton_core::ids::ReleaseId;
use baton_wire::api::{EventView, PhaseView, PolicyView, Propose, ServiceStatus, Wanted};

use self::load::{Counts, Load};
use self::stage::{Programs, Stage};
use self::table::Row;
use crate::client::ClientError;
use crate::local::LocalError;

/// How many members the demo has.
const MEMBERS: usize = 8;
/// The member whose program is killed.
const KILLED: &str = "demo-3";

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something does not run on this machine.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Something took longer than it may.
    #[error("gave up waiting for {0}")]
    Late(String),
    /// Something was not as it should be.
    #[error("{0}")]
    Unexpected(String),
    /// Control refused something.
    #[error("control refused")]
    Control(#[from] ClientError),
    /// The system refused something.
    #[error("cannot {what}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The load is not as it should be; the account has been shown.
    #[error("requests were lost, or ended with a program that cannot have had them")]
    Lost,
    /// Somebody wants it to end.
    #[error("interrupted")]
    Interrupted,
}

/// Set by Ctrl-C. One for the process, as signals are.
static INTERRUPTED: std::sync::OnceLock<Arc<AtomicBool>> = std::sync::OnceLock::new();

impl DemoError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    fn check_interrupted() -> Result<(), Self> {
        let interrupted = INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed));
        if interrupted { Err(Self::Interrupted) } else { Ok(()) }
    }
}

/// Runs the demo; `say` gets its text line by line. `Ok(true)` when nothing was lost.
pub fn run(say: &dyn Fn(&str)) -> Result<bool, DemoError> {
    let interrupted = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone()).map_err(DemoError::io("handle signals"))?;
    }
    let programs = Programs::find()?;
    let mut stage = Stage::open(&programs)?;
    say(&format!("control at {}", stage.control()));
    stage.start_members(MEMBERS)?;
    stage.wait_for_members()?;
    let addresses: Vec<String> = stage.addresses().iter().map(ToString::to_string).collect();
    say(&format!("{MEMBERS} members at {}", addresses.join(" ")));
    let first = stage.push(1, None)?;
    stage.propose(&Propose { policy: Some(at_once()), ..rollout(first) })?;
    stage.wait_until("release 1", |status| runs(status, first))?;
    say(
        "release 1 runs everywhere; the load starts: new connections and kept ones, each request accounted for",
    );
    say(
        "policy of what follows: 1 member, then 50 % at a time; bake 4 s; a candidate has 3 s to get healthy\n",
    );
    let load = Load::start(&programs.load, stage.addresses())?;
    let mut demo =
        Demo { stage, load, say, rows: Vec::new(), counted: Counts::default(), touched: None, deaths: 0 };
    demo.story(first)?;
    demo.finish()
}

struct Demo<'a> {
    stage: Stage,
    load: Load,
    say: &'a dyn Fn(&str),
    rows: Vec<Row>,
    counted: Counts,
    /// A member that a step touched by itself, without control's doing.
    touched: Option<&'static str>,
    /// How many programs have died in the step under way.
    deaths: u64,
}

impl Demo<'_> {
    fn story(&mut self, first: ReleaseId) -> Result<(), DemoError> {
        self.settle(first)?;
        let second = self.stage.push(2, None)?;
        self.step("deploy 2: a good release", |demo| demo.deploy_well(second))?;

        let third = self.stage.push(3, Some("never-healthy"))?;
        self.load.say(&format!("forbid {third}"))?;
        self.step("deploy 3: answers, never healthy", |demo| demo.deploy_badly(third, second).map(drop))?;

        let fourth = self.stage.push(4, Some("crash-after=3"))?;
        self.step("deploy 4: crashes after 3 s", |demo| demo.deploy_crashing(fourth, second))?;

        self.step("roll back 2 to 1", |demo| demo.roll_back(first))?;
        self.step("kill a program (SIGKILL)", Self::kill_a_program)?;

        let fifth = self.stage.push(5, None)?;
        self.step("deploy 5: control killed halfway", |demo| demo.deploy_without_control(fifth))
    }

    /// Does a step and notes what it came to.
    fn step(
        &mut self,
        step: &'static str,
        act: impl FnOnce(&mut Self) -> Result<(), DemoError>,
    ) -> Result<(), DemoError> {
        let events = self.stage.last_event()?;
        let start = Instant::now();
        act(self)?;
        let time = start.elapsed();
        let counts = self.load.counts()?;
        let touched = self.stage.events_after(events)?;
        let granted = touched
            .iter()
            .filter(|event| event.kind == "granted")
            .filter_map(|event| event.member.as_deref());
        let members = granted.chain(self.touched.take()).collect::<BTreeSet<_>>().len();
        let in_flight = std::mem::take(&mut self.deaths) * load::in_flight_on_one(MEMBERS);
        let row = Row { step, time, members, counts: counts.since(&self.counted), in_flight };
        let verdict = row.verdict().map_or_else(|wrong| wrong, |()| "nothing lost".to_owned());
        (self.say)(&format!("{step}: {:.1} s, {members} members touched, {verdict}", time.as_secs_f64()));
        self.counted = counts;
        self.rows.push(row);
        Ok(())
    }

    fn deploy_well(&mut self, release: ReleaseId) -> Result<(), DemoError> {
        self.open()?;
        self.stage.propose(&rollout(release))?;
        self.stage.wait_until("the release to be switched to", |status| runs(status, release))?;
        self.settle(release)
    }

    /// Deploys a release that fails, and waits until it was taken back by itself. Returns the deploy.
    fn deploy_badly(&mut self, release: ReleaseId, before: ReleaseId) -> Result<String, DemoError> {
        self.open()?;
        let id = self.stage.propose(&rollout(release))?;
        let status = self.stage.wait_until("the release to be taken back", |status| {
            let back = status
                .deploy
                .as_ref()
                .is_some_and(|deploy| deploy.kind == "rollback" && deploy.of.as_deref() == Some(&id));
            back && runs(status, before)
        })?;
        if let Some(deploy) = status.deploy {
            let reason = crate::escape::escape(&deploy.reason);
            (self.say)(&format!("  taken back by {}: {reason}", deploy.actor));
        }
        self.settle(before)?;
        Ok(id)
    }

    /// The same with a release that crashes while it serves: what it had in flight then dies with it.
    fn deploy_crashing(&mut self, release: ReleaseId, before: ReleaseId) -> Result<(), DemoError> {
        let events = self.stage.last_event()?;
        let deploy = self.deploy_badly(release, before)?;
        for (member, from, to) in trials(&self.stage.events_after(events)?, &deploy) {
            let address = self.stage.address_of(&member)?;
            self.load.say(&format!("window {address} {from} {to}"))?;
            self.deaths += 1;
        }
        Ok(())
    }

    fn roll_back(&mut self, to: ReleaseId) -> Result<(), DemoError> {
        self.open()?;
        self.stage.propose(&Propose { wanted: Wanted::Rollback, release: None, ..rollout(to) })?;
        self.stage.wait_until("the rollback", |status| runs(status, to))?;
        self.settle(to)
    }

    fn kill_a_program(&mut self) -> Result<(), DemoError> {
        let address = self.stage.address_of(KILLED)?;
        let program = stage::program_at(address)?;
        self.load.say(&format!("window {address} begin"))?;
        stage::kill(program)?;
        self.load.say(&format!("window {address} end"))?;
        self.touched = Some(KILLED);
        self.deaths += 1;
        stage::wait_for_another(address, program)
    }

    fn deploy_without_control(&mut self, release: ReleaseId) -> Result<(), DemoError> {
        self.open()?;
        let id = self.stage.propose(&rollout(release))?;
        self.stage.wait_until("the middle of the deploy", |status| status.counts.proven >= 1)?;
        self.stage.kill_control()?;
        (self.say)("  control is killed, and started again");
        self.stage.start_control()?;
        let status =
            self.stage.wait_until("the release to be switched to", |status| runs(status, release))?;
        if status.deploy.as_ref().is_none_or(|deploy| deploy.id != id) {
            return Err(DemoError::Unexpected("another deploy than the accepted one is in force".to_owned()));
        }
        self.settle(release)
    }

    /// From now on any release may answer: a deploy begins.
    fn open(&mut self) -> Result<(), DemoError> {
        self.each_member(|address| format!("open {address}"))
    }

    /// From now on new connections are answered by this release alone.
    fn settle(&mut self, release: ReleaseId) -> Result<(), DemoError> {
        self.each_member(|address| format!("committed {address} {release}"))
    }

    fn each_member(&mut self, line: impl Fn(&str) -> String) -> Result<(), DemoError> {
        let addresses: Vec<String> = self.stage.addresses().iter().map(ToString::to_string).collect();
        addresses.iter().try_for_each(|address| self.load.say(&line(address)))
    }

    fn finish(self) -> Result<bool, DemoError> {
        let (total, text) = self.load.finish()?;
        (self.say)("");
        (self.say)(&table::render(&self.rows, &total));
        let clean = table::is_clean(&self.rows, &total);
        if !clean {
            (self.say)(&format!("the load's whole account: {text}"));
        }
        Ok(clean)
    }
}

/// Who tried the release of a deploy that was taken back, from when to when, in milliseconds since 1970.
fn trials(events: &[EventView], deploy: &str) -> Vec<(String, u64, u64)> {
    let Some(taken_back) = events.iter().find(|event| event.kind == "rolled-back") else { return Vec::new() };
    let granted =
        events.iter().filter(|event| event.kind == "granted" && event.deploy.as_deref() == Some(deploy));
    granted.filter_map(|event| Some((event.member.clone()?, event.at_ms, taken_back.at_ms))).collect()
}

/// Whether the whole fleet runs this release, and the deploy is done.
fn runs(status: &ServiceStatus, release: ReleaseId) -> bool {
    let done = matches!(status.state.as_str(), "switched" | "drained");
    done && status.deploy.as_ref().is_some_and(|deploy| deploy.release == release.to_string())
}

/// The policy of the demo.
fn policy() -> PolicyView {
    let phase = |size_ppm| PhaseView { size_ppm, bake_ms: 4000 };
    let phases = vec![phase(None), phase(Some(500_000))];
    PolicyView { max_unhealthy_ppm: 500_000, phases, ..PolicyView::of(&Policy::safe()) }
}

/// The policy of the first deploy, while nobody is served yet.
fn at_once() -> PolicyView {
    PolicyView { phases: vec![PhaseView { size_ppm: Some(500_000), bake_ms: 0 }], ..policy() }
}

fn rollout(release: ReleaseId) -> Propose {
    Propose {
        wanted: Wanted::Rollout,
        release: Some(release.to_string()),
        policy: Some(policy()),
        again: false,
        parent: None,
        reason: String::new(),
        actor: "demo".to_owned(),
        idempotency_key: None,
        dry_run: false,
        warrant: None,
        unsigned: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_with_a_slot_of_the_bad_deploy_may_lose_a_program() {
        let event = |at_ms, kind: &str, member: Option<&str>, deploy: &str| EventView {
            sequence: at_ms,
            at_ms,
            service: "demo".to_owned(),
            kind: kind.to_owned(),
            member: member.map(str::to_owned),
            deploy: Some(deploy.to_owned()),
            text: String::new(),
        };
        let events = [
            event(1, "deployed", None, "bad"),
            event(2, "granted", Some("demo-1"), "bad"),
            event(3, "refused", Some("demo-1"), "bad"),
            event(4, "rolled-back", None, "back"),
            event(5, "granted", Some("demo-2"), "back"),
        ];
        assert_eq!(trials(&events, "bad"), [("demo-1".to_owned(), 2, 4)]);
        assert_eq!(trials(&events[..3], "bad"), [], "it was not taken back");
    }
}
