//! The loop: wait for something, decide, do.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::bake::Bake;
use baton_core::member::Input;
use baton_core::signal::Signal;
use baton_core::supervisor::{Command, End, Event, Launch, Order, Plan, Supervisor, Ticket, TrialState};
use baton_core::units::{Micros, Millis};
use baton_sys::signals::Signals;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::admin::{self, Asked, Request};
use crate::controlled::Controlled;
use crate::image::Image;
use crate::log;
use crate::notify::News;
use crate::outlive::{self, caught, outlive};
use crate::service_manager::ServiceManager;
use crate::signalled;
use crate::world::World;

/// How long to wait when nothing has a deadline: any time, as something else always comes first.
const FAR_AWAY: Duration = Duration::from_secs(3600);
/// How long a member that has committed to nothing waits for control before it runs what its image brought.
const IMAGE_PATIENCE: Millis = Millis::from_secs(5);
/// How long a program that is reloaded under control bakes, as control says nothing about it.
const RELOAD_BAKE: Bake = Bake { time: Millis::from_secs(5), connections: 0 };

/// How long after signals could not be read they are read again.
const READ_AGAIN: Duration = Duration::from_millis(100);

/// Something that happened.
#[derive(Debug)]
enum Happening {
    Signal(Signal),
    Children,
    Machine(Event),
    Heard(News),
    Member(Input),
    Asked(Asked),
    Woken,
}

/// Where things that happen arrive.
pub struct Inbox {
    signals: signalled::Receiver,
    events: mpsc::UnboundedReceiver<Event>,
    inputs: mpsc::UnboundedReceiver<Input>,
    /// What programs say of themselves, and that they have ended.
    notices: mpsc::Receiver<News>,
    asked: mpsc::UnboundedReceiver<Asked>,
}

impl Inbox {
    /// An inbox for signals, what happens to generations, what control says and what operators ask.
    pub fn new(
        signals: signalled::Receiver,
        events: mpsc::UnboundedReceiver<Event>,
        inputs: mpsc::UnboundedReceiver<Input>,
        notices: mpsc::Receiver<News>,
        asked: mpsc::UnboundedReceiver<Asked>,
    ) -> Self {
        Self { signals, events, inputs, notices, asked }
    }

    /// Waits for the next thing, or until the time has passed.
    async fn next(&mut self, limit: Duration) -> Happening {
        tokio::select! {
            // Signals first: a stop must not wait behind a flood of anything else.
            biased;
            Some(signal) = self.signals.others.recv() => Happening::Signal(signal),
            Some(event) = self.events.recv() => Happening::Machine(event),
            Some(input) = self.inputs.recv() => Happening::Member(input),
            Some(asked) = self.asked.recv() => Happening::Asked(asked),
            happening = frequent(&self.signals.children, &mut self.notices) => happening,
            () = tokio::time::sleep(limit) => Happening::Woken,
        }
    }
}

/// What programs can make happen at any rate: neither keeps the other waiting.
async fn frequent(children: &Notify, notices: &mut mpsc::Receiver<News>) -> Happening {
    tokio::select! {
        () = children.notified() => Happening::Children,
        Some(news) = notices.recv() => Happening::Heard(news),
    }
}

/// Everything that the loop works with.
pub struct Driver {
    inbox: Inbox,
    machine: Supervisor,
    world: World,
    image: Image,
    controlled: Option<Controlled>,
    /// When the image's own program is launched, unless something else runs by then.
    image_at: Option<Millis>,
    /// What has happened and was not decided about yet.
    due: VecDeque<Event>,
    /// Who waits for the end of a reload.
    waiting: Vec<oneshot::Sender<serde_json::Value>>,
    /// Who is told how the member stands, where somebody wants to know.
    manager: Option<ServiceManager>,
    /// At which signal the status is written.
    status_signal: Option<Signal>,
    started: Instant,
}

impl Driver {
    /// A driver for this world. Nothing has happened yet.
    pub fn new(
        inbox: Inbox,
        machine: Supervisor,
        world: World,
        image: Image,
        controlled: Option<Controlled>,
        manager: Option<ServiceManager>,
    ) -> Self {
        Self {
            inbox,
            machine,
            world,
            image,
            controlled,
            manager,
            image_at: None,
            due: VecDeque::new(),
            waiting: Vec::new(),
            status_signal: None,
            started: Instant::now(),
        }
    }

    /// This signal is not the program's: the status is written.
    #[must_use]
    pub fn with_status_signal(self, status_signal: Option<Signal>) -> Self {
        Self { status_signal, ..self }
    }

    /// Does what a member starts with; the exit code, when it ends at once. `first` is what the image brought, if there is no
    /// control.
    pub fn begin(&mut self, first: Option<Plan>) -> Option<u8> {
        let launch = |plan: Plan| Launch { plan: plan.into(), ticket: Ticket::Restore, bake: Bake::NONE };
        self.due.extend(first.map(|plan| Event::Order(Order::Try(launch(plan)))));
        self.begin_with_control();
        let code = self.work();
        self.world.watch();
        code
    }

    /// Runs until the member ends, and returns its exit code.
    pub async fn run(mut self) -> u8 {
        loop {
            match caught(self.turn()).await {
                Some(None) => {}
                Some(Some(code)) => {
                    let _ = caught(self.leave()).await;
                    return code;
                }
                None => outlive::rest().await,
            }
        }
    }

    /// Does what is due and waits for the next thing; the exit code, when the member ends.
    async fn turn(&mut self) -> Option<u8> {
        if let Some(code) = self.work() {
            return Some(code);
        }
        self.answer_waiting();
        let now = self.now();
        self.manager.iter_mut().for_each(|manager| manager.tell(now, &self.machine));
        let left = self.deadline().map_or(FAR_AWAY, |at| Duration::from_millis(at.since(self.now()).0));
        let left = self.world.looks_in().map_or(left, |looks| looks.min(left));
        let happening = self.inbox.next(left).await;
        let woken = matches!(happening, Happening::Woken);
        let meant = self.meaning_of(happening);
        self.due.extend(meant);
        // What is due waits for no pause in what happens.
        if !woken && self.deadline().is_some_and(|at| at <= self.now()) {
            let meant = self.meaning_of(Happening::Woken);
            self.due.extend(meant);
        }
        self.world.look();
        None
    }

    /// Does what is due.
    fn work(&mut self) -> Option<u8> {
        while let Some(event) = self.due.pop_front() {
            if let Some(code) = self.decide_and_do(event) {
                return Some(code);
            }
        }
        None
    }

    /// A member starts with what it has committed to, else what its image brought.
    fn begin_with_control(&mut self) {
        let Some(controlled) = &self.controlled else { return };
        let restored = controlled.restore();
        if !self.image.is_empty() {
            // Also beside a release, which may turn out not to be what it was.
            self.image_at = Some(self.now() + IMAGE_PATIENCE);
        } else if !restored {
            log::say("nothing was ever committed here; waiting for control to say what to run");
        }
    }

    fn deadline(&self) -> Option<Millis> {
        let member = self.controlled.as_ref().and_then(Controlled::deadline);
        let manager = self.manager.as_ref().and_then(ServiceManager::deadline);
        [self.machine.deadline(), member, manager, self.image_at].into_iter().flatten().min()
    }

    fn meaning_of(&mut self, happening: Happening) -> Vec<Event> {
        let now = self.now();
        match happening {
            Happening::Signal(signal) => self.meaning_of_signal(signal).into_iter().collect(),
            Happening::Children => {
                if self.world.reap() {
                    self.inbox.signals.children.notify_one();
                }
                Vec::new()
            }
            Happening::Machine(event) => {
                Some(event).filter(|event| self.is_wanted(event)).into_iter().collect()
            }
            Happening::Heard(News::Said(event)) => vec![event],
            Happening::Heard(News::Ended(ended)) => self.world.end(ended).into_iter().collect(),
            Happening::Member(input) => {
                self.tell_member(now, input);
                Vec::new()
            }
            Happening::Asked(asked) => self.meaning_of_request(asked).into_iter().collect(),
            Happening::Woken => {
                self.tell_member(now, Input::Woken);
                self.launch_image_meanwhile(now).into_iter().chain([Event::Woken]).collect()
            }
        }
    }

    /// A launch takes time to prepare, and may come when another deploy is in force.
    fn is_wanted(&self, event: &Event) -> bool {
        match (event, &self.controlled) {
            (Event::Order(order), Some(controlled)) => controlled.wants(order),
            (_, _) => true,
        }
    }

    /// What a signal to the bootloader asks for. What is not listed is the program's.
    fn meaning_of_signal(&mut self, signal: Signal) -> Option<Event> {
        match signal {
            Signal::CONT if self.world.resume() => None,
            Signal::TERM | Signal::INT => Some(Event::Order(Order::Stop)),
            Signal::HUP => {
                let reload = self.reload_by_signal();
                self.or_say(reload)
            }
            signal if self.status_signal == Some(signal) => {
                admin::say_status(&self.status());
                None
            }
            other => Some(Event::Order(Order::Forward(other))),
        }
    }

    fn status(&self) -> serde_json::Value {
        let mut status = self.world.status(self.now(), &self.machine, self.image.source());
        status["control"] = self.controlled.as_ref().map(Controlled::standing).into();
        status
    }

    fn meaning_of_request(&mut self, asked: Asked) -> Option<Event> {
        let reload = match asked.request {
            Request::Status => {
                // Who asked may be gone.
                let _ = asked.answer.send(self.status());
                return None;
            }
            Request::Logs { lines, .. } => {
                let _ = asked.answer.send(self.world.logs(lines));
                return None;
            }
            Request::Reload => self.reload(),
        };
        match reload {
            Ok(event) => {
                self.waiting.push(asked.answer);
                Some(event)
            }
            Err(why) => {
                let _ = asked.answer.send(serde_json::json!({ "error": why }));
                None
            }
        }
    }

    /// Tells those who asked for a reload how it ended.
    fn answer_waiting(&mut self) {
        if self.machine.is_stopping() {
            // The last trial was another one: they are told that we end.
            self.waiting.clear();
        } else if !self.machine.is_busy()
            && let Some((ticket, trial)) = self.machine.status().trial
        {
            // Another order may have taken the reload's place.
            let trial = if ticket == Ticket::Reload { trial } else { TrialState::Dropped };
            for answer in self.waiting.drain(..) {
                let _ = answer.send(admin::standing(&trial));
            }
        }
    }

    fn or_say(&self, event: Result<Event, String>) -> Option<Event> {
        event.inspect_err(|why| log::say(why)).ok()
    }

    fn decide_and_do(&mut self, event: Event) -> Option<u8> {
        let (now, begun) = (self.now(), Instant::now());
        let (mut code, mut selected_in) = (None, None);
        // A copy: should it panic, everything is as it was before.
        let mut machine = self.machine.clone();
        let commands = machine.step(now, event);
        self.machine = machine;
        for command in commands {
            match command {
                Command::Exit(exit) => code = Some(exit),
                Command::Select(selection) => {
                    selected_in = self.world.select(selection).then(|| begun.elapsed());
                }
                Command::TimeHandover(generation) => {
                    let took = selected_in.and_then(|took| u64::try_from(took.as_micros()).ok());
                    self.due.extend(took.map(|took| Event::HandedOver(generation, Micros(took))));
                }
                Command::Commit { generation, plan, ticket } => {
                    let used = self.world.learn(generation, ticket);
                    if let Some(controlled) = &self.controlled {
                        controlled.commit(&plan, ticket, used);
                    }
                }
                command => self.world.perform(command),
            }
        }
        self.world.weigh(&self.machine);
        self.world.note(&self.machine);
        if let Some(controlled) = self.controlled.as_mut().filter(|_| self.machine.has_news()) {
            controlled.report(now, self.machine.status(), |id| self.world.last_lines(id));
            controlled.keep_house(&self.machine);
        }
        code
    }

    fn tell_member(&mut self, now: Millis, input: Input) {
        if let Some(controlled) = &mut self.controlled {
            controlled.step(now, input);
            controlled.report(now, self.machine.status(), |id| self.world.last_lines(id));
            controlled.keep_house(&self.machine);
        }
    }

    /// The order to run what the image brought, once it has waited for control; without it the member waits on.
    fn launch_image_meanwhile(&mut self, now: Millis) -> Option<Event> {
        self.image_at.take_if(|at| *at <= now).filter(|_| !self.machine.has_work())?;
        if self.controlled.as_ref().is_some_and(Controlled::is_restoring) {
            // It may still turn out not to be what it was.
            self.image_at = Some(now + IMAGE_PATIENCE);
            return None;
        }
        let first = self.image.first().map_err(|error| {
            let why = log::chain(&error);
            format!("the image cannot be run: {why}; waiting for control to say what to run")
        });
        // What runs anyway has nobody to be handed back to.
        let launch =
            |(plan, _): (Plan, Bake)| Launch { plan: plan.into(), ticket: Ticket::Restore, bake: Bake::NONE };
        self.or_say(first.map(|image| Event::Order(Order::Try(launch(image)))))
    }

    /// The order to try what the settings say now. Mistakes in them leave everything as it is.
    fn reload_image(&self) -> Result<Event, String> {
        let loaded = self.image.load();
        let (plan, bake) = loaded.map_err(|error| format!("nothing is changed: {}", log::chain(&error)))?;
        Ok(Event::Order(Order::Try(Launch { plan: plan.into(), ticket: Ticket::Reload, bake })))
    }

    /// The order to start anew what serves: what the settings say now, or the same release.
    fn reload(&self) -> Result<Event, String> {
        if self.controlled.is_none() {
            return self.reload_image();
        }
        let plan = self.machine.serving_plan().ok_or("not reloaded: nothing runs yet")?;
        if self.machine.on_trial() {
            return Err("not reloaded: a release is on trial; wait until it is proven or taken back".into());
        }
        let launch = Launch { plan: Arc::clone(&plan), ticket: Ticket::Reload, bake: RELOAD_BAKE };
        Ok(Event::Order(Order::Try(launch)))
    }

    /// The same for whoever waits for its beginning and its end, and hears of nothing else.
    fn reload_by_signal(&mut self) -> Result<Event, String> {
        let (now, reload) = (self.now(), self.reload());
        if let (Err(why), Some(manager)) = (&reload, &mut self.manager) {
            manager.not_reloaded(now, why);
        }
        reload
    }

    /// Ends what is left, each part within the time that is left for it.
    async fn leave(&mut self) {
        let now = self.now();
        let end = self.machine.ends_by().unwrap_or(End { processes: now, all: now });
        let left = |at: Millis, driver: &Self| Duration::from_millis(at.since(driver.now()).0);
        self.world.leave(left(end.processes, self)).await;
        let controlled = self.controlled.take();
        let goodbye = async {
            if let Some(controlled) = controlled {
                controlled.leave().await;
            }
        };
        tokio::join!(goodbye, self.world.clear());
        log::end(left(end.all, self));
    }

    fn now(&self) -> Millis {
        // A u64 of milliseconds is longer than any machine runs.
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Reads signals in a thread of its own, for as long as somebody wants them.
pub fn read(signals: Signals, sender: signalled::Sender) -> io::Result<()> {
    let read = move || {
        loop {
            match signals.next() {
                Ok(signal) if !sender.send(signal) => return,
                Ok(_) => {}
                // Deaf for good it must never be: nothing could stop it.
                Err(error) => {
                    log::say(format_args!("cannot read a signal: {error}"));
                    std::thread::park_timeout(READ_AGAIN);
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).stack_size(128 * 1024);
    thread.spawn(move || outlive(read)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ends of thousands of orphans, and what else has happened meanwhile.
    #[tokio::test]
    async fn f7_children_that_end_keep_nothing_else_waiting() {
        let (sender, signals) = signalled::channel();
        let (events, happened) = mpsc::unbounded_channel();
        let (_inputs, heard) = mpsc::unbounded_channel();
        let (notices, said) = mpsc::channel(1);
        let (_asking, asked) = mpsc::unbounded_channel();
        let mut inbox = Inbox::new(signals, happened, heard, said, asked);
        (0..10_000).for_each(|_| assert!(sender.send(Signal::CHLD)));
        assert!(sender.send(Signal::TERM));
        events.send(Event::NoMemoryLeft).unwrap();
        assert!(matches!(inbox.next(FAR_AWAY).await, Happening::Signal(Signal::TERM)));
        assert!(matches!(inbox.next(FAR_AWAY).await, Happening::Machine(Event::NoMemoryLeft)));
        assert!(matches!(inbox.next(FAR_AWAY).await, Happening::Children));
        assert!(matches!(inbox.next(Duration::ZERO).await, Happening::Woken), "they were told of");
        // While more and more end, what programs say is heard.
        notices.send(News::Said(Event::Woken)).await.unwrap();
        loop {
            sender.send(Signal::CHLD);
            match inbox.next(FAR_AWAY).await {
                Happening::Children => {}
                other => break assert!(matches!(other, Happening::Heard(News::Said(Event::Woken)))),
            }
        }
        drop(inbox);
        assert!(!sender.send(Signal::CHLD) && !sender.send(Signal::TERM));
    }
}
