//! The loop: wait for something, decide, do.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use baton_core::signal::Signal;
use baton_core::supervisor::{Command, Event, Launch, Order, Supervisor, Ticket};
use baton_core::units::Millis;
use baton_sys::signals::Signals;
use tokio::sync::mpsc;

use crate::image::Image;
use crate::log;
use crate::world::World;

/// How long to wait when the machine has no deadline: any time, as something else always comes first.
const FAR_AWAY: Duration = Duration::from_secs(3600);

/// Everything that the loop works with.
pub struct Driver {
    signals: mpsc::UnboundedReceiver<Signal>,
    events: mpsc::UnboundedReceiver<Event>,
    machine: Supervisor,
    world: World,
    image: Image,
    started: Instant,
}

impl Driver {
    /// A driver for this world, whose events arrive at `events`.
    pub fn new(
        signals: Signals,
        events: mpsc::UnboundedReceiver<Event>,
        world: World,
        image: Image,
    ) -> io::Result<Self> {
        Ok(Self {
            signals: stream(signals)?,
            events,
            machine: Supervisor::new(),
            world,
            image,
            started: Instant::now(),
        })
    }

    /// Runs until the member ends, and returns its exit code.
    pub async fn run(mut self) -> u8 {
        let mut due = VecDeque::new();
        if let Some(first) = self.launch(Ticket::Restore) {
            due.push_back(first);
        }
        loop {
            while let Some(event) = due.pop_front() {
                if let Some(code) = self.decide_and_do(event) {
                    self.world.leave();
                    return code;
                }
            }
            due.extend(self.wait().await);
        }
    }

    /// Waits for the next thing that matters.
    async fn wait(&mut self) -> Vec<Event> {
        let now = self.now();
        let left = self.machine.deadline().map_or(FAR_AWAY, |at| Duration::from_millis(at.since(now).0));
        tokio::select! {
            // Signals first: a stop must not wait behind a flood of anything else.
            biased;
            Some(signal) = self.signals.recv() => self.meaning_of(signal).into_iter().collect(),
            Some(event) = self.events.recv() => vec![event],
            () = tokio::time::sleep(left) => vec![Event::Woken],
        }
    }

    fn decide_and_do(&mut self, event: Event) -> Option<u8> {
        let mut code = None;
        for command in self.machine.step(self.now(), event) {
            match command {
                Command::Exit(exit) => code = Some(exit),
                command => self.world.perform(command),
            }
        }
        code
    }

    /// What a signal to the bootloader asks for. What is not listed is the program's.
    fn meaning_of(&mut self, signal: Signal) -> Option<Event> {
        match signal {
            Signal::CHLD => {
                self.world.reap();
                None
            }
            Signal::TERM | Signal::INT => Some(Event::Order(Order::Stop)),
            Signal::HUP => self.launch(Ticket::Reload),
            other => Some(Event::Order(Order::Forward(other))),
        }
    }

    /// The order to try what the settings say now. Mistakes in them leave everything as it is.
    fn launch(&mut self, ticket: Ticket) -> Option<Event> {
        match self.image.load() {
            Ok((plan, bake)) => {
                // What runs anyway has nobody to be handed back to.
                let bake = if ticket == Ticket::Restore { Millis::ZERO } else { bake };
                Some(Event::Order(Order::Try(Launch { plan: plan.into(), ticket, bake })))
            }
            Err(error) => {
                log::say(format_args!("not reloaded: {}", log::chain(&error)));
                None
            }
        }
    }

    fn now(&self) -> Millis {
        // A u64 of milliseconds is longer than any machine runs.
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// The signals as they come, read by a thread of their own.
fn stream(signals: Signals) -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (send, receive) = mpsc::unbounded_channel();
    let read = move || {
        while let Ok(signal) = signals.next() {
            if send.send(signal).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).stack_size(128 * 1024).spawn(read)?;
    Ok(receive)
}
