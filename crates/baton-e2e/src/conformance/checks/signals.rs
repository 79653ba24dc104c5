//! What becomes of signals to the init.

use std::time::{Duration, Instant};

use baton_core::signal::Signal;

use crate::conformance::check::{Check, Outcome};
use crate::conformance::look;
use crate::conformance::run::{Bench, PATIENCE, Run};

/// Signals that nobody can pass on: two cannot be caught, and children are the init's own business.
const NEVER: [Signal; 3] = [Signal::KILL, Signal::STOP, Signal::CHLD];
/// Signals that end or reload many inits, and CONT, which the kernel drops when TSTP comes after it: each is sent
/// to an init of its own.
const ALONE: [Signal; 5] = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal::CONT];
/// How long without another signal until those that are missing count as lost: they take milliseconds.
const QUIET: Duration = Duration::from_secs(5);

/// The standard signals and those that the C library leaves to programs.
fn all() -> impl Iterator<Item = Signal> {
    (1..=31).chain(34..=64).filter_map(Signal::from_number).filter(|signal| !NEVER.contains(signal))
}

/// Every signal.
pub const SIGNALS: Check = Check {
    name: "signals",
    proves: "every signal that can be passed on reaches the program, once",
    matters: "programs reload, rotate logs and dump their state by signals",
    quick: false,
    run: |bench| {
        let keeps = bench.init().keeps();
        let kept: Vec<Signal> = keeps.iter().flat_map(|(signals, _)| signals).copied().collect();
        let (alone, together): (Vec<_>, Vec<_>) =
            all().filter(|signal| !kept.contains(signal)).partition(|signal| ALONE.contains(signal));
        let mut wrong = send(bench, &together)?;
        for signal in alone {
            wrong.extend(send(bench, &[signal])?);
        }
        let figure = format!("{} of {}", all().count() - kept.len() - wrong.len(), all().count());
        let documented = keeps.iter().map(|(signals, why)| format!("{}: {why}", names(signals)));
        let documented = documented.collect::<Vec<_>>().join("; ");
        Ok(match (wrong.is_empty(), kept.is_empty()) {
            (true, true) => Outcome::passed(figure),
            (true, false) => Outcome::by_design(figure, documented),
            (false, true) => Outcome::failed(figure, format!("not once: {}", names(&wrong))),
            (false, false) => {
                let seen = format!("not once: {}; by design {documented}", names(&wrong));
                Outcome::failed(figure, seen)
            }
        })
    },
};

/// Sends these at once, and returns those that the program did not get exactly once.
fn send(bench: &Bench<'_>, signals: &[Signal]) -> anyhow::Result<Vec<Signal>> {
    // It ends at TERM, so that a stop is over when it is seen.
    let mut run = bench.nasty(&["listen", "1", "0"])?;
    run.wait_for_line("up")?;
    let got = |run: &Run, signal: &Signal| run.reported(&format!("got {}", signal.number()));
    for signal in signals {
        run.signal(*signal)?;
    }
    let (mut heard, mut since) = (0, Instant::now());
    loop {
        // In this order: what came just before the end counts.
        let ended = run.has_ended()?;
        let now = signals.iter().filter(|signal| got(&run, signal) > 0).count();
        if now > heard {
            (heard, since) = (now, Instant::now());
        }
        if now == signals.len() || ended || since.elapsed() > QUIET {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(signals.iter().filter(|signal| got(&run, signal) != 1).copied().collect())
}

fn names(signals: &[Signal]) -> String {
    let (standard, real_time): (Vec<&Signal>, Vec<&Signal>) =
        signals.iter().partition(|signal| signal.number() <= 31);
    let mut names: Vec<String> =
        standard.iter().map(|signal| signal.to_string().trim_start_matches("SIG").to_owned()).collect();
    match real_time[..] {
        [] => {}
        [first, .., last] => names.push(format!("{} of {first} to {last}", real_time.len())),
        [one] => names.push(one.to_string()),
    }
    names.join(", ")
}

/// How often an init is stopped while it starts.
const STARTS: u32 = 50;
/// No more are begun after this time: slow inits are asked less often.
const STARTS_TIME: Duration = Duration::from_secs(30);
/// After so many lost ones, each of which takes its time, the rest would tell nothing new.
const LOST_MAX: u32 = 2;

/// TERM before the fork, between fork and exec, and right after.
pub const SIGNALS_DURING_START: Check = Check {
    name: "signals-during-start",
    proves: "TERM is obeyed from the moment at which the init handles it, also before the program runs",
    matters: "a container that is stopped while it starts must not hang until it is killed",
    quick: true,
    run: |bench| {
        let begun = Instant::now();
        // How long it takes from handling TERM to a running program: signals are spread over this time.
        let span = {
            let mut run = sleeper(bench)?;
            wait_until_it_handles_term(&mut run)?;
            let from = Instant::now();
            run.program("sleep")?;
            from.elapsed()
        };
        let mut random = fastrand::Rng::with_seed(SEED);
        let (mut rounds, mut lost) = (0, 0);
        while rounds < STARTS && lost < LOST_MAX && begun.elapsed() < STARTS_TIME {
            let mut run = sleeper(bench)?;
            wait_until_it_handles_term(&mut run)?;
            let moment = Instant::now() + span.mul_f64(random.f64() * 1.2);
            // Less than a pause could be is waited for here.
            while Instant::now() < moment {
                std::hint::spin_loop();
            }
            run.signal(Signal::TERM)?;
            rounds += 1;
            lost += u32::from(run.end().is_err());
        }
        let figure = format!("{} of {rounds}", rounds - lost);
        let seen = format!("{lost} were still running {} s after TERM", PATIENCE.as_secs());
        Ok(Outcome::of(lost == 0, figure, seen))
    },
};

fn sleeper(bench: &Bench<'_>) -> anyhow::Result<Run> {
    bench.run(&["sleep", "1000"])
}

/// Before this moment the kernel drops what is sent to a PID 1, and no init can do anything about it. It comes
/// with the first fork at the latest: an init that waits for signals in `sigtimedwait` shows no other sign.
fn wait_until_it_handles_term(run: &mut Run) -> anyhow::Result<()> {
    let init = run.init()?.pid;
    run.wait_for("the init did not handle TERM", |_| {
        let itself = !["unshare", "env"].contains(&look::name(init).as_str());
        let handles = |mask| look::signals(init, mask).contains(&Signal::TERM);
        let has_forked = || look::family(init).is_ok_and(|family| family.len() > 1);
        (itself && (handles("SigBlk") || handles("SigCgt") || has_forked())).then_some(())
    })
}

/// How many signals are sent in random order.
const SIGNALS_SENT: usize = 1000;
/// The same order in every run, so that what it finds is found again.
const SEED: u64 = 1;

/// Any signals, as fast as they come.
pub const RANDOM_SIGNALS: Check = Check {
    name: "random-signals",
    proves: "1,000 random signals, all but those that shall end it, do not end it, and then TERM does",
    matters: "no signal that anybody sends by mistake may end a container",
    quick: true,
    run: |bench| {
        let ends = bench.init().ends_by();
        let choice: Vec<Signal> =
            all().chain([Signal::CHLD]).filter(|signal| !ends.contains(signal)).collect();
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut run = bench.nasty(&["listen", "1", "0"])?;
        run.wait_for_line("up")?;
        for sent in 0..SIGNALS_SENT {
            if let Some(signal) = random.choice(&choice) {
                run.signal(*signal)?;
            }
            if run.has_ended()? {
                let status = run.end()?;
                return Ok(Outcome::failed("", format!("it ended with {status} at signal {sent}")));
            }
        }
        // Whatever of them has stopped the program, this lets it go on.
        run.signal(Signal::CONT)?;
        let ended = run.stop().is_ok();
        let seen = format!("it was still running {} s after a TERM that followed", PATIENCE.as_secs());
        Ok(Outcome::of(ended, "", seen))
    },
};
