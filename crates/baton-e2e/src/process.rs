//! What the kernel tells about a process.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;

/// What baton-boot keeps of a generation that has ended is kept for 3 s: a connection may still be on its way to it.
/// What is left when nothing has gone for longer stays.
const SETTLED: Duration = Duration::from_secs(4);
/// How long a tick of `/proc/PID/stat` is (`USER_HZ`, `man 5 proc`).
const TICK: Duration = Duration::from_millis(10);
/// How often it is looked meanwhile.
const GLANCE: Duration = Duration::from_millis(100);

/// What a process takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Its share of the memory that it has mapped (`Pss` in `proc(5)`), KiB.
    pub pss_kib: u64,
    /// All memory that it has mapped and that is there, KiB.
    pub rss_kib: u64,
    /// Of that, what is its own and no file's, KiB: unlike the share, it does not change when others map the same files.
    pub anonymous_kib: u64,
    /// Its open descriptors.
    pub descriptors: usize,
}

impl Footprint {
    /// Reads it.
    ///
    /// # Errors
    /// If there is no such process, or it is somebody else's.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .with_context(|| format!("cannot read the memory of process {pid}"))?;
        let kib = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            kib.with_context(|| format!("no {name} of process {pid}"))
        };
        Ok(Self {
            pss_kib: kib("Pss:")?,
            rss_kib: kib("Rss:")?,
            anonymous_kib: kib("Anonymous:")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        })
    }

    /// Waits until no descriptor has gone for a while, and returns the least that it took up.
    ///
    /// # Errors
    /// As [`Footprint::of`].
    pub fn settled(pid: u32) -> anyhow::Result<Self> {
        let mut least = Self::of(pid)?;
        let mut since = Instant::now();
        while since.elapsed() < SETTLED {
            std::thread::park_timeout(GLANCE);
            let now = Self::of(pid)?;
            if now.descriptors < least.descriptors {
                since = Instant::now();
            }
            if now.descriptors <= least.descriptors {
                least = now;
            }
        }
        Ok(least)
    }
}

/// What all processors of this machine have done since it started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processors {
    working: u64,
    resting: u64,
}

impl Processors {
    /// Reads it.
    ///
    /// # Errors
    /// If the kernel tells it in another way than `proc(5)` says.
    pub fn now() -> anyhow::Result<Self> {
        Self::read(&fs::read_to_string("/proc/stat")?).context("no line of all processors in /proc/stat")
    }

    fn read(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // Time of guests, at the end, is contained in that of users, at the beginning.
        let times = line.split_whitespace().take(8).map(str::parse);
        let times: [u64; 8] = times.collect::<Result<Vec<_>, _>>().ok()?.try_into().ok()?;
        let [user, nice, system, idle, waiting, interrupts, soft_interrupts, stolen] = times;
        let working = user + nice + system + interrupts + soft_interrupts + stolen;
        Some(Self { working, resting: idle + waiting })
    }

    /// Which share of the time since then they were at work, from 0 to 1.
    pub fn busy_since(self, then: Self) -> f64 {
        let working = self.working.saturating_sub(then.working) as f64;
        let resting = self.resting.saturating_sub(then.resting) as f64;
        working / (working + resting).max(1.0)
    }
}

/// The CPU time of a process and of its children that have ended, to a tick.
///
/// # Errors
/// If there is no such process.
pub fn cpu_with_children(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may contain anything; the times are the 14th to the 17th field.
    let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
    let times = fields.split(' ').skip(11).take(4).map(str::parse::<u32>);
    Ok(TICK * times.sum::<Result<u32, _>>()?)
}

/// The CPU time of all threads of a process.
///
/// # Errors
/// If there is no such process.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let times = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += times.split(' ').next().context("no time")?.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_with_its_memory_and_descriptors() {
        let own = Footprint::of(std::process::id()).unwrap();
        assert!(
            0 < own.pss_kib
                && own.pss_kib <= own.rss_kib
                && own.anonymous_kib < own.rss_kib
                && own.descriptors >= 3,
            "{own:?}"
        );
        assert!(cpu_seconds(std::process::id()).unwrap() > 0.0);
        assert!(Footprint::of(0).is_err() && cpu_seconds(0).is_err());
    }

    #[test]
    fn what_processors_did_is_told_apart_from_their_rest() {
        let then = Processors::read("cpu  10 1 5 100 4 1 1 1 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n").unwrap();
        let now = Processors::read("cpu  20 2 10 120 14 2 2 2 90 0\n").unwrap();
        assert_eq!(then, Processors { working: 19, resting: 104 });
        assert_eq!(now.busy_since(then), 19.0 / 49.0);
        assert_eq!(now.busy_since(now), 0.0);
        assert!(Processors::now().unwrap().working > 0);
        for other in ["", "cpu0 1 2 3 4 5 6 7 8\n", "cpu 1 2 3\n", "cpu 1 2 3 x 5 6 7 8\n"] {
            assert_eq!(Processors::read(other), None, "{other:?}");
        }
    }
}
