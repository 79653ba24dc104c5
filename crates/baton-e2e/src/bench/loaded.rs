//! How long answers take under load: during handovers beside between them, and through a proxy beside without.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use baton_core::units::Millis;
use baton_sys::process;

use super::goal::Goal;
use super::sample::Sample;
use crate::load::{Driven, Phase, Plan, Report};
use crate::member::{Member, Settings};
use crate::ports::free_address;
use crate::process::cpu_seconds;

/// How many turns there are of each; each has its own median and 99th percentile.
const TURNS: usize = 7;
/// How many handovers a turn has, and how long it rests after each: long enough for as many requests as during one.
const HANDOVERS: u32 = 30;
const REST: Duration = Duration::from_millis(150);
/// How long a turn of the other kind takes.
const TURN: Duration = Duration::from_secs(3);
/// How long a start may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How many programs take all cores.
const BUSY: usize = 2;

/// Programs that need all the time that they get. They end with the value.
struct Busy(Vec<Child>);

impl Busy {
    fn begin(bench: &Path) -> anyhow::Result<Self> {
        let mut busy = Self(Vec::new());
        for _ in 0..BUSY {
            let child = Command::new(bench).arg("spin").stdin(Stdio::null()).spawn();
            busy.0.push(child.context("cannot start what keeps a core busy")?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where it is measured.
#[derive(Debug)]
pub struct Places {
    /// baton-boot.
    pub boot: PathBuf,
    /// baton-web.
    pub web: PathBuf,
    /// baton-bench.
    pub bench: PathBuf,
}

/// p99 during something and between, in ms.
#[derive(Debug, Default)]
struct Moments {
    during: Sample,
    between: Sample,
    ratio: Sample,
}

/// p99 around handovers, and around mere starts of the program beside them.
#[derive(Debug, Default)]
struct Handovers {
    handovers: Moments,
    starts: Moments,
    /// p99 during handovers beside that during starts, turn by turn.
    beyond: Sample,
}

/// What a way to reach the program does.
#[derive(Debug, Default)]
struct Throughput {
    a_second: Sample,
    p99_ms: Sample,
    /// CPU time for one request, in µs: of the program, and of the bootloader where there is one.
    cpu_us: Sample,
    /// Beside the program alone, pair by pair.
    a_second_ratio: Sample,
    p99_ratio: Sample,
}

/// The figures.
#[derive(Debug, Default)]
pub struct Loaded {
    quiet: Handovers,
    busy: Handovers,
    /// By the clients' habit and the way.
    throughput: Vec<(&'static str, &'static str, Throughput)>,
}

/// Measures all.
///
/// # Errors
/// If a request is lost.
pub fn measure(places: &Places, folder: &Path) -> anyhow::Result<Loaded> {
    let mut loaded = Loaded::default();
    for _ in 0..TURNS {
        handovers(places, folder, &mut loaded.quiet)?;
        let _busy = Busy::begin(&places.bench)?;
        handovers(places, folder, &mut loaded.busy)?;
    }
    for habit in ["kept", "new"] {
        let mut all = ["alone", "auto", "proxy"].map(|way| (habit, way, Throughput::default()));
        for _ in 0..TURNS {
            let mut alone = None;
            for (_, way, throughput) in &mut all {
                let (report, cpu_seconds) = turn(places, folder, habit, way)?;
                let (a_second, p99) = (a_second(&report), p99_ms(&report, Phase::Between));
                throughput.cpu_us.add(cpu_seconds * 1e6 / report.answered as f64);
                throughput.a_second.add(a_second);
                throughput.p99_ms.add(p99);
                let (of_alone, p99_of_alone) = *alone.get_or_insert((a_second, p99));
                throughput.a_second_ratio.add(a_second / of_alone);
                throughput.p99_ratio.add(p99 / p99_of_alone);
            }
        }
        loaded.throughput.extend(all);
    }
    Ok(loaded)
}

fn p99_ms(report: &Report, phase: Phase) -> f64 {
    report.latency(phase).p99_us as f64 / 1000.0
}

fn a_second(report: &Report) -> f64 {
    let ms = report.ended_ms.saturating_sub(report.started_ms).max(1);
    report.answered as f64 * 1000.0 / ms as f64
}

/// One turn of handovers under a load that leaves the machine time; and one of starts of the same program that nobody
/// is handed over to, each for as long as a handover took.
fn handovers(places: &Places, folder: &Path, figures: &mut Handovers) -> anyhow::Result<()> {
    let address = free_address();
    Settings { web: places.web.clone(), address, handover: "auto", bake: "1ms" }.write(folder)?;
    let mut member = Member::start(&places.boot, folder, &[])?;
    member.proven()?;
    let mut took = Duration::ZERO;
    let handovers = moments(address, || {
        let start = Instant::now();
        let before = member.generation();
        member.order()?;
        member.wait_for(&format!("generation {before} is gone"))?;
        took += start.elapsed() / HANDOVERS;
        Ok(())
    })?;
    let starts = moments(address, || {
        let start = Instant::now();
        let _alone = Alone::start(&places.web, free_address())?;
        std::thread::park_timeout(took.saturating_sub(start.elapsed()));
        Ok(())
    })?;
    member.stop()?;
    figures.beyond.add(p99_ms(&handovers, Phase::During) / p99_ms(&starts, Phase::During));
    figures.handovers.add(&handovers);
    figures.starts.add(&starts);
    Ok(())
}

/// Does something again and again under load, with rests in between.
fn moments(address: SocketAddr, mut act: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Report> {
    let load = Driven::start(Plan {
        new: 4,
        keep: 4,
        rate: 100,
        timeout: Millis::from_secs(20),
        ..Plan::on(vec![address.to_string().parse()?])
    })?;
    for _ in 0..HANDOVERS {
        std::thread::park_timeout(REST);
        load.say("handover begin")?;
        act()?;
        load.say("handover end")?;
    }
    let report = load.stop()?;
    ensure!(report.is_clean(), "requests were lost: {report:#?}");
    Ok(report)
}

impl Moments {
    fn add(&mut self, report: &Report) {
        let (during, between) = (p99_ms(report, Phase::During), p99_ms(report, Phase::Between));
        self.during.add(during);
        self.between.add(between);
        self.ratio.add(during / between);
    }
}

/// One turn of as much load as there can be; with the CPU time that it took.
fn turn(places: &Places, folder: &Path, habit: &str, way: &'static str) -> anyhow::Result<(Report, f64)> {
    let address = free_address();
    let (_alone, member, pids);
    if way == "alone" {
        let alone = Alone::start(&places.web, address)?;
        (pids, member) = (vec![alone.0.id()], None);
        _alone = Some(alone);
    } else {
        Settings { web: places.web.clone(), address, handover: way, bake: "1ms" }.write(folder)?;
        let mut started = Member::start(&places.boot, folder, &[])?;
        started.proven()?;
        _alone = None;
        pids = with_children(started.pid())?;
        member = Some(started);
    }
    let cpu = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<anyhow::Result<f64>>();
    let before = cpu()?;
    let (new, keep) = if habit == "new" { (8, 0) } else { (0, 8) };
    let duration = u64::try_from(TURN.as_millis()).map(Millis)?;
    let load = Driven::start(Plan {
        new,
        keep,
        rate: 0,
        duration: Some(duration),
        ..Plan::on(vec![address.to_string().parse()?])
    })?;
    let report = load.end()?;
    let spent = cpu()? - before;
    member.map(Member::stop).transpose()?;
    ensure!(report.is_clean(), "requests were lost: {report:#?}");
    Ok((report, spent))
}

/// A process and those that it started.
fn with_children(parent: u32) -> anyhow::Result<Vec<u32>> {
    let mut pids = vec![parent];
    let children = process::all()?.into_iter().filter(|one| u32::try_from(one.parent) == Ok(parent));
    for child in children {
        pids.push(u32::try_from(child.pid)?);
    }
    Ok(pids)
}

/// The program without a bootloader. It ends with the value.
struct Alone(Child);

impl Alone {
    fn start(web: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        // In a session of its own, as under the bootloader: the scheduler treats sessions as equals.
        let mut command = Command::new("setsid");
        command.arg(web).env("PORT", address.port().to_string()).stdin(Stdio::null());
        let alone = Self(command.spawn().context("cannot start baton-web")?);
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            std::thread::park_timeout(Duration::from_millis(1));
            ensure!(start.elapsed() < LIMIT, "baton-web does not listen");
        }
        Ok(alone)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Loaded {
    /// What is to be reached.
    pub fn goals(&self) -> Vec<Goal> {
        let steady = "p99 during a handover beside steady";
        let mere = "p99 during a handover beside a mere start of the program, quiet";
        vec![
            Goal::at_most(format!("{steady}, quiet"), 1.05, "", self.quiet.handovers.ratio.median()),
            Goal::at_most(mere, 1.05, "", self.quiet.beyond.median()),
            Goal::at_most(
                format!("{steady}, both cores taken"),
                1.25,
                "",
                self.busy.handovers.ratio.median(),
            ),
        ]
    }

    /// The figures as lines of tables.
    pub fn table(&self) -> String {
        let mut text = "| machine | during | p99 between, ms | p99 during, ms | during / between, turns |\n\
                        | --- | --- | --- | --- | --- |\n"
            .to_owned();
        for (machine, figures) in [("quiet", &self.quiet), ("both cores taken", &self.busy)] {
            for (what, moments) in [("a handover", &figures.handovers), ("a mere start", &figures.starts)] {
                let Moments { during, between, ratio } = moments;
                text.push_str(&format!("| {machine} | {what} | {between} | {during} | {ratio} |\n"));
            }
            text.push_str(&format!(
                "| {machine} | a handover beside a mere start | | | {} |\n",
                figures.beyond
            ));
        }
        text.push_str(
            "\n| connections | way | requests a second | beside alone, pairs | p99, ms | beside alone, pairs \
             | CPU a request, µs |\n| --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for (habit, way, figures) in &self.throughput {
            let Throughput { a_second, p99_ms, cpu_us, a_second_ratio, p99_ratio } = figures;
            text.push_str(&format!(
                "| {habit} | {way} | {a_second} | {a_second_ratio} | {p99_ms} | {p99_ratio} | {cpu_us} |\n"
            ));
        }
        text
    }
}
