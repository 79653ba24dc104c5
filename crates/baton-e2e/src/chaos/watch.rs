//! Everything that is seen of a run while it goes on: what servers tell, what members write down, what programs say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use baton_wire::api::{DeployView, EventView};

use super::control::Server;
use super::fleet::Fleet;
use super::ill::{Told, now_ms};
use super::net::Host;
use super::oracle::{Deploy, Noted, Seen};
use super::schedule::Size;
use crate::load::Driven;

/// How often a server is asked what is new, and a member's disk looked at.
const LOOK: Duration = Duration::from_millis(150);
/// The load counts on from the time at which it began, and programs tell that of the system: by so much, in ms, the two may
/// differ.
const CLOCKS_MS: u64 = 50;
/// How many events are asked for again: servers that were cut off may tell one later than its number says.
const AGAIN: u64 = 50;

/// The load, which several threads talk to.
pub type Load = Arc<Mutex<Option<Driven>>>;

/// What was seen.
#[derive(Debug, Default)]
pub struct Notes {
    /// Deploys by their id.
    pub deploys: BTreeMap<String, DeployView>,
    /// Deploys that have been switched at some time.
    pub switched: BTreeSet<String>,
    /// Events, each once, whichever server told it.
    pub events: BTreeMap<(u64, String, Option<String>, Option<String>), EventView>,
    /// Launches.
    pub launches: Vec<Noted<String>>,
    /// Changes of what members have committed to.
    pub commits: Vec<Noted<String>>,
    /// Changes of what members have seen.
    pub seen: Vec<Noted<Seen>>,
    /// How many programs fell ill.
    pub fallen: usize,
}

impl Notes {
    /// Deploys, for the oracle.
    pub fn deploys(&self) -> Vec<Deploy> {
        let deploy = |deploy: &DeployView| Deploy {
            id: deploy.id.clone(),
            epoch: deploy.epoch,
            kind: deploy.kind.clone(),
            release: deploy.release.clone(),
            at_ms: deploy.created_ms,
            switched: deploy.switched || self.switched.contains(&deploy.id),
        };
        self.deploys.values().map(deploy).collect()
    }

    /// What happened, a line each.
    pub fn story(&self) -> String {
        let line = |event: &EventView| {
            let member = event.member.as_deref().unwrap_or("");
            format!("{} {} {member} {}\n", event.at_ms, event.kind, event.text)
        };
        self.events.values().map(line).collect()
    }

    /// Slots, for the oracle.
    pub fn grants(&self) -> Vec<Noted<String>> {
        let grants = self.events.values().filter(|event| event.kind == "granted");
        grants
            .filter_map(|event| {
                let (member, what) = (event.member.clone()?, event.deploy.clone()?);
                Some(Noted { member, at_ms: event.at_ms, what })
            })
            .collect()
    }
}

/// The threads that look.
#[derive(Debug)]
pub struct Watch {
    notes: Arc<Mutex<Notes>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look.
    pub fn start(folder: &Path, size: Size, load: &Load) -> Self {
        let (notes, stop) = (Arc::<Mutex<Notes>>::default(), Arc::<AtomicBool>::default());
        let mut threads = Vec::new();
        for server in Server::all(size.servers) {
            let (notes, stop) = (notes.clone(), stop.clone());
            threads.push(std::thread::spawn(move || ask(&server, &notes, &stop)));
        }
        let mut disks = Disks::new(folder, size.members, load.clone());
        let (noted, stopped) = (notes.clone(), stop.clone());
        threads.push(std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                disks.look(&noted);
                std::thread::park_timeout(LOOK);
            }
            disks.look(&noted);
        }));
        Self { notes, stop, threads }
    }

    /// What was seen so far.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }

    /// Looks a last time.
    ///
    /// # Errors
    /// If a thread has ended before.
    pub fn stop(self) -> anyhow::Result<Notes> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread that looks has panicked"))?;
        }
        Ok(std::mem::take(&mut *lock(&self.notes)))
    }
}

/// What is behind it stays whole: it is changed in single steps.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says something to the load, if there is any.
///
/// # Errors
/// If it is not understood.
pub fn say(load: &Load, line: &str) -> anyhow::Result<()> {
    lock(load).as_ref().map_or(Ok(()), |load| load.say(line))
}

/// Asks a server again and again. One that does not answer has nothing to tell.
fn ask(server: &Server, notes: &Mutex<Notes>, stop: &AtomicBool) {
    let mut last = 0_u64;
    loop {
        let ends = stop.load(Ordering::Relaxed);
        let events = server.events(last.saturating_sub(AGAIN)).unwrap_or_default();
        let deploys = server.deploys().unwrap_or_default();
        let mut notes = lock(notes);
        for event in events {
            last = last.max(event.sequence);
            if event.kind == "switched"
                && let Some(deploy) = &event.deploy
            {
                notes.switched.insert(deploy.clone());
            }
            let key = (event.at_ms, event.kind.clone(), event.member.clone(), event.deploy.clone());
            notes.events.insert(key, event);
        }
        for deploy in deploys {
            if deploy.switched {
                notes.switched.insert(deploy.id.clone());
            }
            notes.deploys.insert(deploy.id.clone(), deploy);
        }
        drop(notes);
        if ends {
            return;
        }
        std::thread::park_timeout(LOOK);
    }
}

/// The disks of all members.
struct Disks {
    members: Vec<Disk>,
    load: Load,
}

/// One member's: its records, and what its programs tell.
struct Disk {
    name: String,
    address: String,
    state: PathBuf,
    told: PathBuf,
    /// How much of what is told was read.
    read: usize,
    committed: Option<String>,
    seen: Option<Seen>,
    /// Programs that have fallen ill, and may not have ended yet.
    falling: Vec<Told>,
}

impl Disks {
    fn new(folder: &Path, members: usize, load: Load) -> Self {
        let disk = |member| Disk {
            name: Host::Member(member).to_string(),
            address: Fleet::address(member),
            state: Fleet::state(folder, member),
            told: Fleet::told(folder, member),
            read: 0,
            committed: None,
            seen: None,
            falling: Vec::new(),
        };
        Self { members: (0..members).map(disk).collect(), load }
    }

    fn look(&mut self, notes: &Mutex<Notes>) {
        for disk in &mut self.members {
            // What is not there is not told.
            let _ = disk.look(notes, &self.load);
        }
    }
}

impl Disk {
    fn look(&mut self, notes: &Mutex<Notes>, load: &Load) -> anyhow::Result<()> {
        self.hear(notes)?;
        let now = now_ms();
        // Whoever is cut by the end of a program that fell ill is not lost.
        for fallen in self.falling.extract_if(.., |falling| !is_alive(falling.pid)) {
            let from = fallen.at_ms.saturating_sub(CLOCKS_MS);
            say(load, &format!("window {} {from} {now}", self.address))?;
        }
        let noted = |what| Noted { member: self.name.clone(), at_ms: now, what };
        if let Some([_, epoch, deploy]) = record(&self.state.join("seen")) {
            let seen = Seen { epoch: word(&epoch, "epoch ")?.parse()?, deploy: word(&deploy, "deploy ")? };
            if self.seen.as_ref() != Some(&seen) {
                lock(notes).seen.push(Noted { member: self.name.clone(), at_ms: now, what: seen.clone() });
                self.seen = Some(seen);
            }
        }
        if let Some([_, release, _]) = record(&self.state.join("committed")) {
            let release = word(&release, "release ")?;
            if self.committed.as_ref() != Some(&release) {
                lock(notes).commits.push(noted(release.clone()));
                self.committed = Some(release);
            }
        }
        Ok(())
    }

    /// Takes in what programs have told since.
    fn hear(&mut self, notes: &Mutex<Notes>) -> anyhow::Result<()> {
        let Ok(text) = std::fs::read_to_string(&self.told) else { return Ok(()) };
        let new = text.get(self.read..).unwrap_or_default();
        // A line that is being written is heard next time.
        let whole = new.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole;
        for line in new[..whole].lines() {
            let told: Told = line.parse()?;
            let mut notes = lock(notes);
            if told.falls {
                notes.fallen += 1;
                self.falling.push(told);
            } else {
                let member = self.name.clone();
                notes.launches.push(Noted { member, at_ms: told.at_ms, what: told.release });
            }
        }
        Ok(())
    }
}

/// The first three lines of a record: its name, and two facts.
fn record(path: &Path) -> Option<[String; 3]> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines().map(str::to_owned);
    Some([lines.next()?, lines.next()?, lines.next()?])
}

fn word(line: &str, name: &str) -> anyhow::Result<String> {
    line.strip_prefix(name).map(str::to_owned).with_context(|| format!("no {name:?} in {line:?}"))
}

/// Whether a process runs, and was not only not reaped yet.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may contain anything; the state follows it.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
