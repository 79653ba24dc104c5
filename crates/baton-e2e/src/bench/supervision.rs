//! What it costs a program to be run by something: its start, its signals, its relaunch, and memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::goal::Goal;
use super::moments::{self, Moments, ms_between, now};
use super::sample::Sample;
use super::supervised::{By, Places, STOP_LIMIT_MS, Supervised};
use crate::process::Footprint;

/// How often a program is started, and signalled; of those that take seconds for it, [`SLOW_TURNS`] times.
const TURNS: usize = 100;
const SLOW_TURNS: usize = 5;
/// How often a program crashes for the first time.
const CRASHES: usize = 10;
/// How often one takes no notice of a stop.
const DEAF_TURNS: usize = 10;
/// How old a program is when it crashes: supervisord counts a start as one after a second, s6-supervise waits until
/// a second has passed since the start before.
const AGE: Duration = Duration::from_millis(2_500);

/// How much later than the limit a stop ends at the latest, as promised.
const STOP_BEYOND_MS: f64 = 1000.0;

/// What one of them costs.
#[derive(Debug)]
struct Cost {
    by: By,
    /// From the start of the supervisor to the first instruction of the program.
    start_ms: Sample,
    /// From the start to the exit code of `true`, for those that end with their program.
    whole_ms: Sample,
    /// From the signal to its arrival in the program.
    signal_ms: Sample,
    /// From the crash to the first instruction of the next program.
    relaunch_ms: Sample,
    /// From SIGTERM to its end, with a program that ends at once.
    stop_ms: Sample,
    /// The same with a program that takes no notice, which is killed after [`STOP_LIMIT_MS`].
    deaf_ms: Sample,
    idle: Option<Footprint>,
}

/// The costs of all.
#[derive(Debug)]
pub struct Supervision(Vec<Cost>);

/// Where it is measured.
struct Bench<'a> {
    places: &'a Places,
    moments: Moments,
    program: Vec<String>,
    folder: PathBuf,
}

/// Measures all, in turns. `bench` is this program, which is what they run; files are written to `folder`.
///
/// # Errors
/// If one of them does not do its work.
pub fn measure(places: &Places, bench: &Path, folder: &Path) -> anyhow::Result<Supervision> {
    let moments = Moments::new(folder)?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is not a text");
    let program = vec![text(bench)?, "tell".to_owned(), text(moments.path())?];
    let mut bench = Bench { places, moments, program, folder: folder.to_owned() };
    let all = [&By::INITS[..], &By::SUPERVISORS].concat();
    let new = |by: By| Cost {
        by,
        start_ms: Sample::default(),
        whole_ms: Sample::default(),
        signal_ms: Sample::default(),
        relaunch_ms: Sample::default(),
        stop_ms: Sample::default(),
        deaf_ms: Sample::default(),
        idle: None,
    };
    let mut costs: Vec<Cost> = all.into_iter().map(new).collect();
    for turn in 0..TURNS {
        for cost in costs.iter_mut().filter(|cost| !cost.by.is_slow() || turn < SLOW_TURNS) {
            bench.start(cost)?;
            if By::INITS.contains(&cost.by) {
                bench.whole(cost)?;
            }
        }
    }
    bench.signals(&mut costs)?;
    for _ in 0..CRASHES {
        bench.crash(&mut costs)?;
    }
    bench.program.push(moments::DEAF.to_owned());
    for _ in 0..DEAF_TURNS {
        for cost in costs.iter_mut().filter(|cost| By::SUPERVISORS.contains(&cost.by)) {
            bench.deaf(cost)?;
        }
    }
    Ok(Supervision(costs))
}

impl Bench<'_> {
    fn run(&self, by: By) -> anyhow::Result<Supervised> {
        let folder = self.folder.join(format!("{by:?}"));
        std::fs::create_dir_all(&folder)?;
        Supervised::start(by, self.places, &folder, &self.program)
    }

    fn start(&mut self, cost: &mut Cost) -> anyhow::Result<()> {
        let start = now();
        let running = self.run(cost.by)?;
        cost.start_ms.add(ms_between(start, self.moments.wait_for("started")?.at));
        let asked = now();
        running.stop()?;
        cost.stop_ms.add(ms_between(asked, now()));
        Ok(())
    }

    fn deaf(&mut self, cost: &mut Cost) -> anyhow::Result<()> {
        let running = self.run(cost.by)?;
        self.moments.wait_for("started")?;
        // By then each has seen that it runs, and none takes the stop for one of a start that failed.
        std::thread::park_timeout(AGE);
        let asked = now();
        running.stop()?;
        cost.deaf_ms.add(ms_between(asked, now()));
        Ok(())
    }

    fn whole(&self, cost: &mut Cost) -> anyhow::Result<()> {
        let mut command = match cost.by {
            By::BatonBoot => Command::new(&self.places.boot),
            By::Tini => Command::new("tini"),
            By::DumbInit => Command::new("dumb-init"),
            By::Nobody | By::BatonBootSettings | By::S6 | By::Supervisord | By::Pm2 => Command::new("true"),
        };
        if cost.by != By::Nobody {
            command.args(["--", "true"]);
        }
        let start = now();
        let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status()?;
        cost.whole_ms.add(ms_between(start, now()));
        ensure!(status.success(), "{} did not pass the exit code on", cost.by.name());
        Ok(())
    }

    fn signals(&mut self, costs: &mut [Cost]) -> anyhow::Result<()> {
        for cost in costs {
            let running = self.run(cost.by)?;
            self.moments.wait_for("started")?;
            // What has to be set up after the start, such as a control socket, is there when it has aged.
            std::thread::park_timeout(AGE);
            for _ in 0..if cost.by.is_slow() { SLOW_TURNS } else { TURNS } {
                let start = now();
                running.signal()?;
                cost.signal_ms.add(ms_between(start, self.moments.wait_for("signal")?.at));
            }
            if cost.by != By::Nobody {
                cost.idle = Some(Footprint::of(running.pid())?);
            }
            running.stop()?;
        }
        Ok(())
    }

    /// One crash under each that launches again, all of the same age.
    fn crash(&mut self, costs: &mut [Cost]) -> anyhow::Result<()> {
        let mut running = Vec::new();
        for cost in costs.iter_mut().filter(|cost| By::SUPERVISORS.contains(&cost.by)) {
            let supervised = self.run(cost.by)?;
            running.push((self.moments.wait_for("started")?.pid, cost, supervised));
        }
        std::thread::park_timeout(AGE);
        for (pid, cost, supervised) in running {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process id")?;
            let start = now();
            kill_process(pid, Signal::KILL)?;
            cost.relaunch_ms.add(ms_between(start, self.moments.wait_for("started")?.at));
            supervised.stop()?;
        }
        Ok(())
    }
}

impl Supervision {
    fn median(&self, by: By, figure: fn(&Cost) -> &Sample) -> f64 {
        self.0.iter().find(|cost| cost.by == by).map_or(f64::NAN, |cost| figure(cost).median())
    }

    /// What is to be reached.
    pub fn goals(&self) -> Vec<Goal> {
        let start =
            |by| self.median(by, |cost| &cost.start_ms) - self.median(By::Nobody, |cost| &cost.start_ms);
        let whole =
            |by| self.median(by, |cost| &cost.whole_ms) - self.median(By::Nobody, |cost| &cost.whole_ms);
        vec![
            Goal::at_most("start-up beyond a bare exec", 2.0, " ms", start(By::BatonBoot)),
            Goal::at_most(
                "start-up beyond a bare exec, beside tini's",
                start(By::Tini),
                " ms",
                start(By::BatonBoot),
            ),
            Goal::at_most(
                "start to exit beyond a bare `true`, beside tini's",
                whole(By::Tini),
                " ms",
                whole(By::BatonBoot),
            ),
            Goal::at_most(
                "first relaunch after a crash",
                5.0,
                " ms",
                self.median(By::BatonBootSettings, |cost| &cost.relaunch_ms),
            ),
            Goal::at_most(
                "stop, of a program that takes no notice, limit 1 s",
                f64::from(STOP_LIMIT_MS) + STOP_BEYOND_MS,
                " ms",
                self.median(By::BatonBootSettings, |cost| &cost.deaf_ms),
            ),
        ]
    }

    /// The figures as lines of a table.
    pub fn table(&self) -> String {
        let mut text =
            "| run by | start to the program's first instruction, ms | start to exit of `true`, ms \
                        | signal to the program, ms | crash to the next one's first instruction, ms \
                        | SIGTERM to its end, ms | the same, program ignores it, limit 1 s, ms \
                        | PSS, KiB | RSS, KiB |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
                .to_owned();
        for cost in &self.0 {
            let told = |sample: &Sample| if sample.count() == 0 { String::new() } else { sample.to_string() };
            let (pss, rss) = cost
                .idle
                .map_or_else(Default::default, |idle| (idle.pss_kib.to_string(), idle.rss_kib.to_string()));
            let [start, whole, signal, relaunch, stop] =
                [&cost.start_ms, &cost.whole_ms, &cost.signal_ms, &cost.relaunch_ms, &cost.stop_ms].map(told);
            let deaf =
                if cost.by.ends_what_does_not_obey() { told(&cost.deaf_ms) } else { "never".to_owned() };
            text.push_str(&format!(
                "| {} | {start} | {whole} | {signal} | {relaunch} | {stop} | {deaf} | {pss} | {rss} |\n",
                cost.by.name()
            ));
        }
        text
    }
}
