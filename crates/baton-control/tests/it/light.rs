//! Light members: the real decisions and the real session over programs that only seem to run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_core::bake::Bake;
use baton_core::ids::{Epoch, GenerationId, MemberId, ReleaseId};
use baton_core::member::{Action, Input, Member};
use baton_core::report::{Cause, Report, Stamp};
use baton_core::supervisor::{Running, Status, Ticket, TrialState};
use baton_core::units::{Micros, Millis};
use baton_wire::session::{FromMember, Hello, Socket, ToMember};
use baton_wire::v1;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};

/// How often a member without a server looks for one.
const RECONNECT: Duration = Duration::from_millis(50);
/// How often a bake that is held looks whether it may end.
const HELD: Duration = Duration::from_millis(20);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// What they say that every release takes.
const STARTS_IN: Millis = Millis(1500);
const TAKES_OVER_IN: Micros = Micros(250);

/// What all members share: what releases are like, and who has tried what.
pub struct World {
    /// How many more bakes may come to their end.
    proofs_left: Mutex<usize>,
    bad: Mutex<BTreeSet<ReleaseId>>,
    tries: Mutex<BTreeMap<ReleaseId, Vec<MemberId>>>,
    on_trial: Mutex<BTreeMap<ReleaseId, (usize, usize)>>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            proofs_left: Mutex::new(usize::MAX),
            bad: Mutex::default(),
            tries: Mutex::default(),
            on_trial: Mutex::default(),
        }
    }
}

impl World {
    /// After so many further proofs, bakes last until this is said again.
    pub fn allow_proofs(&self, count: usize) {
        *self.proofs_left.lock().unwrap() = count;
    }

    fn may_prove(&self) -> bool {
        let mut left = self.proofs_left.lock().unwrap();
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }

    /// The release ends at its start from now on, and where it bakes.
    pub fn spoil(&self, release: ReleaseId) {
        self.bad.lock().unwrap().insert(release);
    }

    fn is_bad(&self, release: ReleaseId) -> bool {
        self.bad.lock().unwrap().contains(&release)
    }

    /// Who has tried the release with a slot, once for each try.
    pub fn tries(&self, release: ReleaseId) -> Vec<MemberId> {
        self.tries.lock().unwrap().get(&release).cloned().unwrap_or_default()
    }

    /// The greatest number of members that have tried the release at the same time.
    pub fn most_at_once(&self, release: ReleaseId) -> usize {
        self.on_trial.lock().unwrap().get(&release).map_or(0, |(_, most)| *most)
    }

    fn begin(&self, member: &MemberId, release: ReleaseId) {
        self.tries.lock().unwrap().entry(release).or_default().push(member.clone());
        let mut on_trial = self.on_trial.lock().unwrap();
        let (now, most) = on_trial.entry(release).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    fn end(&self, release: ReleaseId) {
        if let Some((now, _)) = self.on_trial.lock().unwrap().get_mut(&release) {
            *now -= 1;
        }
    }
}

/// Members that live until this is dropped.
pub struct Fleet {
    pub world: Arc<World>,
    address: SocketAddr,
    members: JoinSet<()>,
}

impl Fleet {
    pub fn start(address: SocketAddr, names: impl IntoIterator<Item = String>) -> Self {
        let mut fleet = Self { world: Arc::default(), address, members: JoinSet::new() };
        fleet.join(names);
        fleet
    }

    pub fn join(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let light = Light::new(name.parse().unwrap(), Arc::clone(&self.world));
            self.members.spawn(light.live(self.address));
        }
    }
}

pub fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("web-{number}"))
}

struct Light {
    id: MemberId,
    member: Member,
    status: Status,
    /// What bakes, on whose behalf, until when.
    bake: Option<(ReleaseId, Ticket, Instant)>,
    world: Arc<World>,
    born: Instant,
    told: Option<Report>,
    stamp: Stamp,
}

impl Light {
    fn new(id: MemberId, world: Arc<World>) -> Self {
        let member = Member::new(id.clone(), None, None);
        let stamp = Stamp { life: 1, sequence: 0 };
        Self {
            stamp,
            id,
            member,
            status: Status::default(),
            bake: None,
            world,
            born: Instant::now(),
            told: None,
        }
    }

    async fn live(mut self, address: SocketAddr) {
        let mut pause = interval(RECONNECT);
        loop {
            pause.tick().await;
            self.told = None;
            // Without a server it goes on as it is.
            let _ = self.session(address).await;
        }
    }

    async fn session(&mut self, address: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(address).await?;
        let mut socket = Socket::call(stream, &address.to_string(), None).await?;
        let hello = Hello {
            member: self.id.clone(),
            service: "web".parse()?,
            version: "light".into(),
            listens: vec!["http=127.0.0.1:8080".into()],
            life: 1,
            peer: None,
        };
        socket.say(&FromMember::Hello(hello).to_wire()).await?;
        let mut heartbeat = interval(HEARTBEAT);
        loop {
            self.say(&mut socket).await?;
            let baked = self.bake.map(|(.., until)| until);
            tokio::select! {
                order = socket.hear() => self.obey(order?)?,
                () = sleep_until(baked.unwrap_or_else(Instant::now)), if baked.is_some() => self.baked(),
                _ = heartbeat.tick() => {
                    let stamp = self.next_stamp();
                    socket.say(&FromMember::Heartbeat(stamp).to_wire()).await?;
                }
            }
        }
    }

    /// Reports what has changed.
    async fn say(&mut self, socket: &mut Socket<TcpStream>) -> Result<(), Box<dyn std::error::Error>> {
        let report = self.member.report();
        if self.told.as_ref() != Some(&report) {
            self.told = Some(report.clone());
            let stamp = self.next_stamp();
            socket.say(&FromMember::Report(Report { stamp, ..report }.into()).to_wire()).await?;
        }
        Ok(())
    }

    fn next_stamp(&mut self) -> Stamp {
        self.stamp.sequence += 1;
        self.stamp
    }

    fn obey(&mut self, order: v1::ToMember) -> Result<(), Box<dyn std::error::Error>> {
        match ToMember::from_wire(order)? {
            Some(ToMember::Wish(wish, _)) => self.feed(Input::Wish(wish)),
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
            let now = Millis(self.born.elapsed().as_millis() as u64);
            for action in self.member.step(now, input) {
                inputs.push_back(self.act(action));
            }
        }
    }

    fn act(&mut self, action: Action) -> Input {
        match action {
            Action::Remember(seen) => Input::Remembered(seen),
            Action::Stage(release) => Input::Staged(release),
            Action::Try { release, ticket, bake } => self.try_out(release, ticket, bake),
            // Nothing is kept warm here.
            Action::GoBack { .. } => Input::Stands(self.status.clone()),
            Action::HandBack => {
                if let Some((release, ticket, _)) = self.bake.take() {
                    self.world.end(release);
                    self.status.serving = self.status.standby.take();
                    self.status.trial = Some((ticket, TrialState::Dropped));
                }
                Input::Stands(self.status.clone())
            }
        }
    }

    fn try_out(&mut self, release: ReleaseId, ticket: Ticket, bake: Bake) -> Input {
        if let Ticket::Deploy { .. } = ticket {
            self.world.begin(&self.id, release);
        }
        if self.world.is_bad(release) {
            self.fail(release, ticket);
        } else {
            self.status.standby = self.status.serving.replace(Running::Release(release));
            self.status.healthy = true;
            (self.status.started_in, self.status.handed_over_in) = (Some(STARTS_IN), Some(TAKES_OVER_IN));
            self.status.trial = Some((ticket, TrialState::Proving));
            self.bake = Some((release, ticket, Instant::now() + Duration::from_millis(bake.time.0)));
        }
        Input::Stands(self.status.clone())
    }

    fn fail(&mut self, release: ReleaseId, ticket: Ticket) {
        self.world.end(release);
        let detail = "exit code 3 after 12 ms\nfatal: no such table".to_owned();
        let refused = TrialState::Refused { cause: Cause::Exit, detail, generation: GenerationId(2) };
        self.status.trial = Some((ticket, refused));
    }

    fn baked(&mut self) {
        let Some((release, ticket, _)) = self.bake.take() else { return };
        if self.world.is_bad(release) {
            self.status.serving = self.status.standby.take();
            self.fail(release, ticket);
            return self.feed(Input::Stands(self.status.clone()));
        }
        if !self.world.may_prove() {
            self.bake = Some((release, ticket, Instant::now() + HELD));
            return;
        }
        let epoch = match ticket {
            Ticket::Deploy { epoch, .. } => {
                self.world.end(release);
                epoch
            }
            Ticket::Restore | Ticket::Replace | Ticket::Reload => Epoch(0),
        };
        self.status.standby = None;
        self.status.trial = Some((ticket, TrialState::Proven));
        self.feed(Input::Committed(release, epoch));
        self.feed(Input::Stands(self.status.clone()));
    }
}
