//! What processes were started with, as far as it tells whose they are.
//!
//! The kernel reads it from the process's own memory, and waits for as long as the process holds that: one that hangs in it
//! would hold up whoever asks, with everything that the loop has to do. So a thread reads, and nobody waits for it for long.

use std::collections::BTreeMap;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use baton_sys::process::{self, Process};

/// How long one that is read is waited for, by all who ask together: it takes microseconds.
const READ_WITHIN: Duration = Duration::from_millis(50);
/// How many may hang at a time. Of further ones nothing is known until one of these is read, or ends.
const HANGING_MAX: usize = 16;
/// How many are remembered. Those that still live are read again.
const KNOWN_MAX: usize = 4096;
/// What a thread that reads needs.
const STACK_BYTES: usize = 64 * 1024;

/// What a process of a generation was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The generation's number.
    pub generation: String,
    /// Where it was to say how it is.
    pub notify: Option<String>,
}

impl Mark {
    /// That of a process; none, if it has none, or it cannot be read.
    fn read(pid: i32) -> Option<Self> {
        let generation = process::started_with(pid, "BATON_GENERATION")?;
        Some(Self { generation, notify: process::started_with(pid, "NOTIFY_SOCKET") })
    }
}

/// A process by its number and its start.
type Key = (i32, u64);

#[derive(Debug)]
struct Marks {
    /// How long one that is read is waited for.
    within: Duration,
    known: Mutex<Known>,
    /// One was read.
    read: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    /// What is not among them may get a mark: a process becomes another program.
    marks: BTreeMap<Key, Mark>,
    /// Those that are being read, and since when.
    under_way: BTreeMap<Key, Instant>,
}

static MARKS: LazyLock<Marks> = LazyLock::new(|| Marks::new(READ_WITHIN));

/// The mark of a process; none, if it has none, or it cannot be read, or not now.
pub fn of(process: &Process) -> Option<Mark> {
    MARKS.of((process.pid, process.started), Mark::read)
}

impl Marks {
    fn new(within: Duration) -> Self {
        Self { within, known: Mutex::default(), read: Condvar::new() }
    }

    fn of(
        &'static self,
        key: Key,
        read: impl FnOnce(i32) -> Option<Mark> + Send + Copy + 'static,
    ) -> Option<Mark> {
        let mut known = self.known();
        if let Some(mark) = known.marks.get(&key) {
            return Some(mark.clone());
        }
        let begun = match known.under_way.get(&key) {
            Some(begun) => *begun,
            None if known.under_way.len() >= HANGING_MAX => return None,
            None => {
                let now = Instant::now();
                known.under_way.insert(key, now);
                let reads = thread::Builder::new().name("environ".to_owned()).stack_size(STACK_BYTES);
                if reads.spawn(move || self.learn(key, read(key.0))).is_err() {
                    // No process more may be had, perhaps because of those that are looked for here.
                    drop(known);
                    let mark = read(key.0);
                    self.learn(key, mark.clone());
                    return mark;
                }
                now
            }
        };
        let left = self.within.saturating_sub(begun.elapsed());
        let reading = |known: &mut Known| known.under_way.contains_key(&key);
        let waited = self.read.wait_timeout_while(known, left, reading);
        let (known, _) = waited.unwrap_or_else(PoisonError::into_inner);
        known.marks.get(&key).cloned()
    }

    fn learn(&self, key: Key, mark: Option<Mark>) {
        let mut known = self.known();
        known.under_way.remove(&key);
        if known.marks.len() >= KNOWN_MAX {
            known.marks.clear();
        }
        known.marks.extend(mark.map(|mark| (key, mark)));
        drop(known);
        self.read.notify_all();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::channel;

    fn marks(within: Duration) -> &'static Marks {
        Box::leak(Box::new(Marks::new(within)))
    }

    fn one() -> Mark {
        Mark { generation: "7".into(), notify: None }
    }

    #[test]
    fn what_was_read_is_known_by_number_and_start_and_what_has_none_is_read_again() {
        static READ: AtomicU32 = AtomicU32::new(0);
        let marks = marks(Duration::from_secs(60));
        let read = |pid| {
            READ.fetch_add(1, Ordering::Relaxed);
            (pid == 7).then(one)
        };
        for (key, mark, reads) in [
            ((7, 1), Some(one()), 1),
            ((7, 1), Some(one()), 1),
            ((7, 2), Some(one()), 2),
            ((8, 1), None, 3),
            ((8, 1), None, 4),
        ] {
            assert_eq!(marks.of(key, read), mark);
            assert_eq!(READ.load(Ordering::Relaxed), reads, "{key:?}");
        }
    }

    #[test]
    fn p21_a_process_that_cannot_be_read_keeps_nobody_waiting() {
        static HANGS: Mutex<()> = Mutex::new(());
        let (marks, (say, said)) = (marks(READ_WITHIN), channel());
        let read = |pid| {
            drop(HANGS.lock().unwrap_or_else(PoisonError::into_inner));
            (pid > 0).then(one)
        };
        let hangs = HANGS.lock().unwrap();
        // What waited for it would wait for as long as this is held.
        for pid in 1..=2 * i32::try_from(HANGING_MAX).unwrap() {
            assert_eq!(marks.of((pid, 1), read), None);
        }
        assert_eq!(marks.known().under_way.len(), HANGING_MAX);
        drop(hangs);
        // It is known once it could be read.
        thread::spawn(move || {
            while marks.of((1, 1), read).is_none() {
                thread::yield_now();
            }
            say.send(()).unwrap();
        });
        said.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}
