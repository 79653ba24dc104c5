//! One client: it sends one request after the other, and says what became of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout_at};

use super::clock::Clock;
use super::connection::{Connection, Standing};
use super::ledger::{Attempt, End, Event};
use super::plan::{Ask, Habit, Plan};

/// Rest after a request that failed, so that a server which refuses everything is not hammered.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(20);

/// What all clients share.
#[derive(Debug)]
pub struct Shared {
    /// What load to make.
    pub plan: Plan,
    /// The time.
    pub clock: Clock,
    /// The last request's number.
    pub seq: AtomicU64,
    /// The last connection's number.
    pub conn: AtomicU64,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    habit: Habit,
    /// Where it connects next, counted through the targets.
    turn: usize,
    kept: Option<Connection>,
    pace: Option<Interval>,
    events: mpsc::Sender<Event>,
    stop: watch::Receiver<bool>,
}

impl Client {
    /// The `nth` client of all.
    pub fn new(
        nth: usize,
        habit: Habit,
        shared: Arc<Shared>,
        events: mpsc::Sender<Event>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let plan = &shared.plan;
        let pace = (plan.rate > 0).then(|| {
            // An interval must not be empty.
            let period = (Duration::from_secs(1) / plan.rate).max(Duration::from_nanos(1));
            // Spread over the period, so that clients do not all send at once.
            let clients = u32::try_from(plan.clients()).unwrap_or(u32::MAX);
            let offset = period * u32::try_from(nth).unwrap_or(u32::MAX) / clients;
            let mut pace = interval_at(Instant::now() + offset, period);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        Self { turn: nth, kept: None, shared, habit, pace, events, stop }
    }

    /// Sends requests until told to stop. Each request begun is seen to its end.
    pub async fn run(mut self) {
        while self.goes_on().await {
            if !self.request().await {
                sleep(REST_AFTER_FAILURE).await;
            }
        }
        // What the last answer may have had behind it is counted too.
        if let Some(kept) = self.take_kept().await {
            kept.close().await;
        }
    }

    /// Waits until the next request is due. False when there shall be none.
    async fn goes_on(&mut self) -> bool {
        let gap = match self.habit {
            Habit::New => Duration::ZERO,
            Habit::Keep | Habit::Http2 | Habit::Grpc | Habit::WebSocket => {
                Duration::from_millis(self.shared.plan.idle_gap.0)
            }
        };
        let pace = &mut self.pace;
        let due = async {
            if !gap.is_zero() {
                sleep(gap).await;
            }
            if let Some(pace) = pace {
                pace.tick().await;
            }
        };
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => false,
            () = due => true,
        }
    }

    /// Sends one request, again if a reused connection turned out to be closed. Whether it was answered.
    async fn request(&mut self) -> bool {
        let seq = self.shared.seq.fetch_add(1, Relaxed) + 1;
        let ask = self.shared.plan.ask(seq);
        self.tell(Event::Begun { seq }).await;
        loop {
            let start = Instant::now();
            let (attempt, end) = self.attempt(seq, &ask).await;
            let (at, took) = (self.shared.clock.now(), start.elapsed());
            let again = attempt.is_idle_close(at, &end);
            let answered = matches!(end, End::Answered { .. });
            self.tell(Event::Ended { attempt, at, took, end }).await;
            if !again {
                self.part().await;
                return answered;
            }
        }
    }

    async fn attempt(&mut self, seq: u64, ask: &Ask) -> (Attempt, End) {
        let deadline = Instant::now() + Duration::from_millis(self.shared.plan.timeout.0);
        let mut connection = match self.take_kept().await {
            Some(kept) => kept,
            None => {
                let attempt = self.first_attempt(seq, ask);
                match timeout_at(deadline, Connection::open(self.habit, attempt.clone())).await {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(end)) => return (attempt, end),
                    Err(_) => return (attempt, End::TimedOut { connected: false }),
                }
            }
        };
        let sent = self.shared.clock.now();
        let attempt = Attempt { seq, sent, kind: ask.kind, ..connection.last().clone() };
        let exchange = connection.exchange(ask, seq);
        let end = timeout_at(deadline, exchange).await.unwrap_or(End::TimedOut { connected: true });
        if let End::Answered { pid, .. } = end {
            *connection.last() = Attempt { pid: Some(pid), ..attempt.clone() };
            self.kept = Some(connection);
        }
        (attempt, end)
    }

    /// The kept connection, if it still stands.
    async fn take_kept(&mut self) -> Option<Connection> {
        let mut kept = self.kept.take()?;
        match kept.standing() {
            Standing::Open => return Some(kept),
            Standing::Closed => {}
            Standing::Surplus => self.surplus(kept).await,
        }
        None
    }

    /// The first attempt on a connection that is begun now.
    fn first_attempt(&mut self, seq: u64, ask: &Ask) -> Attempt {
        let targets = &self.shared.plan.targets;
        let target = targets[self.turn % targets.len()].clone();
        if self.habit == Habit::New {
            self.turn += 1;
        }
        let now = self.shared.clock.now();
        Attempt {
            seq,
            conn: self.shared.conn.fetch_add(1, Relaxed) + 1,
            target,
            connecting: now,
            sent: now,
            habit: self.habit,
            kind: ask.kind,
            pid: None,
        }
    }

    /// Leaves a connection on which no further request may follow.
    async fn part(&mut self) {
        if self.kept.as_ref().is_some_and(Connection::is_closing)
            && let Some(mut kept) = self.kept.take()
            && kept.surplus_before_close().await
        {
            self.surplus(kept).await;
        }
    }

    async fn surplus(&self, mut connection: Connection) {
        let (attempt, at) = (connection.last().clone(), self.shared.clock.now());
        self.tell(Event::Surplus { attempt, at }).await;
    }

    async fn tell(&self, event: Event) {
        // The account outlives its clients, so it is there to be told.
        let _ = self.events.send(event).await;
    }
}
