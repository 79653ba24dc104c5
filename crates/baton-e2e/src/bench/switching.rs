//! How soon all new connections go to another generation: after it is healthy, and after the order to hand back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::goal::Goal;
use super::moments::{Moments, ms_between, now};
use super::sample::Sample;
use crate::member::{Member, Settings};
use crate::ports::free_address;

/// How many handovers are measured, and how many times it is handed back.
const TURNS: usize = 50;
/// How many clients connect without a pause. More than there are cores would measure the machine.
const CLIENTS: usize = 2;
/// How long a client waits for an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug, Clone)]
struct Seen {
    begun: u64,
    /// Which generation answered; none where it was refused or cut.
    generation: Option<String>,
}

/// What clients saw of one change.
#[derive(Debug, Clone, Copy)]
struct Change {
    /// When the last connection was begun that the generation answered which was to be left.
    last: u64,
    connections: u64,
    lost: u64,
}

/// Clients that connect without a pause, and note who answers.
struct Storm {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Seen>>>,
}

impl Storm {
    /// Begins, and waits until clients are answered.
    fn begin(address: SocketAddr) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (answered, answers) = mpsc::channel();
        let client = |_| {
            let (stop, answered) = (Arc::clone(&stop), answered.clone());
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let begun = now();
                    let generation = ask(address).ok();
                    if generation.is_some() {
                        // Only the first one is waited for.
                        let _ = answered.send(());
                    }
                    seen.push(Seen { begun, generation });
                }
                seen
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        let storm = Self { stop, clients };
        for _ in 0..CLIENTS {
            answers.recv_timeout(LIMIT).context("nobody is answered")?;
        }
        Ok(storm)
    }

    /// What was seen of the change from this generation to another one.
    fn end(mut self, left: u64) -> anyhow::Result<Change> {
        self.stop.store(true, Ordering::Relaxed);
        let left = left.to_string();
        let (mut last, mut connections, mut lost) = (None, 0, 0);
        for client in std::mem::take(&mut self.clients) {
            for seen in client.join().map_err(|_| anyhow!("a client panicked"))? {
                connections += 1;
                match seen.generation {
                    Some(generation) if generation == left => last = last.max(Some(seen.begun)),
                    Some(_) => {}
                    None => lost += 1,
                }
            }
        }
        let last = last.with_context(|| format!("generation {left} answered nobody"))?;
        Ok(Change { last, connections, lost })
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Connects, asks, and returns the generation that answers.
fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).context("a connection was refused")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("a connection was cut")?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    let identity: serde_json::Value = serde_json::from_str(body)?;
    Ok(identity["release"].as_str().context("an answer without a release")?.to_owned())
}

/// Many changes of one kind.
#[derive(Debug)]
struct Changes {
    way: &'static str,
    ms: Sample,
    connections: u64,
    lost: u64,
}

impl Changes {
    fn new(way: &'static str) -> Self {
        Self { way, ms: Sample::default(), connections: 0, lost: 0 }
    }

    fn add(&mut self, from: u64, change: Change) {
        // Nobody may have connected after it any more.
        self.ms.add(ms_between(from, change.last).max(0.0));
        self.connections += change.connections;
        self.lost += change.lost;
    }
}

/// The figures, by the way to hand over.
#[derive(Debug, Default)]
pub struct Switching {
    /// From the candidate's first healthy answer to the last connection begun that its predecessor answered.
    handovers: Vec<Changes>,
    /// From the order to the last connection begun that the generation answered which was taken back.
    hand_backs: Vec<Changes>,
}

/// Measures both for each way.
///
/// # Errors
/// If a generation does not serve.
pub fn measure(boot: &Path, web: &Path, folder: &Path) -> anyhow::Result<Switching> {
    let mut switching = Switching::default();
    for handover in ["auto", "inherit", "proxy"] {
        let folder = folder.join(handover);
        std::fs::create_dir_all(&folder)?;
        let settings = |bake| Settings { web: web.to_owned(), address: free_address(), handover, bake };
        switching.handovers.push(handovers(boot, &folder, &settings("50ms"))?);
        switching.hand_backs.push(hand_backs(boot, &folder, &settings("1m"))?);
    }
    Ok(switching)
}

fn handovers(boot: &Path, folder: &Path, settings: &Settings) -> anyhow::Result<Changes> {
    settings.write(folder)?;
    let place = tempfile::tempdir_in(folder)?;
    let mut moments = Moments::new(place.path())?;
    let mut member = Member::start(boot, folder, &[("MOMENTS", moments.path())])?;
    moments.wait_for("healthy")?;
    member.proven()?;
    let mut changes = Changes::new(settings.handover);
    for _ in 0..TURNS {
        let storm = Storm::begin(settings.address)?;
        let before = member.generation();
        member.order()?;
        let healthy = moments.wait_for("healthy")?.at;
        member.proven()?;
        changes.add(healthy, storm.end(before)?);
    }
    member.stop()?;
    Ok(changes)
}

/// A reload within the bake takes the generation back that is on trial, before anything else is tried.
fn hand_backs(boot: &Path, folder: &Path, settings: &Settings) -> anyhow::Result<Changes> {
    settings.write(folder)?;
    let mut member = Member::start(boot, folder, &[])?;
    let mut changes = Changes::new(settings.handover);
    for turn in 0..=TURNS {
        let storm = Storm::begin(settings.address)?;
        let taken_back = member.generation();
        let order = now();
        member.order()?;
        member.serves()?;
        let change = storm.end(taken_back)?;
        // The first one is a handover: nothing was on trial.
        if turn > 0 {
            changes.add(order, change);
        }
    }
    member.stop()?;
    Ok(changes)
}

impl Switching {
    /// What is to be reached.
    pub fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for (what, limit_ms, changes) in [
            ("handover, from healthy to all new connections", 10.0, &self.handovers),
            ("hand-back, from the order to all new connections", 50.0, &self.hand_backs),
        ] {
            for Changes { way, ms, .. } in changes {
                goals.push(Goal::at_most(format!("{what}, `{way}`"), limit_ms, " ms", ms.median()));
            }
            let lost: u64 = changes.iter().map(|changes| changes.lost).sum();
            let (what, _) = what.split_once(',').unwrap_or((what, ""));
            goals.push(Goal::at_most(format!("{what}: connections lost"), 0.0, "", lost as f64));
        }
        goals
    }

    /// The figures as lines of a table.
    pub fn table(&self) -> String {
        let mut text = "| way | candidate healthy to all new connections on it, ms | connections, lost \
                        | order to hand back to all new connections on the old one, ms | connections, lost |\n\
                        | --- | --- | --- | --- | --- |\n"
            .to_owned();
        for (handovers, hand_backs) in self.handovers.iter().zip(&self.hand_backs) {
            let [handover, hand_back] = [handovers, hand_backs]
                .map(|changes| format!("{} | {}, {}", changes.ms, changes.connections, changes.lost));
            text.push_str(&format!("| `{}` | {handover} | {hand_back} |\n", handovers.way));
        }
        text
    }
}
