//! What each generation takes up, and the bootloader itself: looked at again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_core::ids::GenerationId;
use baton_core::supervisor::Event;
use baton_core::units::Bytes;
use baton_sys::process::usage::{Usage, usage};
use baton_sys::process::{self, Process};
use tokio::sync::mpsc;

use crate::log;
use crate::memory::Memory;
use crate::outlive::outlive;
use crate::tree::{self, Root};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How much longer than the processor's time that a look took the time to the next one is at the least: a machine with
/// thousands of processes is looked at less often, and never for more than half a hundredth of a processor's time.
const COST_MAX: u32 = 200;

/// For how long what a generation uses counts as what its start takes.
const EARLY: Duration = Duration::from_secs(60);

/// As for the thread that reads signals: its buffers are elsewhere.
const STACK_BYTES: usize = 128 * 1024;

/// What was found of each generation at the last look. All clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Watching(Arc<Mutex<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    generations: BTreeMap<GenerationId, Generation>,
    own: Option<Found>,
    others: Others,
}

/// Processes that descend from the bootloader and belong to no generation.
#[derive(Debug, Default)]
struct Others {
    /// Those of the last look, by pid and start: one may be of a generation that was launched during it.
    seen: BTreeSet<(i32, u64)>,
    /// Those that were nobody's at the look before as well.
    known: Vec<Other>,
}

/// A process that nothing ties to any generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its id.
    pub pid: i32,
    /// What the kernel calls it.
    pub name: String,
}

#[derive(Debug)]
struct Generation {
    root: Root,
    /// What it uses matters to whoever decides.
    told: bool,
    found: Option<Found>,
}

/// What some processes take up together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// How many there are.
    pub processes: usize,
    /// Their memory in bytes, by their proportional share where that may be read.
    pub memory: u64,
    /// The most that it was at any look.
    pub memory_peak: u64,
    /// The most that it was in the first time, [`EARLY`]: what a start takes, without what is leaked later.
    pub memory_peak_early: u64,
    /// How many descriptors they have open, each process for itself.
    pub descriptors: u64,
    /// The time that they have been computing.
    pub cpu: Duration,
    /// How much of one processor's time that was since the look before, in percent.
    pub cpu_percent: Option<u64>,
    /// When it was looked first.
    since: Instant,
    at: Instant,
}

impl Watching {
    /// Starts to look, for as long as the bootloader lives. `events` gets what those use of whom that is wanted.
    pub fn start(&self, memory: Memory, events: mpsc::UnboundedSender<Event>) {
        let looking = self.clone();
        // A thread of its own, with the little that it needs: /proc of a process in trouble can take its time, and
        // work that comes each second would keep every thread of a pool alive that was ever needed.
        let look = move || {
            let mut pause = EVERY;
            outlive(|| {
                loop {
                    // First of all, as a start has better things to do.
                    std::thread::park_timeout(pause);
                    let cost = cost_of(|| {
                        looking.look();
                        looking.lock().tell(Bytes(memory.most()), &events);
                    });
                    pause = EVERY.max(cost * COST_MAX);
                }
            });
        };
        let thread = std::thread::Builder::new().name("watching".to_owned()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(look) {
            log::say(format_args!("what programs use cannot be watched: {error}"));
        }
    }

    /// From now on a generation is looked at too; `told`: and what it uses is told.
    pub fn add(&self, root: Root, told: bool) {
        self.lock().generations.insert(root.generation, Generation { root, told, found: None });
    }

    /// A generation is gone.
    pub fn forget(&self, id: GenerationId) {
        self.lock().generations.remove(&id);
    }

    /// What was found of a generation at the last look.
    pub fn of(&self, id: GenerationId) -> Option<Found> {
        self.lock().generations.get(&id).and_then(|generation| generation.found)
    }

    /// What was found of the bootloader itself.
    pub fn own(&self) -> Option<Found> {
        self.lock().own
    }

    /// The processes that belong to no generation, as far as they were seen twice.
    pub fn others(&self) -> Vec<Other> {
        self.lock().others.known.clone()
    }

    fn look(&self) {
        let roots: Vec<Root> = self.lock().generations.values().map(|one| one.root.clone()).collect();
        let alone = roots.is_empty() && !process::has_children();
        // Where processes cannot be listed, nothing is told of them.
        let all = if alone { Vec::new() } else { process::all().unwrap_or_default() };
        let mut others: BTreeSet<(i32, u64)> = tree::below(&all).iter().map(identity).collect();
        for root in roots {
            let members = tree::among(&all, &root);
            for member in &members {
                others.remove(&identity(member));
            }
            let pids: Vec<i32> = members.iter().map(|process| process.pid).collect();
            let usages: Vec<Usage> = pids.into_iter().filter_map(usage).collect();
            if let Some(generation) = self.lock().generations.get_mut(&root.generation) {
                generation.found = Some(Found::of(&usages, Instant::now(), generation.found));
            }
        }
        let own = i32::try_from(std::process::id()).ok().and_then(usage);
        let mut watched = self.lock();
        watched.own = own.map(|own| Found::of(&[own], Instant::now(), watched.own));
        watched.others.look(others, name);
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The processor's time that this thread takes for something. By the clock on the wall a look at a machine that stands still
/// takes long, and costs nothing.
fn cost_of(work: impl FnOnce()) -> Duration {
    let taken = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap_or_default()
    };
    let before = taken();
    work();
    taken().saturating_sub(before)
}

fn identity(process: &Process) -> (i32, u64) {
    (process.pid, process.started)
}

fn name(pid: i32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

impl Others {
    /// Takes in those of a look. One that has no name has ended.
    fn look(&mut self, found: BTreeSet<(i32, u64)>, name: impl Fn(i32) -> Option<String>) {
        let again = found.intersection(&self.seen).map(|(pid, _)| *pid);
        self.known = again.filter_map(|pid| Some(Other { pid, name: name(pid)? })).collect();
        self.seen = found;
    }
}

impl Watched {
    fn tell(&self, limit: Bytes, events: &mpsc::UnboundedSender<Event>) {
        for (id, generation) in self.generations.iter().filter(|(_, generation)| generation.told) {
            if let Some(found) = generation.found {
                // The receiver lives as long as the member.
                let _ = events.send(Event::Used { generation: *id, used: Bytes(found.memory), limit });
            }
        }
    }
}

impl Found {
    fn of(usages: &[Usage], at: Instant, before: Option<Self>) -> Self {
        let memory = usages.iter().map(|usage| usage.memory).sum();
        let since = before.map_or(at, |before| before.since);
        let early = before.map_or(0, |before| before.memory_peak_early);
        let is_early = at.duration_since(since) <= EARLY;
        let cpu: Duration = usages.iter().map(|usage| usage.cpu).sum();
        let share = |before: Self| {
            let passed = at.duration_since(before.at).as_millis().max(1);
            // What orphans had computed goes with them.
            let computed = cpu.saturating_sub(before.cpu).as_millis();
            u64::try_from(computed * 100 / passed).unwrap_or(u64::MAX)
        };
        Self {
            processes: usages.len(),
            memory,
            memory_peak: before.map_or(0, |before| before.memory_peak).max(memory),
            memory_peak_early: if is_early { early.max(memory) } else { early },
            since,
            descriptors: usages.iter().map(|usage| usage.descriptors).sum(),
            cpu,
            cpu_percent: before.map(share),
            at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu: u64, memory: u64, descriptors: u64) -> Usage {
        Usage { cpu: Duration::from_millis(cpu), memory, descriptors }
    }

    /// Computes for so long.
    fn compute(time: Duration) {
        let mut spent = Duration::ZERO;
        while spent < time {
            spent += cost_of(|| {
                let _ = std::hint::black_box((0..1000).sum::<u64>());
            });
        }
    }

    #[test]
    fn a_look_costs_what_it_computes_and_not_how_long_it_waits() {
        let time = Duration::from_millis(20);
        assert!(cost_of(|| compute(time)) >= time);
        let waits = || std::thread::scope(|scope| drop(scope.spawn(|| compute(time)).join()));
        assert!(cost_of(waits) < time, "it was another one who computed");
    }

    #[test]
    fn a_process_is_nobodys_when_it_was_so_twice_and_still_is_there() {
        let mut others = Others::default();
        let name = |pid| (pid != 9).then(|| format!("program {pid}"));
        for (found, known) in [
            (vec![(7, 1), (9, 1)], vec![]),
            (vec![(7, 1), (8, 1), (9, 1)], vec![7]),
            // Its number is another one's by now.
            (vec![(7, 2), (8, 1)], vec![8]),
            (vec![], vec![]),
        ] {
            others.look(found.into_iter().collect(), name);
            assert_eq!(others.known.iter().map(|one| one.pid).collect::<Vec<_>>(), known);
            assert!(others.known.iter().all(|one| Some(&one.name) == name(one.pid).as_ref()));
        }
    }

    #[test]
    fn what_processes_take_up_is_added_and_held_against_the_look_before() {
        let start = Instant::now();
        let first = Found::of(&[usage(100, 5000, 10), usage(20, 300, 4)], start, None);
        let expected = Found {
            processes: 2,
            memory: 5300,
            memory_peak: 5300,
            memory_peak_early: 5300,
            descriptors: 14,
            cpu_percent: None,
            ..first
        };
        assert_eq!((first, first.cpu), (expected, Duration::from_millis(120)));
        let later = start + Duration::from_secs(2);
        let second = Found::of(&[usage(3120, 100, 7)], later, Some(first));
        assert_eq!((second.cpu_percent, second.memory, second.memory_peak), (Some(150), 100, 5300));
        let leaked = Found::of(&[usage(1, 9000, 1)], start + EARLY + Duration::from_secs(1), Some(second));
        assert_eq!((leaked.memory_peak, leaked.memory_peak_early), (9000, 5300), "it is no part of a start");
        // An orphan is gone, and its time with it.
        assert_eq!(Found::of(&[usage(1, 1, 1)], later, Some(second)).cpu_percent, Some(0));
    }
}
