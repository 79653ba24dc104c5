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
    generation: String,
}

/// Clients that connect without a pause, and note who answers.
struct Storm {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<anyhow::Result<Vec<Seen>>>>,
}

impl Storm {
    /// Begins, and waits until every client has been answered.
    fn begin(address: SocketAddr) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (answered, answers) = mpsc::channel();
        let client = |_| {
            let (stop, answered) = (Arc::clone(&stop), answered.clone());
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let begun = now();
                    seen.push(Seen { begun, generation: ask(address)? });
                    if seen.len() == 1 {
                        answered.send(())?;
                    }
                }
                Ok(seen)
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        drop(answered);
        for _ in 0..CLIENTS {
            answers.recv().context("a client was not answered")?;
        }
        Ok(Self { stop, clients })
    }

    /// When the last connection was begun that this generation answered.
    fn end(self, generation: u64) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let generation = generation.to_string();
        let mut last = None;
        for client in self.clients {
            let seen = client.join().map_err(|_| anyhow!("a client panicked"))??;
            let of_it = seen.iter().filter(|seen| seen.generation == generation).map(|seen| seen.begun);
            last = last.max(of_it.max());
        }
        last.with_context(|| format!("generation {generation} answered nobody"))
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

/// The figures, in ms.
#[derive(Debug, Default)]
pub struct Switching {
    /// By the way of the handover: from the candidate's first healthy answer to the last connection begun that its
    /// predecessor answered; none if there was none after it.
    handover: Vec<(&'static str, Sample)>,
    /// From the order to the last connection begun that the handed-back generation answered.
    hand_back: Vec<(&'static str, Sample)>,
}

/// Measures both for each way.
///
/// # Errors
/// If a connection is refused or cut, or a generation does not serve.
pub fn measure(boot: &Path, web: &Path, folder: &Path) -> anyhow::Result<Switching> {
    let mut switching = Switching::default();
    for handover in ["auto", "inherit", "proxy"] {
        let folder = folder.join(handover);
        std::fs::create_dir_all(&folder)?;
        let settings = |bake| Settings { web: web.to_owned(), address: free_address(), handover, bake };
        switching.handover.push((handover, handovers(boot, &folder, &settings("1ms"))?));
        switching.hand_back.push((handover, hand_backs(boot, &folder, &settings("1m"))?));
    }
    Ok(switching)
}

fn handovers(boot: &Path, folder: &Path, settings: &Settings) -> anyhow::Result<Sample> {
    settings.write(folder)?;
    let place = tempfile::tempdir_in(folder)?;
    let mut moments = Moments::new(place.path())?;
    let mut member = Member::start(boot, folder, &[("MOMENTS", moments.path())])?;
    moments.wait_for("healthy")?;
    member.proven()?;
    let mut sample = Sample::default();
    for _ in 0..TURNS {
        let storm = Storm::begin(settings.address)?;
        let before = member.generation();
        member.order()?;
        let healthy = moments.wait_for("healthy")?.at;
        member.proven()?;
        let last = storm.end(before)?;
        sample.add(ms_between(healthy, last).max(0.0));
    }
    member.stop()?;
    Ok(sample)
}

/// A reload within the bake takes the generation back that is on trial, before anything else is tried.
fn hand_backs(boot: &Path, folder: &Path, settings: &Settings) -> anyhow::Result<Sample> {
    settings.write(folder)?;
    let mut member = Member::start(boot, folder, &[])?;
    let mut sample = Sample::default();
    for turn in 0..=TURNS {
        let storm = Storm::begin(settings.address)?;
        let taken_back = member.generation();
        let order = now();
        member.order()?;
        member.serves()?;
        let last = storm.end(taken_back)?;
        // The first generation is on trial for nobody; the second takes its place by a handover.
        if turn > 0 {
            sample.add(ms_between(order, last));
        }
    }
    member.stop()?;
    Ok(sample)
}

impl Switching {
    /// What is to be reached.
    pub fn goals(&self) -> Vec<Goal> {
        let goals = |what: &'static str, limit, of: &[(&'static str, Sample)]| {
            let goal = |(way, sample): &(&str, Sample)| {
                Goal::at_most(format!("{what}, `{way}`"), limit, " ms", sample.median())
            };
            of.iter().map(goal).collect::<Vec<_>>()
        };
        let mut all = goals("handover, from healthy to all new connections", 10.0, &self.handover);
        all.extend(goals("hand-back, from the order to all new connections", 50.0, &self.hand_back));
        all
    }

    /// The figures as lines of a table.
    pub fn table(&self) -> String {
        let mut text =
            "| way | candidate healthy to all new connections on it, ms | order to hand back to all new \
             connections on the old one, ms |\n| --- | --- | --- |\n"
                .to_owned();
        for ((way, handover), (_, hand_back)) in self.handover.iter().zip(&self.hand_back) {
            text.push_str(&format!("| `{way}` | {handover} | {hand_back} |\n"));
        }
        text
    }
}
