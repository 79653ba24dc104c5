//! Docker Swarm's rolling update beside `baton deploy`: the same program in as many containers of one engine, under load.

mod baton;
mod image;
mod service;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use baton_core::units::Millis;

use self::service::Way;
use super::goal::Goal;
use super::sample::Sample;
use crate::docker::Engine;
use crate::load::{Driven, Plan, Report, Target};
use crate::sandbox;

/// How often each is measured, Swarm's default once: that takes minutes.
const RUNS: usize = 5;
/// How often Swarm at its best.
const SWARM_RUNS: usize = 3;
/// How long anything may take: the default settings take seconds for each container.
const LIMIT: Duration = Duration::from_secs(900);
/// What 60 containers may take, from the one write to *switched*, in ms.
const GOAL_MS: f64 = 250.0;

/// Where the programs are that take part.
#[derive(Debug, Clone)]
pub struct Places {
    /// baton.
    pub baton: PathBuf,
    /// baton-boot.
    pub boot: PathBuf,
    /// baton-web, which is what is updated.
    pub web: PathBuf,
}

/// One way to update, with so many containers.
#[derive(Debug)]
pub struct Row {
    name: String,
    containers: usize,
    /// From the write to the end, in ms.
    took: Sample,
    /// The requests made meanwhile, for each update; none where no client can reach the containers.
    reports: Vec<Report>,
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Figures(Vec<Row>);

impl Figures {
    /// As a table.
    pub fn table(&self) -> String {
        let mut text =
            "| updated by | containers | ms | requests meanwhile | lost |\n| --- | --- | --- | --- | --- |\n"
                .to_owned();
        for Row { name, containers, took, reports } in &self.0 {
            let sum = |count: fn(&Report) -> u64| match reports.len() {
                0 => "-".to_owned(),
                _ => reports.iter().map(count).sum::<u64>().to_string(),
            };
            let (sent, lost) = (sum(|report| report.sent), sum(|report| report.lost));
            text += &format!("| {name} | {containers} | {took} | {sent} | {lost} |\n");
        }
        if self.0.iter().any(|row| row.reports.is_empty()) {
            text += "\n-: no client can reach them: one port for several containers needs IPVS, which this kernel lacks.\n";
        }
        text
    }

    /// What is to be reached.
    pub fn goals(&self) -> Vec<Goal> {
        let most = self.0.iter().filter(|row| row.name == baton::NAME).max_by_key(|row| row.containers);
        let of = |row: &Row| {
            let what = format!("`baton deploy` to {} containers", row.containers);
            let lost: u64 = row.reports.iter().map(|report| report.lost).sum();
            [
                Goal::at_most(what.clone(), GOAL_MS, " ms", row.took.median()),
                Goal::at_most(format!("{what}: requests lost"), 0.0, "", lost as f64),
            ]
        };
        most.map_or_else(Vec::new, |row| of(row).into())
    }
}

/// Something that runs in containers and is updated.
trait Updated {
    /// Where its clients find it; nowhere if they cannot.
    fn targets(&self) -> Vec<Target>;
    /// Brings the next version to all of them; returns how long that took from the write on.
    fn update(&mut self) -> anyhow::Result<Duration>;
}

/// Measures all ways with so many containers each.
///
/// # Errors
/// When anything does not work; lost requests are told by the figures.
pub fn measure(places: &Places, folder: &Path, sizes: &[usize]) -> anyhow::Result<Figures> {
    ensure!(sandbox::is_entered(), "an engine is to be started in namespaces of its own");
    let engine = Engine::start()?;
    image::make(&engine, places, folder)?;
    engine.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"])?;
    let mut figures = Figures::default();
    for &containers in sizes {
        let mut baton =
            baton::Members::start(&engine, places, &folder.join(format!("{containers}")), containers)?;
        figures.0.push(row(baton::NAME, containers, RUNS, &mut baton)?);
        drop(baton);
        for way in Way::ALL {
            let runs = if way == Way::Default { 1 } else { SWARM_RUNS };
            let mut service = service::Service::start(&engine, way, containers)?;
            figures.0.push(row(way.name(), containers, runs, &mut service)?);
        }
    }
    Ok(figures)
}

fn row(name: &str, containers: usize, runs: usize, updated: &mut dyn Updated) -> anyhow::Result<Row> {
    let (mut took, mut reports) = (Sample::default(), Vec::new());
    for _ in 0..runs {
        let load = load(updated.targets())?;
        let time = updated.update();
        reports.extend(load.map(Driven::stop).transpose()?);
        took.add(time?.as_secs_f64() * 1000.0);
        eprintln!("{name}, {containers} containers: {took}");
    }
    Ok(Row { name: name.to_owned(), containers, took, reports })
}

/// Few enough requests to leave the machine to what is measured.
fn load(targets: Vec<Target>) -> anyhow::Result<Option<Driven>> {
    if targets.is_empty() {
        return Ok(None);
    }
    let plan = Plan { new: 4, keep: 4, rate: 20, timeout: Millis::from_secs(20), ..Plan::on(targets) };
    Driven::start(plan).map(Some)
}

/// Waits until a condition holds.
fn until(
    what: &str,
    every: Duration,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    while !condition()? {
        ensure!(start.elapsed() < LIMIT, "gave up waiting for {what}");
        std::thread::park_timeout(every);
    }
    Ok(())
}
