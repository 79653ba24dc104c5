//! The loop that drives the clients and keeps the account.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::client::{Client, Shared};
use super::clock::Clock;
use super::ledger::{Event, Ledger};
use super::plan::{InvalidPlan, Plan};
use super::report::{Line, Report};
use super::said::Said;

/// Events that may wait for the account. Clients wait when it is full: better slow than uncounted.
const EVENTS_MAX: usize = 1024;

/// Makes the load of `plan` until its duration is over or a line says `stop`, and returns the account.
///
/// `said` carries what the driver says ([`Said`]); `print` gets what is to be told: the counts every second, and an
/// answer to each line that was said. What a line says holds before its answer is printed.
///
/// # Errors
/// The plan makes no sense.
pub async fn run(
    plan: Plan,
    mut said: mpsc::Receiver<String>,
    mut print: impl FnMut(Line),
) -> Result<Report, InvalidPlan> {
    plan.check()?;
    let clock = Clock::start();
    let mut ledger = Ledger::new(clock.now());
    let (stop, stopped) = watch::channel(false);
    let mut events = start(&plan, clock, &stopped);

    let second = Duration::from_secs(1);
    let mut progress = interval_at(Instant::now() + second, second);
    progress.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let duration = plan.duration.map(|duration| Duration::from_millis(duration.0));
    let over = sleep(duration.unwrap_or_default());
    tokio::pin!(over);

    loop {
        tokio::select! {
            biased;
            Some(line) = said.recv() => {
                let (answer, event) = hear(line, &plan, clock);
                if let Some(event) = event {
                    if matches!(event, Event::Said { said: Said::Stop, .. }) {
                        stop.send_replace(true);
                    }
                    ledger.fold(event);
                }
                print(answer);
            }
            _ = progress.tick() => print(Line::Progress(ledger.report(clock.now()))),
            () = &mut over, if duration.is_some() && !*stopped.borrow() => {
                stop.send_replace(true);
            }
            event = events.recv() => match event {
                Some(event) => ledger.fold(event),
                // The last client has gone.
                None => return Ok(ledger.report(clock.now())),
            },
        }
    }
}

/// Starts the clients. The events end when the last of them does.
fn start(plan: &Plan, clock: Clock, stop: &watch::Receiver<bool>) -> mpsc::Receiver<Event> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let shared =
        Arc::new(Shared { plan: plan.clone(), clock, seq: AtomicU64::new(0), conn: AtomicU64::new(0) });
    let habits = plan.habits().flat_map(|(habit, count)| std::iter::repeat_n(habit, count));
    for (nth, habit) in habits.enumerate() {
        let client = Client::new(nth, habit, Arc::clone(&shared), sender.clone(), stop.clone());
        tokio::spawn(client.run());
    }
    events
}

fn hear(line: String, plan: &Plan, clock: Clock) -> (Line, Option<Event>) {
    match Said::parse(&line, &plan.targets) {
        Ok(said) => (Line::Heard(line), Some(Event::Said { said, at: clock.now() })),
        Err(misheard) => {
            let why = misheard.to_string();
            (Line::Misheard { line, why }, None)
        }
    }
}
