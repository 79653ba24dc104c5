//! What a member does that has control: it hears wishes, brings releases to its disk, and reports.

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use baton_core::bake::Bake;
use baton_core::ids::{DeployId, Epoch, GenerationId, ReleaseId, ServiceName};
use baton_core::member::{Action, Input, Member, Record, Remembered};
use baton_core::output::time::UnixMicros;
use baton_core::report::{Cause, Fetching, Refusal, Seen};
use baton_core::supervisor::{Event, Launch, Order, Plan, Running, Status, Supervisor, Ticket, TrialState};
use baton_core::units::{Bytes, Millis};
use baton_release::fetch::{FetchError, Fetched, Way};
use baton_release::read::ReadError;
use baton_release::releases::{self, Keep, RecordError, ReleasesDir, VerifyError};
use baton_wire::session::Hello;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::Control;
use crate::errands::{Errand, Errands};
use crate::identity::Identity;
use crate::link::{Link, LinkStatus};
use crate::log;
use crate::secrets::Resolver;
use crate::session::{Saying, Session};
use crate::supply::{Peering, Supply};
use crate::trust::Gate;

/// How long a goodbye may take. Control learns of the end anyway, a lease later.
const GOODBYE: Duration = Duration::from_millis(300);
/// How long after a release was committed the disk is put in order: members of the same host that are still to have it need the
/// processors and the disk for that.
const UPKEEP_AFTER: Millis = Millis::from_secs(2);

/// What a member brings along.
pub struct Start {
    /// How many proven releases it keeps.
    pub keep: usize,
    /// Where it listens, for people.
    pub listens: Vec<String>,
    /// The bootloader's own environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Its releases.
    pub releases: Arc<ReleasesDir>,
    /// The deploy in whose trial everything here was killed at once.
    pub killed_in: Option<DeployId>,
}

/// A member's side of control.
pub struct Controlled {
    member: Member,
    releases: Arc<ReleasesDir>,
    inputs: mpsc::UnboundedSender<Input>,
    orders: mpsc::UnboundedSender<Event>,
    /// One record is written at a time, and each looks at what is there: threads may overtake each other.
    writing: Arc<Mutex<()>>,
    service: ServiceName,
    gate: Arc<Gate>,
    secrets: Arc<Resolver>,
    supply: Arc<Supply>,
    errands: Arc<Errands>,
    saying: watch::Sender<Saying>,
    session: JoinHandle<()>,
    link: Arc<Link>,
    identity: Arc<Identity>,
    status: Status,
    keep: Keep,
    /// Old releases are to be removed, and the next one prepared for, once nothing is tried.
    upkeep_due: bool,
    /// When that will be so.
    upkeep_at: Option<Millis>,
}

impl Controlled {
    /// Reads what this member has not forgotten, and starts its session.
    pub fn start(
        control: &Control,
        start: Start,
        inputs: mpsc::UnboundedSender<Input>,
        orders: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, Box<dyn Error>> {
        let Start { keep, listens, environment, releases, killed_in } = start;
        let gate = Arc::new(Gate::open(control, releases.clone())?);
        let remembered = Remembered { killed_in, ..remembered(&releases, gate.newest()) };
        let member =
            Member::remembering(control.member.clone(), &remembered).labelled(control.labels.clone());
        let (saying, said) = watch::channel(Saying::Report(member.report().into()));
        let identity = Arc::new(Identity::open(control, releases.dir())?);
        let supply = Arc::new(Supply::open(control, identity.server(), releases.clone()));
        let hello = Hello {
            member: control.member.clone(),
            service: control.service.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listens,
            life: life(),
            peer: supply.peering().map(Peering::address),
        };
        let keys = supply.peering().map(Peering::keys);
        let (asks, asked) = mpsc::unbounded_channel();
        let secrets = Arc::new(Resolver::new(environment, releases.clone(), asks));
        let given = (keys, supply.shelf());
        let session =
            Session::new(identity.clone(), hello, said, asked, inputs.clone(), gate.clone(), given)?;
        let (link, session) = (session.link(), tokio::spawn(session.run()));
        Ok(Self {
            member,
            releases,
            inputs,
            orders,
            writing: Arc::default(),
            service: control.service.clone(),
            gate,
            secrets,
            supply,
            errands: Arc::default(),
            saying,
            session,
            link,
            identity,
            status: Status::default(),
            keep: Keep { held: BTreeSet::new(), proven: keep },
            upkeep_due: true,
            upkeep_at: None,
        })
    }

    /// How the member stands with control, for the admin socket.
    pub fn standing(&self) -> serde_json::Value {
        let LinkStatus { connected, since, server, trouble } = self.link.status();
        let report = self.member.report();
        let time = |at: SystemTime| UnixMicros(micros(at.duration_since(UNIX_EPOCH).unwrap_or_default()));
        json!({
            "connected": connected,
            "since_ms": micros(since) / 1000,
            "server": server,
            "trouble": trouble,
            "member": report.member.as_str(),
            "service": self.service.as_str(),
            "seen_epoch": report.seen.map(|seen| seen.epoch.0),
            "committed": report.committed.map(|(release, _)| release.to_string()),
            "committed_epoch": report.committed.map(|(_, epoch)| epoch.0),
            "credential_renewed": self.identity.due().map(|due| time(due).to_string()),
        })
    }

    /// Starts what this member has committed to; `false` when that is nothing.
    pub fn restore(&self) -> bool {
        let Some((release, _)) = self.member.committed() else { return false };
        let (ticket, bake) = (Ticket::Restore, Bake::NONE);
        self.prepare(release, ticket, move |plan| Order::Try(Launch { plan, ticket, bake }));
        true
    }

    /// Whether that is still to come.
    pub fn is_restoring(&self) -> bool {
        self.member.is_restoring()
    }

    /// Takes in what happened and does what follows.
    pub fn step(&mut self, now: Millis, input: Input) {
        if matches!(input, Input::Committed(..)) {
            self.upkeep_at = Some(now + UPKEEP_AFTER);
        }
        self.upkeep_due |= self.upkeep_at.take_if(|at| *at <= now).is_some();
        let lost = matches!(input, Input::Lost(_));
        let actions = self.member.step(now, input);
        self.hold_more();
        self.errands.need(self.member.needs());
        for action in actions {
            match action {
                Action::Remember(seen) => self.remember(seen),
                Action::Stage(release) => self.stage(release),
                Action::Try { release, ticket, bake } => {
                    if lost {
                        let release = release.short();
                        log::say(format_args!(
                            "launches release {release} instead, which was proven here before"
                        ));
                    }
                    self.prepare(release, ticket, move |plan| Order::Try(Launch { plan, ticket, bake }));
                }
                Action::GoBack { release, ticket } => {
                    let bake = Bake::NONE;
                    self.prepare(release, ticket, move |plan| Order::GoBack(Launch { plan, ticket, bake }));
                }
                Action::HandBack => self.order(Order::HandBack),
            }
        }
    }

    /// Sees to it that what runs stays on disk, and that the disk is put in order when nothing is tried.
    pub fn keep_house(&mut self, machine: &Supervisor) {
        let held = machine.releases().chain(self.member.needs()).collect();
        if held != self.keep.held {
            self.keep.held = held;
            self.releases.keep(self.keep.clone());
        }
        if self.upkeep_due && self.status.healthy && !machine.is_busy() {
            self.upkeep_due = false;
            self.releases.keep(self.keep.clone());
            self.upkeep();
        }
    }

    /// Nothing that is wanted from now on may go, before anything is done for it.
    fn hold_more(&mut self) {
        let before = self.keep.held.len();
        self.keep.held.extend(self.member.needs());
        if self.keep.held.len() > before {
            self.releases.keep(self.keep.clone());
        }
    }

    /// When to call [`Controlled::step`] with [`Input::Woken`].
    pub fn deadline(&self) -> Option<Millis> {
        [self.member.deadline(), self.upkeep_at].into_iter().flatten().min()
    }

    /// Takes in how the generations stand, and tells control when anything has changed. `last_lines` gives what
    /// a generation wrote at last.
    pub fn report(&mut self, now: Millis, status: Status, last_lines: impl Fn(GenerationId) -> Vec<String>) {
        if status != self.status {
            self.status = status.clone();
            let status = self.with_last_lines(status, last_lines);
            self.step(now, Input::Stands(status));
        }
        let report = Saying::Report(self.member.report().into());
        self.saying.send_if_modified(|said| {
            let changed = *said != report;
            *said = report;
            changed
        });
    }

    /// Writes down what is proven, and has used so much memory; the report follows when it is on disk.
    pub fn commit(&self, plan: &Plan, ticket: Ticket, used: Option<Bytes>) {
        let Running::Release(release) = plan.release else { return };
        let epoch = match (ticket, self.member.committed()) {
            (Ticket::Deploy { epoch, .. }, _) => epoch,
            (Ticket::Restore, None) if self.member.may_commit_unasked(release) => {
                self.member.report().seen.map_or(Epoch(0), |seen| seen.epoch)
            }
            // What runs without a slot is not what this member shall come back with, if it is not that already.
            (Ticket::Restore | Ticket::Replace | Ticket::Reload, _) => return,
        };
        let (writing, inputs) = (self.writing.clone(), self.inputs.clone());
        self.blocking(move |releases| {
            let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
            let before = releases.committed().ok().flatten();
            if before.as_ref().is_some_and(|committed| committed.epoch > epoch) {
                return None;
            }
            if let Some(used) = used {
                let before = before.filter(|before| before.release != release);
                let before = before.and_then(|before| releases.peak(before.release));
                // The receiver lives as long as the member.
                let _ = inputs.send(Input::Used(release, used, before));
            }
            Some(match releases.commit(release, epoch) {
                Ok(()) => Input::Committed(release, epoch),
                Err(error) => {
                    let detail = format!("cannot commit release {}: {}", release.short(), log::chain(&error));
                    log::say(&detail);
                    Input::NotCommitted(release, Refusal { cause: Cause::Disk, detail })
                }
            })
        });
    }

    /// Says goodbye, if control is there to hear it.
    pub async fn leave(self) {
        self.saying.send_modify(|saying| {
            if let Saying::Report(last) = saying {
                *saying = Saying::Goodbye(last.clone());
            }
        });
        let _ = tokio::time::timeout(GOODBYE, self.session).await;
    }

    fn remember(&self, seen: Seen) {
        let writing = self.writing.clone();
        self.blocking(move |releases| {
            let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
            Some(match releases.see(releases::Seen { epoch: seen.epoch, deploy: seen.deploy }) {
                Ok(()) => Input::Remembered(seen),
                Err(error) => {
                    log::say(format_args!(
                        "cannot obey deploy {}: {}",
                        seen.deploy.short(),
                        log::chain(&error)
                    ));
                    Input::NotRemembered(seen)
                }
            })
        });
    }

    /// What is here waits for nothing that is fetched: it may be the way back.
    fn stage(&self, release: ReleaseId) {
        let (errands, work) = (self.errands.clone(), self.work());
        self.blocking(move |releases| {
            match releases.verify(release) {
                Ok(_) => work(Errand::Fetch(release)),
                Err(_) => errands.run(Errand::Fetch(release), work),
            }
            None
        });
    }

    fn upkeep(&self) {
        let (errands, work) = (self.errands.clone(), self.work());
        self.blocking(move |_| {
            errands.run(Errand::Upkeep, work);
            None
        });
    }

    /// What does an errand.
    fn work(&self) -> impl Fn(Errand) + Send + 'static {
        let (gate, supply, inputs) = (self.gate.clone(), self.supply.clone(), self.inputs.clone());
        let (releases, secrets) = (self.releases.clone(), self.secrets.clone());
        move |errand| match errand {
            // The receiver lives as long as the member.
            Errand::Fetch(release) => drop(inputs.send(bring(release, &gate, &supply, &inputs))),
            Errand::Upkeep => {
                put_in_order(&releases);
                secrets.forget_gone();
            }
        }
    }

    /// Whether an order that took time to prepare is still wanted.
    pub fn wants(&self, order: &Order) -> bool {
        match order {
            Order::Try(launch) => self.member.wants(launch.ticket),
            Order::GoBack(launch) => self.member.wants_back(launch.ticket),
            Order::HandBack | Order::Stop | Order::Forward(_) => true,
        }
    }

    /// Verifies a release, gets its secrets and gives the order. One that was altered on disk is refused, and fetched again later.
    fn prepare(
        &self,
        release: ReleaseId,
        ticket: Ticket,
        order: impl FnOnce(Arc<Plan>) -> Order + Send + 'static,
    ) {
        let (orders, service) = (self.orders.clone(), self.service.clone());
        let (gate, secrets) = (self.gate.clone(), self.secrets.clone());
        self.blocking(move |releases| {
            let checked = match releases.verify(release) {
                Ok(manifest) if manifest.service == service => gate.launch(release).map(|()| manifest),
                Ok(manifest) => {
                    let detail =
                        format!("it was made for service {}, and this is {service}", manifest.service);
                    Err(Refusal { cause: Cause::Verify, detail })
                }
                Err(error) => Err(refusal_of_verify(&error)),
            };
            let planned = checked.and_then(|manifest| {
                gate.secrets(&manifest.run.secrets)?;
                let values = secrets
                    .resolve(release, &manifest.run.secrets)
                    .map_err(|lacking| Refusal { cause: Cause::Secrets, detail: lacking.to_string() })?;
                Ok(Plan::new(Running::Release(release), manifest.run).with_secrets(values))
            });
            let refused = match planned {
                Ok(plan) => {
                    let _ = orders.send(Event::Order(order(plan.into())));
                    return None;
                }
                Err(refused) => refused,
            };
            log::say(format_args!("cannot launch release {}: {}", release.short(), refused.detail));
            Some(match ticket {
                // The release is as it was; what it lacks may come.
                Ticket::Restore if refused.cause == Cause::Secrets => Input::Delayed(release),
                Ticket::Restore => Input::Lost(release),
                Ticket::Deploy { .. } | Ticket::Replace | Ticket::Reload => {
                    Input::NotStaged(release, refused)
                }
            })
        });
    }

    /// What a refused program wrote last goes to control, which keeps it: no secret may be in it that was written too.
    fn with_last_lines(
        &self,
        mut status: Status,
        last_lines: impl Fn(GenerationId) -> Vec<String>,
    ) -> Status {
        if let Some((_, TrialState::Refused { detail, generation, .. })) = &mut status.trial {
            for line in last_lines(*generation) {
                detail.push('\n');
                detail.push_str(&line);
            }
            *detail = self.secrets.hide(detail);
        }
        status
    }

    fn order(&self, order: Order) {
        let _ = self.orders.send(Event::Order(order));
    }

    /// Does something that waits for a disk or the network, on a thread of its own.
    fn blocking(&self, work: impl FnOnce(&ReleasesDir) -> Option<Input> + Send + 'static) {
        let (releases, inputs) = (self.releases.clone(), self.inputs.clone());
        spawn_blocking(move || {
            if let Some(input) = work(&releases) {
                // The receiver lives as long as the member.
                let _ = inputs.send(input);
            }
        });
    }
}

/// What a member has not forgotten. What cannot be read is told; the member makes do with what else there is.
fn remembered(releases: &ReleasesDir, warrant: Option<(ReleaseId, Epoch)>) -> Remembered {
    let seen = told(releases.seen(), |seen| Seen { epoch: seen.epoch, deploy: seen.deploy });
    let committed = told(releases.committed(), |committed| (committed.release, committed.epoch));
    let here = releases.list().unwrap_or_default().into_iter();
    let proven = here.filter_map(|release| Some((release, releases.proven(release)?))).collect();
    let remembered = Remembered { seen, committed, proven, warrant, killed_in: None };
    if let Some((_, floor)) = remembered.floor() {
        log::say(format_args!(
            "no deploy is obeyed that may be older than what was seen here: none below {floor}"
        ));
    }
    if let (Record::Lost, Some((release, epoch))) = (remembered.committed, remembered.committed()) {
        log::say(format_args!("release {} was proven here last, and counts as committed", release.short()));
        if let Err(error) = releases.commit(release, epoch) {
            log::say(format_args!("that cannot be written down: {}", log::chain(&error)));
        }
    }
    remembered
}

fn told<T, U>(found: Result<Option<T>, RecordError>, what: impl FnOnce(T) -> U) -> Record<U> {
    match found {
        Ok(found) => found.map(what).into(),
        Err(error) => {
            log::say(log::chain(&error));
            Record::Lost
        }
    }
}

/// Brings a release to the disk, with what allows it to be there.
fn bring(release: ReleaseId, gate: &Gate, supply: &Supply, inputs: &mpsc::UnboundedSender<Input>) -> Input {
    let start = Instant::now();
    // The receiver lives as long as the member.
    let tell = |fetching| drop(inputs.send(Input::Fetching(release, fetching)));
    // Whether it may be here at all comes before anything is created, and is asked while the manifest is.
    let staged = thread::scope(|scope| {
        let asking = scope.spawn(|| gate.papers(release, supply.remote()));
        let (asking, papers) = (Mutex::new(Some(asking)), OnceLock::new());
        let answer = || {
            papers.get_or_init(|| {
                let asking = asking.lock().unwrap_or_else(PoisonError::into_inner).take()?;
                Some(asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        };
        let allowed = || matches!(answer(), Some(Ok(_)));
        let fetched = supply.fetch(release, &allowed, tell);
        // Whose answer was a panic has gone on with that.
        let Some(papers) = answer() else { unreachable!("whoever asks first has the answer") };
        let papers = papers.as_ref().map_err(Clone::clone)?;
        let fetched = fetched.map_err(|error| refusal_of_fetch(&error))?;
        say_fetched(release, fetched, start.elapsed());
        // A small one comes before anything is told of it.
        if fetched.bytes_fetched > 0 {
            let all = Bytes(fetched.bytes_fetched);
            tell(Fetching { fetched: all, total: all });
        }
        gate.keep(release, papers)
    });
    match staged {
        Ok(()) => Input::Staged(release),
        Err(refusal) => {
            log::say(format_args!("cannot fetch release {}: {}", release.short(), refusal.detail));
            Input::NotStaged(release, refusal)
        }
    }
}

fn put_in_order(releases: &ReleasesDir) {
    match releases.upkeep() {
        Ok(done) => {
            for release in done.gone {
                log::say(format_args!("release {} is no longer kept", release.short()));
            }
        }
        Err(error) => {
            log::say(format_args!("cannot put the state directory in order: {}", log::chain(&error)));
        }
    }
}

/// Says how a release came to the disk.
fn say_fetched(release: ReleaseId, Fetched { way, bytes_fetched, bytes_copied }: Fetched, took: Duration) {
    let how = match way {
        Way::There => return,
        Way::Patched { kept } => {
            format!("patched into a spare tree, of which {kept} things stay as they are")
        }
        Way::Resumed { kept } => {
            format!("an earlier fetch had left something of it, of which {kept} things stay as they are")
        }
        Way::Created => "created anew".to_owned(),
    };
    log::say(format_args!(
        "release {} is on disk after {} ms: {how}; {bytes_fetched} bytes fetched, {bytes_copied} copied",
        release.short(),
        took.as_millis()
    ));
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Which life of this member begins now: later ones have greater numbers.
fn life() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

fn refusal_of_fetch(error: &FetchError) -> Refusal {
    let cause = match error {
        FetchError::Read(ReadError::Store(_)) => Cause::Fetch,
        FetchError::Refused(_) | FetchError::OtherService { .. } | FetchError::Read(ReadError::Pack(_)) => {
            Cause::Verify
        }
        FetchError::Disk(_) | FetchError::NoRoom(_) => Cause::Disk,
        FetchError::NotAllowed => Cause::Untrusted,
    };
    Refusal { cause, detail: log::chain(error) }
}

fn refusal_of_verify(error: &VerifyError) -> Refusal {
    let cause = match error {
        VerifyError::Disk(_) => Cause::Disk,
        VerifyError::Absent(_)
        | VerifyError::Manifest(_)
        | VerifyError::Altered { .. }
        | VerifyError::Touched(_) => Cause::Verify,
    };
    Refusal { cause, detail: log::chain(error) }
}

#[cfg(test)]
mod tests;
