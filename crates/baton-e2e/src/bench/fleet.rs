//! Thousands of members with real sessions at real servers: how fast all of them hear of a deploy, how long it takes to
//! *switched*, what that costs control, and how they come back.

pub mod growth;
pub mod light;
pub mod operator;
pub mod redis;
pub mod report;
pub mod servers;
mod wait;
mod way;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use baton_core::deploy::{Phase, PhaseSize, Policy};
use baton_core::forecast::forecast;
use baton_core::rollout;
use baton_core::units::{Millis, Share};
use baton_wire::api::PolicyView;
use hdrhistogram::Histogram;
use tokio::runtime::Runtime;

use self::light::Lights;
use self::operator::Operator;
use self::redis::{Redis, Subscribers};
use self::servers::Servers;
use self::wait::until;
use super::goal::Goal;
use super::moments;
use super::sample::Sample;

/// How often each deploy is made, and each notice given.
const TURNS: usize = 5;
/// For how long the processor time of the servers is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// How long the servers are away: long enough for every member to notice, and to try in vain.
const AWAY: Duration = Duration::from_secs(2);
/// How often an operator asks meanwhile.
const ASKS_EVERY: Duration = Duration::from_millis(20);
/// Reports a second, where what one costs is measured.
const REPORTS_A_SECOND: u32 = 1000;
/// What each goal of the project is: one fleet of this size.
pub const MEMBERS: usize = 4000;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// How many members.
    pub members: usize,
    /// How many servers: one with its own file, or several over a Redis.
    pub servers: usize,
    /// Whether they ask who is there, over TLS.
    pub closed: bool,
}

/// The figures of one fleet.
#[derive(Debug)]
pub struct Figures {
    setup: Setup,
    /// From the proposal until the last member has heard of the deploy, ms.
    notice: Sample,
    /// From a PUBLISH until the last subscriber has heard, ms.
    publish: Sample,
    ratio: Sample,
    deploys: Vec<Deploys>,
    /// Of one core, in percent.
    cpu: Cpu,
    /// What a report costs the servers beyond the heartbeats, µs of a processor.
    report_us: f64,
    peak_mib: f64,
    /// From the start of the servers until the last member is back, s.
    back: f64,
    /// While they come back: answers to an operator, ms.
    status_p99: f64,
    status_most: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cpu {
    idle: f64,
    heartbeats: f64,
    rollout: f64,
}

/// Deploys by one policy.
#[derive(Debug)]
struct Deploys {
    name: &'static str,
    /// To *switched*, s.
    took: Sample,
    /// What of that is bakes.
    bakes: f64,
}

/// Measures one fleet. Everything that is written is in `folder`.
///
/// # Errors
/// When something does not come about.
pub fn measure(baton: &Path, folder: &Path, setup: Setup) -> anyhow::Result<Figures> {
    let runtime = Runtime::new()?;
    let _inside = runtime.enter();
    let redis = Redis::start(folder)?;
    let state = (setup.servers > 1).then(|| redis.url());
    let mut servers = match setup.closed {
        true => Servers::start_closed(baton, folder.join("server"))?,
        false => Servers::start(baton, folder, setup.servers, state)?,
    };
    let releases = releases(&servers, folder)?;
    let idle = watch(&servers)?;
    let lights = Lights::start(&servers.addresses(), servers.admit(setup.members)?);
    until("the members are there", || Ok(lights.open() == setup.members))?;

    let mut rollouts = Rollouts { servers: &servers, lights: &lights, releases, next: 0, cpu: (0.0, 0.0) };
    let mut deploys = Vec::new();
    let at_once = Policy { phases: vec![phase(100, 0)], ..Policy::fast().at_once() };
    let quarters = Policy { phases: vec![phase(25, 0)], ..Policy::fast() };
    // The first puts a release on members that run nothing yet.
    rollouts.deploy(&at_once)?;
    let mut subscribers = Subscribers::start(&redis, setup.members)?;
    let (mut notice, mut publish, mut ratio) = (Sample::default(), Sample::default(), Sample::default());
    let mut took = Sample::default();
    for _ in 0..TURNS {
        let published = subscribers.publish()?;
        let deployed = rollouts.deploy(&at_once)?;
        publish.add(published);
        notice.add(deployed.notice_ms);
        ratio.add(deployed.notice_ms / published);
        took.add(deployed.switched_s);
    }
    drop(subscribers);
    deploys.push(Deploys { name: "one wave (`--all-at-once`), bake 0", took, bakes: 0.0 });
    for (name, policy, turns) in [
        ("25 % at a time, bake 0", quarters, TURNS),
        ("`fast`", Policy::fast(), 1),
        ("`safe`", Policy::safe(), 1),
    ] {
        let mut took = Sample::default();
        for _ in 0..turns {
            took.add(rollouts.deploy(&policy)?.switched_s);
        }
        deploys.push(Deploys { name, took, bakes: bakes(&policy, setup.members) });
    }
    let (busy, lasted) = rollouts.cpu;
    let heartbeats = watch(&servers)?;
    let report_us = reports(&servers, &lights, setup, heartbeats)?;
    let peak = servers.peak_mib()?;
    let Back { seconds, status } = come_back(&mut servers, &lights, setup)?;
    Ok(Figures {
        setup,
        notice,
        publish,
        ratio,
        deploys,
        cpu: Cpu { idle, heartbeats, rollout: 100.0 * busy / lasted },
        report_us,
        peak_mib: peak.max(servers.peak_mib()?),
        back: seconds,
        status_p99: status.value_at_quantile(0.99) as f64 / 1000.0,
        status_most: status.max() as f64 / 1000.0,
    })
}

/// Two releases, which take each other's place.
fn releases(servers: &Servers, folder: &Path) -> anyhow::Result<[String; 2]> {
    let project = folder.join("project");
    std::fs::create_dir(&project)?;
    let settings = format!("service = \"{}\"\n\n[run]\ncommand = [\"true\"]\n", light::SERVICE);
    std::fs::write(project.join("baton.toml"), settings)?;
    let push = |version: &str| {
        std::fs::write(project.join("VERSION"), version)?;
        servers.push(&project)
    };
    Ok([push("1")?, push("2")?])
}

fn phase(percent: u32, bake: u64) -> Phase {
    Phase { size: PhaseSize::Share(Share::from_percent(percent)), bake: Millis(bake) }
}

/// The seconds that a rollout bakes, were everything else done at once.
fn bakes(policy: &Policy, members: usize) -> f64 {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    let slots = |phase: &Phase| (rollout::slots(phase.size, policy.max_unhealthy, members), phase.bake);
    let phases: Vec<_> = policy.phases.iter().map(slots).collect();
    forecast(&phases, members, Millis::ZERO).map_or(f64::NAN, |bakes| bakes.0 as f64 / 1000.0)
}

/// Deploys, one after the other.
struct Rollouts<'a> {
    servers: &'a Servers,
    lights: &'a Lights,
    releases: [String; 2],
    next: usize,
    /// Processor time and time of all so far, in seconds.
    cpu: (f64, f64),
}

struct Deployed {
    notice_ms: f64,
    switched_s: f64,
}

impl Rollouts<'_> {
    /// Deploys the other release, and waits until it is switched.
    fn deploy(&mut self, policy: &Policy) -> anyhow::Result<Deployed> {
        let (release, policy) = (&self.releases[self.next % self.releases.len()], PolicyView::of(policy));
        self.next += 1;
        let mut operator = self.servers.operator();
        let members = operator.status(None).map_or(0, |status| status.counts.live);
        let (cpu, begun) = (self.servers.cpu_seconds()?, moments::now());
        let deploy = operator.deploy(release, &policy)?;
        wait_for_switched(&mut operator, &deploy.id)?;
        let switched_s = moments::ms_between(begun, moments::now()) / 1000.0;
        self.cpu.0 += self.servers.cpu_seconds()? - cpu;
        self.cpu.1 += switched_s;
        let id = deploy.id.parse()?;
        let (heard, last) = self.lights.heard(id);
        anyhow::ensure!(heard >= members as usize, "{heard} of {members} members have heard of {id}");
        Ok(Deployed { notice_ms: moments::ms_between(begun, last), switched_s })
    }
}

fn wait_for_switched(operator: &mut Operator, deploy: &str) -> anyhow::Result<()> {
    let mut after = None;
    until("the deploy is switched", || {
        let status = operator.status(after)?;
        after = Some(status.version);
        let ours = status.deploy.is_some_and(|view| view.id == deploy && view.switched);
        Ok(ours)
    })
}

/// The share of a core that the servers take up, in percent.
fn watch(servers: &Servers) -> anyhow::Result<f64> {
    let before = servers.cpu_seconds()?;
    std::thread::park_timeout(WATCHED);
    Ok(100.0 * (servers.cpu_seconds()? - before) / WATCHED.as_secs_f64())
}

/// What a report costs beyond the heartbeats, in µs.
fn reports(servers: &Servers, lights: &Lights, setup: Setup, heartbeats: f64) -> anyhow::Result<f64> {
    let members = u32::try_from(setup.members).context("too many members")?;
    lights.repeat(Some(Duration::from_secs(1) * members / REPORTS_A_SECOND));
    let (sent, begun) = (lights.reports(), Instant::now());
    let share = watch(servers)?;
    let (sent, lasted) = (lights.reports() - sent, begun.elapsed());
    lights.repeat(None);
    Ok((share - heartbeats) / 100.0 * lasted.as_secs_f64() / sent as f64 * 1e6)
}

struct Back {
    seconds: f64,
    /// In µs.
    status: Histogram<u64>,
}

/// Kills the servers and starts them again, and has an operator ask while the members come back.
fn come_back(servers: &mut Servers, lights: &Lights, setup: Setup) -> anyhow::Result<Back> {
    servers.kill()?;
    std::thread::park_timeout(AWAY);
    until("the members notice", || Ok(lights.open() == 0))?;
    let (operator, done) = (servers.operator(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| ask(operator, &done));
        let begun = Instant::now();
        let mut back = || {
            servers.begin()?;
            until("the members are back", || Ok(servers.sessions().is_ok_and(|open| open == setup.members)))
        };
        let back = back();
        let seconds = begun.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        let status = asks.join().map_err(|_| anyhow::anyhow!("the operator has failed"))??;
        back.map(|()| Back { seconds, status })
    })
}

/// Asks how the service stands again and again, from the first answer on.
fn ask(mut operator: Operator, done: &AtomicBool) -> anyhow::Result<Histogram<u64>> {
    let mut took = Histogram::new(3)?;
    let (mut answered, mut begun) = (false, Instant::now());
    while !done.load(Ordering::Relaxed) {
        match operator.status(None) {
            Ok(_) => {
                answered = true;
                took.record(u64::try_from(begun.elapsed().as_micros())?)?;
                std::thread::park_timeout(ASKS_EVERY);
                begun = Instant::now();
            }
            // Who is turned away among thousands that come from the same address asks again, and all of it counts.
            Err(_) if answered => std::thread::park_timeout(ASKS_EVERY),
            Err(_) => {
                std::thread::park_timeout(ASKS_EVERY);
                begun = Instant::now();
            }
        }
    }
    Ok(took)
}

impl Figures {
    /// As a table.
    pub fn table(&self) -> String {
        let members = self.setup.members;
        let Self { notice, publish, ratio, cpu, report_us, peak_mib, back, status_p99, status_most, .. } =
            self;
        let store = match self.setup {
            Setup { closed: true, .. } => "1 server, a file, TLS",
            Setup { servers: 1, .. } => "1 server, a file",
            Setup { .. } => "3 servers over Redis",
        };
        let mut text = format!("| {members} members, {store} | |\n| --- | --- |\n");
        let mut line = |what: &str, figure: String| text.push_str(&format!("| {what} | {figure} |\n"));
        line("from the proposal to the last member that has heard of the deploy, ms", notice.to_string());
        line("from a PUBLISH of Redis to the last subscriber, ms", publish.to_string());
        line("the one beside the other, pairs", ratio.to_string());
        for Deploys { name, took, bakes } in &self.deploys {
            line(&format!("deploy to *switched*, {name}, s"), took.to_string());
            if *bakes > 0.0 {
                line(
                    "beyond the bakes, s",
                    format!("{:.2} (of {bakes:.0} s of bakes)", took.median() - bakes),
                );
            }
        }
        line("servers without members, % of a core", format!("{:.2}", cpu.idle));
        line(&format!("{members} heartbeats a second, % of a core"), format!("{:.2}", cpu.heartbeats));
        line("during the rollouts, % of a core", format!("{:.2}", cpu.rollout));
        line("a report, µs of a processor", format!("{report_us:.1}"));
        line("most memory of a server, MiB", format!("{peak_mib:.0}"));
        line("servers killed and started: the last member is back after, s", format!("{back:.2}"));
        line("`status` meanwhile, p99 and most, ms", format!("{status_p99:.1}, {status_most:.1}"));
        text
    }

    /// The goals that it can be held against.
    pub fn goals(&self) -> Vec<Goal> {
        let (store, limit) = match self.setup {
            Setup { closed: true, .. } => ("TLS", 1.0),
            Setup { servers: 1, .. } => ("a file", 1.0),
            Setup { .. } => ("Redis", 1.25),
        };
        let of = |what: &str| format!("{what}, {store}");
        let took = |name: &str| {
            let found = self.deploys.iter().find(|deploys| deploys.name.contains(name));
            found.map_or(f64::NAN, |deploys| deploys.took.median())
        };
        vec![
            Goal::at_most(of("notice to the last member, beside a PUBLISH"), limit, "", self.ratio.median()),
            Goal::at_most(of("four phases of 25 %, bake 0, to *switched*"), 3.0, " s", took("25 %")),
            Goal::at_most(
                of("a heartbeat of each member a second"),
                5.0,
                " % of a core",
                self.cpu.heartbeats,
            ),
            Goal::at_most(of("memory of a server"), 512.0, " MiB", self.peak_mib),
            Goal::at_most(of("all members back"), 15.0, " s", self.back),
            Goal::at_most(of("`status` meanwhile, p99"), 1000.0, " ms", self.status_p99),
        ]
    }
}
