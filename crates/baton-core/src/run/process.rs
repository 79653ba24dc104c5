//! What of its process a program is given.

use alloc::string::String;

use crate::units::Bytes;

/// Attributes of the program's processes. What is not set stays as the bootloader has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Who it runs as: a name or a number.
    pub user: Option<String>,
    /// Its group, instead of that of the user: a name or a number.
    pub group: Option<String>,
    /// The permissions that its new files do not get.
    pub umask: Option<u16>,
    /// Its priority, -20 to 19: the more the later it gets its turn.
    pub nice: Option<i8>,
    /// How many files it may have open.
    pub nofile: Option<u64>,
    /// How many processes its user may have.
    pub nproc: Option<u64>,
    /// How large a core dump of it may be.
    pub core: Option<SizeLimit>,
    /// How much memory it may lock.
    pub memlock: Option<SizeLimit>,
    /// How large the stack of its main thread may get.
    pub stack: Option<SizeLimit>,
    /// How soon the kernel ends it when memory runs out: -1000 to 1000. See [`oom_score_adj`].
    pub oom_score_adj: i16,
    /// Where its standard input comes from.
    pub stdin: Stdin,
    /// Where it finds its files, write-protected: an absolute path ([`is_mount_point`]).
    pub mount: Option<String>,
}

/// Whether a program's files can be mounted there: an absolute path, not the root, each part once and by its name.
pub fn is_mount_point(path: &str) -> bool {
    let named = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    path.strip_prefix('/').is_some_and(|parts| parts.split('/').all(named))
}

impl Default for Process {
    fn default() -> Self {
        Self {
            user: None,
            group: None,
            umask: None,
            nice: None,
            nofile: None,
            nproc: None,
            core: None,
            memlock: None,
            stack: None,
            oom_score_adj: OOM_SERVING,
            stdin: Stdin::default(),
            mount: None,
        }
    }
}

/// How much of something there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeLimit {
    /// As much as there is.
    Unlimited,
    /// So much.
    Bytes(Bytes),
}

/// Where a program's standard input comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Stdin {
    /// There is none.
    #[default]
    Null,
    /// It is that of the bootloader.
    Inherit,
    /// It is the socket of the listener with this name (`inetd`'s way; Java's `System.inheritedChannel`).
    Listener(String),
}

/// How soon the kernel ends what serves when memory runs out, where nothing else is said: before the bootloader.
pub const OOM_SERVING: i16 = 100;
/// How much sooner it ends what does not serve: the candidate or the standby, so that the serving one is left.
const OOM_OTHERS_SOONER: i16 = 400;
/// The kernel's own bound.
const OOM_MAX: i16 = 1000;

/// The `oom_score_adj` of a generation (`man 5 proc`).
pub fn oom_score_adj(process: &Process, serving: bool) -> i16 {
    let base = process.oom_score_adj;
    if serving { base } else { base.saturating_add(OOM_OTHERS_SOONER).min(OOM_MAX) }
}

/// How much lower the priority of a candidate is, while it is judged beside what serves: of a processor that both want it gets a
/// quarter.
const NICE_ON_TRIAL: i32 = 5;
/// The kernel's own bound (`man 2 setpriority`).
const NICE_MAX: i32 = 19;

/// The priority of a candidate that is judged beside what serves; `nice` is its own.
pub fn nice_on_trial(nice: i32) -> i32 {
    nice.saturating_add(NICE_ON_TRIAL).min(NICE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f85_what_is_judged_gets_its_turn_after_what_serves() {
        for (own, on_trial) in [(0, 5), (-20, -15), (10, 15), (15, 19), (19, 19)] {
            assert_eq!(nice_on_trial(own), on_trial);
        }
    }

    #[test]
    fn what_serves_is_the_last_to_go() {
        for (set, serving, others) in [(OOM_SERVING, 100, 500), (-500, -500, -100), (900, 900, 1000)] {
            let process = Process { oom_score_adj: set, ..Process::default() };
            assert_eq!(oom_score_adj(&process, true), serving, "{set}");
            assert_eq!(oom_score_adj(&process, false), others, "{set}");
        }
    }
}
