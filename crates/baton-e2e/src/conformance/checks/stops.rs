//! How an init stops.

use std::time::{Duration, Instant};

use baton_core::signal::Signal;

use crate::conformance::check::{Check, Outcome};
use crate::conformance::run::{Bench, PATIENCE, Setting};

/// The code of the program's end after TERM.
pub const STOP_CODE: Check = Check {
    name: "stop-code",
    proves: "TERM to the init ends the program, and its exit code is the init's",
    matters: "a program that fails while it stops is told from one that stops well",
    quick: true,
    run: |bench| {
        let mut run = bench.nasty(&["listen", "1", "42"])?;
        run.wait_for_line("up")?;
        let status = run.stop()?;
        Ok(Outcome::of(status.code() == Some(42), "", format!("it ended with {status} instead of 42")))
    },
};

/// A stop limit that has not passed when the checks that use it are over.
const LONG: Duration = Duration::from_secs(10 * PATIENCE.as_secs());

/// TERM, and TERM again.
pub const SECOND_STOP: Check = Check {
    name: "second-stop",
    proves: "a second TERM reaches a program that did not end by the first one",
    matters: "many programs stop softly at the first and at once at the second",
    quick: true,
    run: |bench| {
        let setting = Setting { stop_limit: Some(LONG), ..Setting::default() };
        let mut run = bench.nasty_with(&["listen", "2", "0"], setting)?;
        run.wait_for_line("up")?;
        run.signal(Signal::TERM)?;
        run.wait_for_line(&format!("got {}", Signal::TERM.number()))?;
        run.stop()?;
        let terms = run.reported(&format!("got {}", Signal::TERM.number()));
        Ok(Outcome::of(terms == 2, "", format!("the program heard of {terms}")))
    },
};

/// Rounds, and workers in each.
const ROUNDS: usize = 5;
const WORKERS: usize = 3;
/// How long a worker needs to finish, in milliseconds.
const NEEDS: &str = "1000";

/// Workers of a main process that ends at once.
pub const GRACEFUL: Check = Check {
    name: "graceful",
    proves: "when the main process ends at once at TERM, its workers may finish what takes them a second",
    matters: "requests and jobs of worker processes are cut at every stop otherwise",
    quick: true,
    run: |bench| {
        finished(bench, ROUNDS, &["crew", &WORKERS.to_string(), "plain", NEEDS, "at-term", "0"], WORKERS)
    },
};

/// Workers of a main process that ended by itself.
pub const LEFT_BEHIND: Check = Check {
    name: "left-behind",
    proves: "when the program ends by itself, what it leaves may finish as well: the init ends last",
    matters: "a crash of the main process need not be one of everybody else's work",
    quick: true,
    run: |bench| {
        let mut run = bench.nasty(&["crew", "3", "plain", NEEDS, "at-once", "7"])?;
        let status = run.end()?;
        let finished = run.reported("finished");
        let seen = format!("{finished} of {WORKERS} workers finished, exit with {status}");
        let held = finished == WORKERS && status.code() == Some(7);
        Ok(Outcome::of(held, format!("{finished} of {WORKERS}"), seen))
    },
};

/// A worker that left its session and its parent.
pub const ESCAPED: Check = Check {
    name: "escaped",
    proves: "a process that has left its session and its parent may finish as well",
    matters: "daemons that a program started have work to finish too",
    quick: true,
    run: |bench| finished(bench, 1, &["crew", "1", "escaped", NEEDS, "at-term", "0"], 1),
};

fn finished(bench: &Bench<'_>, rounds: usize, crew: &[&str], workers: usize) -> anyhow::Result<Outcome> {
    let mut finished = 0;
    for _ in 0..rounds {
        let setting = Setting { stop_limit: Some(LONG), ..Setting::default() };
        let mut run = bench.nasty_with(crew, setting)?;
        run.wait_for_line("up")?;
        run.stop()?;
        finished += run.reported("finished");
    }
    let all = rounds * workers;
    let seen = format!("{} were killed in their work", all - finished);
    Ok(Outcome::of(finished == all, format!("{finished} of {all}"), seen))
}

/// A program that will not.
pub const IGNORES_TERM: Check = Check {
    name: "ignores-term",
    proves: "a program that ignores TERM is killed at the stop limit",
    matters: "a stop that hangs blocks every rollout, and the platform's KILL takes everything with it",
    quick: true,
    run: |bench| ends_in_time(bench, &["ignore"]),
};

/// A program that cannot.
pub const STOPPED: Check = Check {
    name: "stopped",
    proves: "a program that is stopped (SIGSTOP) ends within the stop limit as well",
    matters: "it hears no TERM until it is let go on",
    quick: true,
    run: |bench| ends_in_time(bench, &["stop-itself"]),
};

/// A program that is elsewhere.
pub const FORKS_AWAY: Check = Check {
    name: "forks-away",
    proves: "a daemon that has left its session and its parent and ignores TERM does not hold up the stop",
    matters: "what a program forked away is still in the container",
    quick: true,
    run: |bench| ends_in_time(bench, &["crew", "1", "escaped", "forever", "at-term", "0"]),
};

/// Stops a program with a short limit; a second is granted beyond it, and ten times of both asserted.
fn ends_in_time(bench: &Bench<'_>, behaviour: &[&str]) -> anyhow::Result<Outcome> {
    let limit = bench.init().limit();
    let mut run = bench.nasty_with(behaviour, Setting { stop_limit: limit, ..Setting::default() })?;
    run.wait_for_line("up")?;
    let asked = Instant::now();
    run.signal(Signal::TERM)?;
    run.end_within(limit.map_or(PATIENCE, |limit| 10 * (limit + Duration::from_secs(1))))?;
    Ok(Outcome::passed(format!("{:.1} s", asked.elapsed().as_secs_f64())))
}
