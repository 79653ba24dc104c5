//! A small fleet in which everything breaks while it deploys: nothing is lost, and nothing runs that must not.

mod breaking;
mod control;
mod deploys;
pub mod fault;
mod fleet;
mod guest;
pub mod ill;
mod net;
pub mod oracle;
mod record;
mod redis;
mod releases;
pub mod schedule;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use baton_core::units::{Millis, Share};

use self::breaking::{Breaking, Step, steps};
use self::control::Server;
use self::deploys::{Deploys, Wish};
use self::fault::{Fault, Kind};
use self::fleet::{Fleet, answer_of};
use self::guest::{LIMIT, until};
use self::ill::Ill;
use self::net::Host;
use self::oracle::Evidence;
use self::schedule::{Schedule, Size};
use self::watch::{Load, Notes, Watch, lock, say};
use crate::load::{Driven, Plan};
use crate::sandbox;

/// How long the fleet may take until it runs what is wanted, once nothing is broken any more: members try again what they have
/// refused after a minute, and count as gone after one.
const MENDED_IN: Duration = Duration::from_secs(240);
/// How long the load goes on when everybody runs the last release, which then alone may answer.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// How often it is told how far it is.
const TELL: Duration = Duration::from_secs(15);
/// How long each wait of the loop that breaks things is at the most.
const GLANCE: Duration = Duration::from_millis(100);

/// Where the programs are that take part.
#[derive(Debug, Clone)]
pub struct Places {
    /// baton.
    pub baton: PathBuf,
    /// baton-boot.
    pub boot: PathBuf,
    /// baton-web, which is what is deployed.
    pub web: PathBuf,
    /// The Python that has moto.
    pub python: PathBuf,
    /// The script that serves it.
    pub moto_script: PathBuf,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// From which its chances were drawn.
    pub seed: u64,
    /// How long things were broken.
    pub over: Millis,
    /// How large the fleet was.
    pub size: Size,
    /// How often each sort of fault was made.
    pub faults: BTreeMap<Kind, usize>,
    /// What became of each deploy that was wanted.
    pub wishes: Vec<(Option<Ill>, Wish)>,
    /// All that was seen, judged.
    pub evidence: Evidence,
    /// All that was seen, as it was noted.
    notes: Notes,
    /// How long it took from the last fault mended until everybody ran one release, and then until everybody ran the last one.
    pub mended: [Duration; 2],
    /// How long members that were killed took to serve again.
    pub returns: Vec<Duration>,
    /// How often a server was started again that had ended since its state store was not there.
    pub revived: usize,
}

/// What was broken.
struct Broken {
    faults: BTreeMap<Kind, usize>,
    returns: Vec<Duration>,
    revived: usize,
}

impl Outcome {
    /// What must be told of it.
    pub fn record(&self) -> String {
        record::text(self)
    }
}

/// Runs it: inside of [`sandbox`], with everything that is written in this folder.
///
/// # Errors
/// If it cannot be run to its end. What Baton did wrong is told by the outcome.
pub fn run(places: &Places, folder: &Path, seed: u64, over: Millis, size: Size) -> anyhow::Result<Outcome> {
    ensure!(
        sandbox::is_entered(),
        "this breaks the network around it, and is to be run in namespaces of its own"
    );
    let schedule = Schedule::draw(seed, over, size);
    let mut fleet = Fleet::start(places, folder, size)?;
    let load: Load = Arc::default();
    let watch = Watch::start(folder, size, &load);
    let run = Run { folder, size, load, watch };
    let outcome = run.all(places, &mut fleet, &schedule, seed, over);
    if outcome.is_err() {
        for host in (0..size.servers).map(Host::Server).chain([Host::Member(0)]) {
            eprintln!("{host}, at last:\n{}", fleet.last_words(host, 20));
        }
    }
    outcome
}

struct Run<'a> {
    folder: &'a Path,
    size: Size,
    load: Load,
    watch: Watch,
}

impl Run<'_> {
    fn all(
        self,
        places: &Places,
        fleet: &mut Fleet,
        schedule: &Schedule,
        seed: u64,
        over: Millis,
    ) -> anyhow::Result<Outcome> {
        let (baton, web) = (places.baton.clone(), places.web.clone());
        let folder = self.folder.to_owned();
        let mut deploys = Deploys::new(self.size, baton, web, folder, self.load.clone());
        self.live(fleet)?;
        self.bring(&mut deploys).context("the first deploy")?;
        let targets = (0..self.size.members).map(|member| Fleet::address(member).parse());
        *lock(&self.load) = Some(Driven::start(plan(targets.collect::<Result<Vec<_>, _>>()?))?);

        let broken = self.break_things(fleet, &mut deploys, schedule, over)?;
        let start = Instant::now();
        fleet.redis.settled()?;
        self.live(fleet)?;
        self.settle().context("after the last fault")?;
        let settled = start.elapsed();
        self.bring(&mut deploys).context("the last deploy")?;
        let mended = [settled, start.elapsed()];
        let wanted = deploys.last_good().cloned().context("nothing was deployed")?;
        let members = 0..self.size.members;
        let name = |member| Host::Member(member).to_string();
        let answers = members.clone().map(|member| (name(member), answer_of(member))).collect();
        for member in members {
            say(&self.load, &format!("committed {} {wanted}", Fleet::address(member)))?;
        }
        std::thread::park_timeout(AFTERWARDS);
        let driven = lock(&self.load).take().context("there is no load")?;
        let report = driven.stop()?;
        ensure!(fleet.fallen_members().is_empty(), "a bootloader has ended: {:?}", fleet.fallen_members());
        ensure!(fleet.revive_servers()? == 0, "a server has ended, and nothing was broken");
        let notes = self.watch.stop()?;
        std::fs::write(self.folder.join("events"), notes.story())?;
        fleet.stop().context("everything is stopped")?;
        let evidence = Evidence {
            releases: std::mem::take(&mut deploys.releases),
            deploys: notes.deploys(),
            grants: notes.grants(),
            launches: notes.launches.clone(),
            commits: notes.commits.clone(),
            seen: notes.seen.clone(),
            report,
            wanted,
            answers,
            left: sandbox::others()?,
        };
        let Broken { faults, returns, revived } = broken;
        let (size, wishes) = (self.size, deploys.wishes);
        Ok(Outcome { seed, over, size, faults, wishes, evidence, notes, mended, returns, revived })
    }

    /// Breaks and mends what the schedule says, while deploys go on beside it.
    fn break_things(
        &self,
        fleet: &mut Fleet,
        deploys: &mut Deploys,
        schedule: &Schedule,
        over: Millis,
    ) -> anyhow::Result<Broken> {
        let begin = Instant::now();
        let goes_on = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let deploying =
                scope.spawn(|| deploys.run(begin, &schedule.deploys, || goes_on.load(Ordering::Relaxed)));
            let broken = self.follow(Breaking::of(fleet, self.load.clone()), schedule, begin, over);
            goes_on.store(false, Ordering::Relaxed);
            let deployed = deploying.join().map_err(|_| anyhow::anyhow!("the deploys have panicked"))?;
            deployed?;
            broken
        })
    }

    fn follow(
        &self,
        mut breaking: Breaking<'_>,
        schedule: &Schedule,
        begin: Instant,
        over: Millis,
    ) -> anyhow::Result<Broken> {
        let mut faults = BTreeMap::<Kind, usize>::new();
        let mut told = Instant::now();
        for (at, step, fault) in all_steps(schedule) {
            self.wait_until(begin, at, &mut breaking, &mut told)?;
            if matches!(step, Step::Begin | Step::Cut(0)) {
                *faults.entry(fault.kind()).or_default() += 1;
                eprintln!("{at}: {fault:?}");
            }
            breaking.act(fault, step)?;
        }
        self.wait_until(begin, over, &mut breaking, &mut told)?;
        Ok(Broken { faults, returns: breaking.returns, revived: breaking.revived })
    }

    fn wait_until(
        &self,
        begin: Instant,
        at: Millis,
        breaking: &mut Breaking<'_>,
        told: &mut Instant,
    ) -> anyhow::Result<()> {
        let at = begin + Duration::from_millis(at.0);
        while let Some(left) = at.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left.min(GLANCE));
            breaking.tend()?;
            if told.elapsed() >= TELL {
                *told = Instant::now();
                let notes = self.watch.notes();
                let newest = notes.deploys.values().max_by_key(|deploy| deploy.epoch);
                let newest = newest.map(|deploy| (deploy.epoch, &deploy.kind, deploy.switched));
                eprintln!(
                    "  {} launches, {} deploys, the newest {newest:?}",
                    notes.launches.len(),
                    notes.deploys.len()
                );
            }
        }
        Ok(())
    }

    /// Waits until every member is heard by every server.
    fn live(&self, fleet: &mut Fleet) -> anyhow::Result<()> {
        for server in Server::all(self.size.servers) {
            until("all members to be live", || {
                // One that cannot be started is missed here.
                let _ = fleet.revive_servers();
                let members = server.members().unwrap_or_default();
                members.iter().filter(|member| member.presence == "live").count() == self.size.members
            })?;
        }
        Ok(())
    }

    /// Waits until nothing is under way any more, and everybody runs what is in force.
    fn settle(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        let servers = Server::all(self.size.servers);
        loop {
            let status = servers.iter().find_map(|server| server.status().ok());
            if let Some(status) = &status
                && matches!(status.state.as_str(), "switched" | "drained")
                && status.counts.proven as usize == self.size.members
            {
                return Ok(());
            }
            if start.elapsed() > MENDED_IN {
                let members = servers[0].members().unwrap_or_default();
                bail!("it does not settle: {status:#?}\n{members:#?}");
            }
            std::thread::park_timeout(GLANCE);
        }
    }

    /// Deploys a good release, and waits until everybody runs it.
    fn bring(&self, deploys: &mut Deploys) -> anyhow::Result<()> {
        let wish = deploys.deploy(None, Instant::now() + LIMIT)?;
        ensure!(wish == Wish::Accepted, "{wish:?}");
        let release = deploys.last_good().cloned().context("nothing was deployed")?;
        let servers = Server::all(self.size.servers);
        let start = Instant::now();
        loop {
            let is_there = |server: &Server| {
                server.status().is_ok_and(|status| {
                    status.state == "drained" && status.deploy.is_some_and(|deploy| deploy.release == release)
                })
            };
            if servers.iter().all(is_there) {
                return Ok(());
            }
            if start.elapsed() > MENDED_IN {
                bail!("release {release} does not get everywhere: {:#?}", servers[0].status());
            }
            std::thread::park_timeout(GLANCE);
        }
    }
}

/// Every step of both lanes, in order.
fn all_steps(schedule: &Schedule) -> Vec<(Millis, Step, &Fault)> {
    let planned = schedule.of_control.iter().chain(&schedule.of_members);
    let mut all: Vec<_> = planned
        .flat_map(|planned| steps(planned).into_iter().map(move |(at, step)| (at, step, &planned.fault)))
        .collect();
    all.sort_by_key(|(at, ..)| *at);
    all
}

/// Clients of every kind, few enough for a machine on which thirty programs run beside them.
fn plan(targets: Vec<crate::load::Target>) -> Plan {
    Plan {
        new: 8,
        keep: targets.len(),
        http2: 3,
        grpc: 3,
        websocket: 3,
        rate: 5,
        idle_gap: Millis(5),
        slow_share: Share::from_percent(10),
        slow: Millis(300),
        timeout: Millis::from_secs(30),
        ..Plan::on(targets)
    }
}
