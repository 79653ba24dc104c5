//! Light members: the real decisions and the real session of a member, over programs that start at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::ids::{DeployId, Epoch, MemberId};
use baton_core::member::{Action, Input, Member};
use baton_core::report::{Report, Stamp};
use baton_core::supervisor::{Running, Status, Ticket, TrialState};
use baton_core::units::Millis;
use baton_wire::session::{Carrier, FromMember, Hello, Socket, ToMember};
use baton_wire::v1;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};

use super::way::Way;
use crate::bench::moments;

/// The service of all of them.
pub const SERVICE: &str = "web";
/// How often each is heard of that has nothing to say: with 4,000 members 4,000 heartbeats a second, two and a half times
/// what a bootloader does.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long it waits before it connects again, as a bootloader does: drawn at random from zero to a limit that doubles.
const CONNECT: Duration = Duration::from_secs(3);
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// A session that lasted this long was one: the next failure is a new story.
const CALM: Duration = Duration::from_secs(10);

/// Members that live until this is dropped.
pub struct Lights {
    shared: Arc<Shared>,
    /// How often each says again what it has said before; never, at first.
    repeat: watch::Sender<Option<Duration>>,
    members: JoinSet<()>,
}

struct Shared {
    /// The servers, any of which will do.
    servers: Vec<SocketAddr>,
    open: AtomicUsize,
    /// How many reports were sent.
    reports: AtomicUsize,
    repeat: watch::Receiver<Option<Duration>>,
    heard: Mutex<Heard>,
}

/// Who has heard of the deploy in force.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    deploy: Option<DeployId>,
    members: usize,
    /// When the last of them has, as [`moments::now`] tells it.
    last: u64,
}

impl Lights {
    /// Members of these servers, which each speaks to in this way.
    pub fn start(servers: &[SocketAddr], members: Vec<Way>) -> Self {
        let (repeat, repeats) = watch::channel(None);
        let shared = Shared {
            servers: servers.to_vec(),
            open: AtomicUsize::new(0),
            reports: AtomicUsize::new(0),
            repeat: repeats,
            heard: Mutex::default(),
        };
        let mut lights = Self { shared: Arc::new(shared), repeat, members: JoinSet::new() };
        for (number, way) in members.into_iter().enumerate() {
            // A name that is a name: a word and a number.
            let Ok(id) = name(number).parse::<MemberId>() else { continue };
            let light = Light::new(id, way, Arc::clone(&lights.shared), number % servers.len().max(1));
            lights.members.spawn(light.live());
        }
        lights
    }

    /// How many have a session.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// How many reports they have sent so far.
    pub fn reports(&self) -> usize {
        self.shared.reports.load(Ordering::Relaxed)
    }

    /// How many have heard of this deploy, and when the last of them has.
    pub fn heard(&self, deploy: DeployId) -> (usize, u64) {
        let heard = *lock(&self.shared.heard);
        if heard.deploy == Some(deploy) { (heard.members, heard.last) } else { (0, 0) }
    }

    /// Each reports anew this often from now on, although nothing has changed.
    pub fn repeat(&self, every: Option<Duration>) {
        self.repeat.send_replace(every);
    }
}

/// What the member with this number is called.
pub fn name(number: usize) -> String {
    format!("{SERVICE}-{number:05}")
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn hear(&self, deploy: DeployId) {
        let mut heard = lock(&self.heard);
        if heard.deploy != Some(deploy) {
            *heard = Heard { deploy: Some(deploy), ..Heard::default() };
        }
        heard.members += 1;
        heard.last = moments::now();
    }
}

struct Light {
    id: MemberId,
    way: Way,
    member: Member,
    status: Status,
    /// What bakes, on whose behalf, until when.
    bake: Option<(Running, Ticket, Instant)>,
    shared: Arc<Shared>,
    server: usize,
    born: Instant,
    told: Option<Report>,
    stamp: Stamp,
    /// The deploy that it has heard of last.
    heard: Option<DeployId>,
}

impl Light {
    fn new(id: MemberId, way: Way, shared: Arc<Shared>, server: usize) -> Self {
        let member = Member::new(id.clone(), None, None);
        let stamp = Stamp { life: 1, sequence: 0 };
        let born = Instant::now();
        Self {
            id,
            way,
            member,
            status: Status::default(),
            bake: None,
            shared,
            server,
            born,
            told: None,
            stamp,
            heard: None,
        }
    }

    async fn live(mut self) {
        let mut limit = WAIT_MIN;
        loop {
            let begun = Instant::now();
            self.told = None;
            // Without a server it goes on as it is, and tries the next one.
            let mut counted = false;
            let _ = self.session(&mut counted).await;
            if counted {
                self.shared.open.fetch_sub(1, Ordering::Relaxed);
            }
            self.server += 1;
            if begun.elapsed() >= CALM {
                limit = WAIT_MIN;
            }
            sleep(limit.mul_f64(fastrand::f64())).await;
            limit = (limit * 2).min(WAIT_MAX);
        }
    }

    async fn session(&mut self, counted: &mut bool) -> anyhow::Result<()> {
        let server = self.shared.servers[self.server % self.shared.servers.len()];
        let stream = timeout(CONNECT, self.way.join(server)).await??;
        let mut socket = Socket::call(stream, &server.to_string(), self.way.bearer()).await?;
        socket.say(&FromMember::Hello(self.hello()?).to_wire()).await?;
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        *counted = true;
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut repeat = self.shared.repeat.clone();
        repeat.mark_changed();
        let mut again = None;
        loop {
            self.say(&mut socket).await?;
            let baked = self.bake.as_ref().map(|(.., until)| *until);
            tokio::select! {
                order = socket.hear() => self.obey(order?)?,
                () = sleep_until(baked.unwrap_or(self.born)), if baked.is_some() => self.baked(),
                _ = heartbeat.tick() => {
                    let stamp = self.next_stamp();
                    socket.say(&FromMember::Heartbeat(stamp).to_wire()).await?;
                }
                () = sleep_until(again.unwrap_or(self.born)), if again.is_some() => {
                    self.told = None;
                    again = repeat.borrow().map(|every| Instant::now() + every);
                }
                // At a moment of its own within that time, so that all do not speak at once.
                _ = repeat.changed() => {
                    let every = *repeat.borrow_and_update();
                    again = every.map(|every| Instant::now() + every.mul_f64(fastrand::f64()));
                }
            }
        }
    }

    fn hello(&self) -> anyhow::Result<Hello> {
        Ok(Hello {
            member: self.id.clone(),
            service: SERVICE.parse()?,
            version: "light".to_owned(),
            listens: vec!["http=127.0.0.1:8080".to_owned()],
            life: self.stamp.life,
            peer: None,
        })
    }

    /// Reports what has changed.
    async fn say(&mut self, socket: &mut Socket<Box<dyn Carrier>>) -> anyhow::Result<()> {
        let report = self.member.report();
        if self.told.as_ref() != Some(&report) {
            self.told = Some(report.clone());
            self.shared.reports.fetch_add(1, Ordering::Relaxed);
            let stamp = self.next_stamp();
            socket.say(&FromMember::Report(Report { stamp, ..report }.into()).to_wire()).await?;
        }
        Ok(())
    }

    fn next_stamp(&mut self) -> Stamp {
        self.stamp.sequence += 1;
        self.stamp
    }

    fn obey(&mut self, order: v1::ToMember) -> anyhow::Result<()> {
        match ToMember::from_wire(order)? {
            Some(ToMember::Wish(wish, _)) => {
                let deploy = wish.seen.deploy;
                if self.heard.replace(deploy) != Some(deploy) {
                    self.shared.hear(deploy);
                }
                self.feed(Input::Wish(wish));
            }
            Some(ToMember::Grant { deploy, bake }) => self.feed(Input::Grant { deploy, bake }),
            Some(ToMember::HandBack { deploy }) => self.feed(Input::HandBack { deploy }),
            // It runs nothing that secrets are for.
            Some(ToMember::PeerKey(_) | ToMember::SecretsTold { .. } | ToMember::ContentWanted(_)) | None => {
            }
        }
        Ok(())
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = Millis(u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX));
            for action in self.member.step(now, input) {
                inputs.push_back(self.act(action));
            }
        }
    }

    /// Does at once what takes a bootloader a disk and a program.
    fn act(&mut self, action: Action) -> Input {
        match action {
            Action::Remember(seen) => return Input::Remembered(seen),
            Action::Stage(release) => return Input::Staged(release),
            Action::Try { release, ticket, bake } => {
                let release = Running::Release(release);
                self.status.standby = self.status.serving.replace(release);
                self.status.healthy = true;
                self.status.trial = Some((ticket, TrialState::Proving));
                self.bake = Some((release, ticket, Instant::now() + Duration::from_millis(bake.time.0)));
            }
            // Nothing is kept warm here.
            Action::GoBack { .. } => {}
            Action::HandBack => {
                if let Some((_, ticket, _)) = self.bake.take() {
                    self.status.serving = self.status.standby.take();
                    self.status.trial = Some((ticket, TrialState::Dropped));
                }
            }
        }
        Input::Stands(self.status.clone())
    }

    fn baked(&mut self) {
        let Some((release, ticket, _)) = self.bake.take() else { return };
        let epoch = match ticket {
            Ticket::Deploy { epoch, .. } => epoch,
            Ticket::Restore | Ticket::Replace | Ticket::Reload => Epoch(0),
        };
        self.status.standby = None;
        self.status.trial = Some((ticket, TrialState::Proven));
        if let Some(release) = release.id() {
            self.feed(Input::Committed(release, epoch));
        }
        self.feed(Input::Stands(self.status.clone()));
    }
}
