//! The memory account (cgroup) that this process and all that it starts are charged to.

use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel keeps the account: cgroup v2 or v1 (`Documentation/admin-guide/cgroup-v2.rst`, `.../cgroup-v1/`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    folder: PathBuf,
    names: &'static Names,
}

/// What the account says. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// What is in use and cannot simply be dropped: without file pages that nobody has touched for long.
    pub used: u64,
    /// What can be dropped by nobody: without any file pages.
    pub held: u64,
    /// The greatest use since the account exists, caches included; not every kernel counts it.
    pub peak: Option<u64>,
    /// More than this it cannot have.
    pub limit: Option<u64>,
    /// How many processes were killed because it was not enough.
    pub kills: u64,
    /// How many times the kernel then killed all that a group had at once; not every kernel counts it.
    pub group_kills: u64,
    /// Whether it kills all that this account has at once: `memory.oom.group`, of version 2.
    pub together: bool,
    /// How much of the time was lost for want of it, where the kernel says (version 2, with `CONFIG_PSI`).
    pub pressure: Option<Pressure>,
}

/// For how much of the time processes waited for memory, in hundredths of a percent (`Documentation/accounting/psi.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// At least one of them, in the last 10 s.
    pub some_10s: u32,
    /// The same, in the last minute.
    pub some_60s: u32,
    /// All that had something to do, in the last 10 s.
    pub full_10s: u32,
    /// The same, in the last minute.
    pub full_60s: u32,
}

/// The files of one version, and the keys in them.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    used: &'static str,
    peak: &'static str,
    limit: &'static str,
    idle: &'static str,
    recent: &'static str,
    kills: &'static str,
}

const V2: Names = Names {
    used: "memory.current",
    peak: "memory.peak",
    limit: "memory.max",
    idle: "inactive_file",
    recent: "active_file",
    kills: "memory.events",
};
const V1: Names = Names {
    used: "memory.usage_in_bytes",
    peak: "memory.max_usage_in_bytes",
    limit: "memory.limit_in_bytes",
    idle: "total_inactive_file",
    recent: "total_active_file",
    kills: "memory.oom_control",
};
/// The key of the kill counter, in both versions.
const KILLS: &str = "oom_kill";
/// The same for whole groups, which are among the kills; of version 2, since Linux 5.17.
const GROUP_KILLS: &str = "oom_group_kill";
/// Version 1 writes "no limit" as the greatest number of pages that fits into a number.
const NO_LIMIT: u64 = 1 << 60;

impl Account {
    /// The account of this process, where there is one that can be read.
    pub fn find() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let candidates = candidates(&own);
        candidates
            .into_iter()
            .map(|(folder, names)| Self { folder, names })
            .find(|account| account.number(account.names.used).is_ok())
    }

    /// The one whose files are in this folder, of version 2.
    pub fn version_2_at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), names: &V2 }
    }

    /// What it says now.
    ///
    /// # Errors
    /// If its files cannot be read any more.
    pub fn usage(&self) -> io::Result<Usage> {
        let total = self.number(self.names.used)?;
        let statistics = self.text("memory.stat").unwrap_or_default();
        let kills = self.text(self.names.kills).unwrap_or_default();
        let pages = |key| value(&statistics, key).unwrap_or(0);
        let used = total.saturating_sub(pages(self.names.idle));
        Ok(Usage {
            used,
            held: used.saturating_sub(pages(self.names.recent)),
            peak: self.number(self.names.peak).ok(),
            // Version 2 writes "max" where there is none.
            limit: self.number(self.names.limit).ok().filter(|limit| *limit < NO_LIMIT),
            kills: value(&kills, KILLS).unwrap_or(0),
            group_kills: value(&kills, GROUP_KILLS).unwrap_or(0),
            // No such file has a name in version 1, and none has it at the root of version 2.
            together: self.number("memory.oom.group").is_ok_and(|set| set == 1),
            pressure: self.text("memory.pressure").ok().as_deref().and_then(pressure),
        })
    }

    fn text(&self, file: &str) -> io::Result<String> {
        std::fs::read_to_string(self.folder.join(file))
    }

    fn number(&self, file: &str) -> io::Result<u64> {
        self.text(file)?.trim_end().parse().map_err(io::Error::other)
    }
}

/// How much memory the machine has, and how much of that could be had without swapping (`MemAvailable`, `proc(5)`).
/// Bytes.
///
/// # Errors
/// If the kernel does not tell.
pub fn machine() -> io::Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    total_and_available(&text).ok_or_else(|| io::Error::other("/proc/meminfo says nothing of memory"))
}

fn total_and_available(text: &str) -> Option<(u64, u64)> {
    let kib = |key| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((kib("MemTotal")? * 1024, kib("MemAvailable")? * 1024))
}

/// Where the account may be, the most likely first: at the path that `/proc/self/cgroup` tells or, in a container
/// that sees only its own part, at the root of the hierarchy.
fn candidates(own: &str) -> Vec<(PathBuf, &'static Names)> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, names) = match controllers {
            "" => ("/sys/fs/cgroup", &V2),
            controllers if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", &V1)
            }
            _ => continue,
        };
        let root = Path::new(root);
        found.push((root.join(path.trim_start_matches('/')), names));
        found.push((root.to_owned(), names));
    }
    found
}

/// Reads `some avg10=0.00 avg60=1.25 avg300=0.00 total=7` and a line of `full`.
fn pressure(text: &str) -> Option<Pressure> {
    let of = |whom: &str, time: &str| {
        let mut lines = text.lines().map(|line| line.split_ascii_whitespace());
        let mut fields = lines.find_map(|mut words| (words.next()? == whom).then_some(words))?;
        hundredths(fields.find_map(|field| field.strip_prefix(time)?.strip_prefix('='))?)
    };
    Some(Pressure {
        some_10s: of("some", "avg10")?,
        some_60s: of("some", "avg60")?,
        full_10s: of("full", "avg10")?,
        full_60s: of("full", "avg60")?,
    })
}

/// A percentage with two digits behind the point.
fn hundredths(number: &str) -> Option<u32> {
    let (whole, part) = number.split_once('.')?;
    let part = Some(part).filter(|part| part.len() == 2)?.parse::<u8>().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part.into())
}

/// The number behind a key, in lines of `key number`.
fn value(text: &str, key: &str) -> Option<u64> {
    let of_key = |line: &str| line.split_once(' ').filter(|(name, _)| *name == key)?.1.trim().parse().ok();
    text.lines().find_map(of_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_looked_for_where_each_version_has_it() {
        let places = |own: &str| -> Vec<(String, bool)> {
            let found = candidates(own).into_iter();
            found.map(|(folder, names)| (folder.to_str().unwrap().to_owned(), *names == V2)).collect()
        };
        let both = "9:name=systemd:/\n5:cpu,memory:/a/b:c\n0::/unified.slice\n";
        let expected = [
            ("/sys/fs/cgroup/memory/a/b:c", false),
            ("/sys/fs/cgroup/memory", false),
            ("/sys/fs/cgroup/unified.slice", true),
            ("/sys/fs/cgroup", true),
        ];
        assert_eq!(places(both), expected.map(|(place, v2)| (place.to_owned(), v2)));
        assert_eq!(places("3:memory2:/x\nrubbish"), []);
    }

    #[test]
    fn the_machines_memory_is_read() {
        let text = "MemTotal:        8000 kB\nMemFree:  1 kB\nMemAvailable:    3000 kB\n";
        assert_eq!(total_and_available(text), Some((8000 * 1024, 3000 * 1024)));
        assert_eq!(total_and_available("MemTotal: 8000 kB\n"), None, "before Linux 3.14");
        let (total, available) = machine().unwrap();
        assert!(0 < available && available <= total, "{available} of {total}");
    }

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it_or_not_at_all() {
        let some = "some avg10=12.34 avg60=100.00 avg300=0.00 total=17\n";
        let full = "full avg10=0.00 avg60=1.05 avg300=0.00 total=3\n";
        let read = Pressure { some_10s: 1234, some_60s: 10_000, full_10s: 0, full_60s: 105 };
        for (text, expected) in [
            ([some, full].concat(), Some(read)),
            ([full, some].concat(), Some(read)),
            ([some, full].concat().replace("avg300", "avg3000=1.00 avg300"), Some(read)),
            (some.to_owned(), None),
            (String::new(), None),
            ([some, &full.replace("1.05", "1.5")].concat(), None),
            ([some, &full.replace("1.05", "-1.05")].concat(), None),
            ([some, &full.replace("1.05", "99999999999.05")].concat(), None),
            ([some, &full.replace("avg60=", "avg60")].concat(), None),
        ] {
            assert_eq!(pressure(&text), expected, "{text}");
        }
    }

    #[test]
    fn both_versions_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        for (name, text) in [
            ("memory.current", "1000\n"),
            ("memory.peak", "1500\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
            (
                "memory.stat",
                "anon 5\ninactive_file 100\nactive_file 40\ntotal_inactive_file 300\n\
                 total_active_file 60\n",
            ),
            ("memory.usage_in_bytes", "2000\n"),
            ("memory.max_usage_in_bytes", "2500\n"),
            ("memory.limit_in_bytes", "4096\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
        ] {
            write(name, text);
        }
        let usage = |names| Account { folder: folder.path().into(), names }.usage().unwrap();
        let second = Usage { used: 900, held: 860, peak: Some(1500), kills: 2, ..Usage::default() };
        assert_eq!(usage(&V2), second);
        let (peak, limit) = (Some(2500), Some(4096));
        let first = Usage { used: 1700, held: 1640, peak, limit, kills: 7, ..Usage::default() };
        assert_eq!(usage(&V1), first);
        write(
            "memory.pressure",
            "some avg10=1.50 avg60=0.25 avg300=0 total=9\nfull avg10=0.07 avg60=0.00 total=3\n",
        );
        let pressure = Some(Pressure { some_10s: 150, some_60s: 25, full_10s: 7, full_60s: 0 });
        assert_eq!(usage(&V2), Usage { pressure, ..second });
        write("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(usage(&V1).limit, None);
    }

    #[test]
    fn that_the_kernel_kills_all_at_once_is_read_where_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let account = Account::version_2_at(folder.path());
        std::fs::write(folder.path().join("memory.current"), "1\n").unwrap();
        let since_5_17 = "oom_kill 3\noom_group_kill 2\n";
        for (set, events, expected) in [
            (Some("1\n"), since_5_17, (true, 3, 2)),
            (Some("0\n"), since_5_17, (false, 3, 2)),
            (Some("0\n"), "oom_kill 3\noom_group_kill 0\n", (false, 3, 0)),
            (Some("1\n"), "oom_kill 3\n", (true, 3, 0)),
            (Some("rubbish"), "oom_group_kill\n", (false, 0, 0)),
            (None, since_5_17, (false, 3, 2)),
        ] {
            let file = folder.path().join("memory.oom.group");
            let _ = std::fs::remove_file(&file);
            set.iter().for_each(|set| std::fs::write(&file, set).unwrap());
            std::fs::write(folder.path().join("memory.events"), events).unwrap();
            let usage = account.usage().unwrap();
            assert_eq!((usage.together, usage.kills, usage.group_kills), expected, "{set:?} {events:?}");
        }
    }
}
