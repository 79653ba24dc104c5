//! What a process takes up: time, memory, descriptors.

use std::os::linux::fs::MetadataExt;
use std::time::Duration;

/// What one process takes up, as `/proc` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The time that it has been computing, with that of its children that it has waited for.
    pub cpu: Duration,
    /// Its memory in bytes: its proportional share, or, where that may not be read, all that it has resident,
    /// which counts what is shared once for each process.
    pub memory: u64,
    /// How many descriptors it has open.
    pub descriptors: u64,
}

/// What the process with this pid takes up; none once it is gone.
pub fn usage(pid: i32) -> Option<Usage> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let share = read("smaps_rollup").as_deref().and_then(parse_share);
    let resident = || parse_resident(&read("statm")?);
    Some(Usage {
        cpu: parse_time(&String::from_utf8_lossy(&stat))?,
        memory: share.or_else(resident).unwrap_or(0),
        descriptors: descriptors(pid),
    })
}

/// The numbers of clock ticks in a line of `stat` (`man 5 proc`): `utime`, `stime`, `cutime` and `cstime`, which
/// stand behind the program's name and eleven fields.
fn parse_time(line: &str) -> Option<Duration> {
    let (_, fields) = line.rsplit_once(") ")?;
    let ticks = fields.split_ascii_whitespace().skip(11).take(4).map(str::parse::<u64>);
    let ticks: u64 =
        ticks.collect::<Result<Vec<u64>, _>>().ok().filter(|found| found.len() == 4)?.iter().sum();
    let in_a_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks.saturating_mul(1000) / in_a_second))
}

/// The line `Pss:` of `smaps_rollup`, in bytes.
fn parse_share(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The second number of `statm`, in bytes.
fn parse_resident(text: &str) -> Option<u64> {
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

fn descriptors(pid: i32) -> u64 {
    let folder = format!("/proc/{pid}/fd");
    // Since Linux 6.2 the folder's size is their number, for whoever may not look into it as well.
    match std::fs::metadata(&folder).map_or(0, |folder| folder.st_size()) {
        0 => std::fs::read_dir(&folder).map_or(0, |entries| entries.count() as u64),
        count => count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read_whatever_the_program_is_called() {
        let line = "42 (a) b (c) S 7 42 40 0 -1 4194560 1 0 0 0 100 20 3 4 20 0 1 0 12345 1 1 1";
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(parse_time(line), Some(Duration::from_millis(127_000 / ticks)));
        assert_eq!(parse_time("42 (x) S 1 2 3"), None);
        let rollup = "55d0-7ffd ---p 0 00:00 0 [rollup]\nRss:     900 kB\nPss:     12 kB\nPss_Dirty: 3 kB\n";
        assert_eq!(parse_share(rollup), Some(12 * 1024));
        assert_eq!(parse_share("Rss: 1 kB"), None);
        assert_eq!(parse_resident("100 3 2 1 0 9 0\n"), Some(3 * rustix::param::page_size() as u64));
        assert_eq!(parse_resident(""), None);
    }

    #[test]
    fn what_this_process_takes_up_is_seen_to_grow() {
        let me = i32::try_from(std::process::id()).unwrap();
        let before = usage(me).unwrap();
        let files: Vec<_> = (0..500).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let bytes = vec![1u8; 64 * 1024 * 1024];
        let after = usage(me).unwrap();
        assert!(after.descriptors >= before.descriptors + 400, "{before:?} {after:?}");
        assert!(after.memory >= before.memory + 32 * 1024 * 1024, "{before:?} {after:?}");
        assert_eq!((files.len(), bytes.len()), (500, 64 * 1024 * 1024));
        assert_eq!(usage(-1), None);
    }
}
