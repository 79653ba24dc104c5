//! Which processes belong to a generation.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::{Duration, Instant};

use baton_core::ids::GenerationId;
use baton_core::signal::Signal;
use baton_sys::process::{self, Process};

use crate::marks;

/// How many children that have ended are taken before everything else gets its turn: they may end faster than that.
pub const REAPED_AT_ONCE: usize = 512;

/// How many former main processes are remembered: who is forgotten is known by what it was started with.
const FORMER_KEPT: usize = 16;

/// What the processes of a generation are known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Whose.
    pub generation: GenerationId,
    /// Its main processes, one for each copy. What a copy was launched again as may be missing here: it is known by
    /// what it was started with.
    pub mains: Vec<Main>,
    /// Those that were, until they named another one: their sessions and process groups are its own as before.
    pub former: Vec<Main>,
    /// The inodes of the listening sockets that it was given.
    pub sockets: Vec<u64>,
    /// What its `NOTIFY_SOCKET` is: no other generation on the machine has the same.
    pub notify: OsString,
    /// The real user that it was started as.
    pub user: u32,
}

/// A main process: the leader of its session or, on a terminal, of its process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Main {
    /// Its pid, which is also the number of its session or process group.
    pub pid: i32,
    /// When it was started, in kernel ticks: once it is gone, its pid may be somebody else's.
    pub started: Option<u64>,
}

impl Root {
    /// Whether this is the pid of a main process.
    pub fn is_main(&self, pid: i32) -> bool {
        self.mains.iter().any(|main| main.pid == pid)
    }

    /// From now on another process is the main one in the place of one that was, which belongs to it as before.
    pub fn follow(&mut self, from: Main, to: Main) {
        let left = |main: &mut Main| *main == from;
        self.former.extend(self.mains.extract_if(.., left));
        let surplus = self.former.len().saturating_sub(FORMER_KEPT);
        self.former.drain(..surplus);
        self.mains.push(to);
    }
}

impl Main {
    /// The process itself, whether it still runs or not.
    pub fn process(&self) -> Option<Process> {
        let parent = own_pid();
        Some(Process {
            pid: self.pid,
            parent,
            group: self.pid,
            session: self.pid,
            started: self.started?,
            zombie: false,
        })
    }
}

/// The living processes of a generation, its main process included.
///
/// A process belongs to it by its session, its process group or by descent from one that belongs to it. One that
/// left its session and lost its parents belongs to the generation that it was started with, or whose sockets it has:
/// as long as it may accept what is meant for a successor, the generation is not gone.
pub fn of(root: &Root) -> std::io::Result<Vec<Process>> {
    Ok(among(&process::all()?, root))
}

/// The same among processes that were listed already.
pub fn among(all: &[Process], root: &Root) -> Vec<Process> {
    let adopters = adopters(all);
    let ours = adopters.len() == 1;
    members(root, all, ours, |process| {
        // This process has all sockets itself.
        adopters.contains(&process.parent)
            && !adopters.contains(&process.pid)
            && (is_marked(process, root, ours) || holds_any(process, &root.sockets))
    })
}

/// Whether an orphan was started with the generation. Where those of others are among them, there are generations of the same
/// number, and anybody may have copied an environment: only that of somebody of the same user is read.
fn is_marked(process: &Process, root: &Root, ours: bool) -> bool {
    if process.zombie || !ours && process::real_user(process.pid) != Some(root.user) {
        return false;
    }
    let of_root = |mark: marks::Mark| {
        let told = || mark.notify.is_some_and(|notify| *root.notify == *notify);
        mark.generation == root.generation.to_string() && (ours || told())
    };
    marks::of(process).is_some_and(of_root)
}

/// Who gets the children of those that have ended: this process, or else one of those above it.
fn adopters(all: &[Process]) -> Vec<i32> {
    let mut adopters = vec![own_pid()];
    if process::adopts_orphans() {
        return adopters;
    }
    let parent = |pid: i32| all.iter().find(|process| process.pid == pid).map(|process| process.parent);
    while let Some(above) = adopters.last().copied().and_then(parent).filter(|pid| !adopters.contains(pid)) {
        adopters.push(above);
    }
    adopters
}

fn holds_any(process: &Process, sockets: &[u64]) -> bool {
    // What cannot be looked into belongs to somebody who got nothing from us.
    sockets.iter().any(|socket| process::holds_socket(&[process.pid], *socket) == Some(true))
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or_default()
}

/// `ours`: orphans come to this process, so that nobody belongs to a generation who does not descend from it.
fn members(root: &Root, all: &[Process], ours: bool, marked: impl Fn(&Process) -> bool) -> Vec<Process> {
    // While a session has members its number is not given away, so a stranger with it means there are none.
    let reused = |main: &&Main| {
        all.iter().any(|process| process.pid == main.pid && Some(process.started) != main.started)
    };
    let leaders: Vec<i32> =
        root.mains.iter().chain(&root.former).filter(|main| !reused(main)).map(|main| main.pid).collect();
    let parents: BTreeMap<i32, i32> = all.iter().map(|process| (process.pid, process.parent)).collect();
    closure(all, |process| {
        let led = [process.pid, process.group, process.session].iter().any(|id| leaders.contains(id));
        // The stranger who had the number since may have left others in a session of his own.
        led && !(ours && descends_from_another(process, &parents)) || marked(process)
    })
}

/// Whether a process certainly does not descend from this one. An ancestor that is not among them may have ended while they
/// were listed.
fn descends_from_another(process: &Process, parents: &BTreeMap<i32, i32>) -> bool {
    let (me, mut above) = (own_pid(), process.parent);
    // Listed one after the other, they may seem to go round: no more steps than there are processes.
    for _ in 0..=parents.len() {
        match parents.get(&above) {
            _ if above == me => return false,
            _ if above == 0 => return true,
            Some(parent) => above = *parent,
            None => return false,
        }
    }
    false
}

/// The living among those that belong and their descendants.
fn closure(all: &[Process], belongs: impl Fn(&Process) -> bool) -> Vec<Process> {
    let mut pids: BTreeSet<i32> = BTreeSet::new();
    loop {
        let before = pids.len();
        for process in all {
            if !pids.contains(&process.pid) && (pids.contains(&process.parent) || belongs(process)) {
                pids.insert(process.pid);
            }
        }
        if pids.len() == before {
            break;
        }
    }
    all.iter().filter(|process| pids.contains(&process.pid) && !process.zombie).copied().collect()
}

/// How often it is looked for processes that were started while others were suspended. Each look finds fewer; who starts
/// them faster than that is found when the kill is repeated.
const LOOKS: u32 = 8;

/// For how long it is looked at the most, where each look takes its time: nothing else is done meanwhile, and a kill is
/// repeated.
const LOOK_FOR: Duration = Duration::from_millis(200);

/// Kills all processes that `find` finds, those included that are started meanwhile. All are suspended first, as a
/// suspended one starts no other: one after the other killed, the last one may answer the end of the first.
pub fn kill(find: impl Fn() -> std::io::Result<Vec<Process>>) -> std::io::Result<()> {
    let mut suspended: Vec<Process> = Vec::new();
    let is = |one: &Process, other: &Process| (one.pid, one.started) == (other.pid, other.started);
    let (mut looked, begun) = (Ok(()), Instant::now());
    for look in 0..LOOKS {
        if look > 0 && begun.elapsed() >= LOOK_FOR {
            break;
        }
        let mut new = match find() {
            Ok(found) => found,
            Err(error) => {
                looked = Err(error);
                break;
            }
        };
        new.retain(|process| !suspended.iter().any(|known| is(known, process)));
        if new.is_empty() {
            break;
        }
        // One that cannot be suspended can hardly be killed, which is told.
        let _ = signal_all(&new, Signal::STOP);
        suspended.extend(new);
    }
    signal_all(&suspended, Signal::KILL).and(looked)
}

/// Signals all of them, even if one cannot be; the first reason is told.
pub fn signal_all(processes: &[Process], signal: Signal) -> std::io::Result<()> {
    let sent: Vec<_> = processes.iter().map(|process| process::signal(*process, signal)).collect();
    sent.into_iter().collect()
}

/// How often to look whether strays have ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How much of the time is kept for the kernel to bury what is killed.
const BURIAL: Duration = Duration::from_millis(500);

/// Ends every process that descends from this one, when no generation is left: those that nothing tied to any.
/// They are asked, and killed when `limit` is nearly over.
pub async fn end_strays(limit: Duration) {
    let end = tokio::time::Instant::now() + limit;
    for (signal, until) in [(Signal::TERM, end.checked_sub(BURIAL).unwrap_or(end)), (Signal::KILL, end)] {
        // Without time to finish in, nobody needs to be asked.
        if signal == Signal::TERM && tokio::time::Instant::now() >= until {
            continue;
        }
        let left = strays();
        if left.is_empty() {
            return;
        }
        // One that has ended meanwhile is as good; one that we may not signal we cannot end.
        if signal == Signal::KILL {
            let _ = kill(|| Ok(strays()));
        } else {
            let _ = signal_all(&left, signal);
            let _ = signal_all(&left, Signal::CONT);
        }
        while tokio::time::Instant::now() < until && !strays().is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn strays() -> Vec<Process> {
    for _ in 0..REAPED_AT_ONCE {
        if !matches!(process::reap(), Ok(Some(_))) {
            break;
        }
    }
    if process::adopts_orphans() && !process::has_children() {
        return Vec::new();
    }
    // Where processes cannot be listed there is nobody to name.
    below(&process::all().unwrap_or_default())
}

/// Those that descend from this process, among processes that were listed.
pub fn below(all: &[Process]) -> Vec<Process> {
    let me = own_pid();
    closure(all, |process| process.parent == me)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, parent, group: session, session, started: 0, zombie: false }
    }

    fn root() -> Root {
        Root {
            generation: GenerationId(1),
            mains: Vec::new(),
            former: Vec::new(),
            sockets: Vec::new(),
            notify: OsString::new(),
            user: 0,
        }
    }

    #[test]
    fn members_are_found_by_session_descent_and_mark() {
        let all = [
            process(1, 0, 1),
            process(10, 1, 10),
            process(11, 10, 10),
            // An orphan that stayed in the session, one that made its own, and the child of that one.
            process(12, 1, 10),
            process(13, 1, 13),
            process(14, 13, 14),
            // Another generation and its worker.
            process(20, 1, 20),
            process(21, 20, 20),
            Process { zombie: true, ..process(15, 10, 10) },
        ];
        let main = |pid, started| Main { pid, started: Some(started) };
        let root = Root { mains: vec![main(10, 0)], ..root() };
        let found = |marked: &[i32]| {
            let found = members(&root, &all, false, |process| marked.contains(&process.pid));
            found.iter().map(|process| process.pid).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), [10, 11, 12]);
        assert_eq!(found(&[13]), [10, 11, 12, 13, 14]);
        let copies = Root { mains: vec![main(10, 0), main(20, 0)], ..root.clone() };
        let found =
            members(&copies, &all, false, |_| false).iter().map(|process| process.pid).collect::<Vec<_>>();
        assert_eq!(found, [10, 11, 12, 20, 21], "of each copy");
        let mut named = root.clone();
        named.follow(main(10, 0), main(20, 0));
        assert!(named.is_main(20) && !named.is_main(10));
        let found =
            members(&named, &all, false, |_| false).iter().map(|process| process.pid).collect::<Vec<_>>();
        assert_eq!(found, [10, 11, 12, 20, 21], "of the one before as well");
        let stranger = Root { mains: vec![main(10, 7)], ..root.clone() };
        assert_eq!(members(&stranger, &all, false, |_| false), []);
    }

    #[test]
    fn f21_who_is_left_of_a_stranger_with_the_number_of_a_main_process_belongs_to_nobody_here() {
        let me = own_pid();
        let (ours, init) = (me.max(1000) + 1, 0);
        let all = [
            process(init + 1, 0, init + 1),
            process(me, init + 1, me),
            // The main process 10 has ended. Of its session there is one, and one whose parent ended meanwhile.
            process(ours, me, 10),
            process(ours + 1, ours + 7, 10),
            // Somebody else had the number since, and has ended too.
            process(ours + 2, init + 1, 10),
            process(ours + 3, ours + 2, 10),
        ];
        let root = Root { mains: vec![Main { pid: 10, started: Some(1) }], ..root() };
        let found = |ours| {
            let found = members(&root, &all, ours, |_| false);
            found.iter().map(|process| process.pid - me.max(1000)).collect::<Vec<_>>()
        };
        assert_eq!(found(true), [1, 2]);
        // Where orphans go elsewhere they cannot be told apart by that.
        assert_eq!(found(false), [1, 2, 3, 4]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "nobody reaps this child but the test")]
    fn an_environment_of_another_user_is_no_proof_where_orphans_of_others_are() {
        let mut command = std::process::Command::new("sleep");
        command.arg("60").env("BATON_GENERATION", "1").env("NOTIFY_SOCKET", "/here");
        let mut child = command.spawn().unwrap();
        let started = process::started(child.id().cast_signed()).unwrap();
        let copied = Process { started, ..process(child.id().cast_signed(), own_pid(), own_pid()) };
        let user = rustix::process::getuid().as_raw();
        let root = Root { notify: "/here".into(), user, ..root() };
        let other = Root { user: user + 1, ..root.clone() };
        let elsewhere = Root { notify: "/there".into(), ..root.clone() };
        // On a busy machine it may not be read at once; from then on it is known.
        while marks::of(&copied).is_none() {
            std::thread::yield_now();
        }
        for (root, ours, expected) in [
            (&root, false, true),
            (&elsewhere, false, false),
            (&other, false, false),
            // What comes to this process can only have left it.
            (&other, true, true),
            (&elsewhere, true, true),
        ] {
            assert_eq!(is_marked(&copied, root, ours), expected, "{root:?}, {ours}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn p20_a_kill_ends_where_each_look_takes_long_and_finds_somebody_else() {
        let looks = std::cell::Cell::new(0);
        // Numbers that nobody has.
        let find = || {
            let begun = Instant::now();
            while begun.elapsed() < LOOK_FOR {
                std::thread::yield_now();
            }
            looks.set(looks.get() + 1);
            Ok(vec![process(i32::MAX - looks.get(), 1, 1)])
        };
        kill(find).unwrap();
        assert_eq!(looks.get(), 1);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "nobody reaps this child but the test")]
    fn p19_what_was_suspended_is_killed_although_it_cannot_be_looked_again() {
        use std::os::unix::process::ExitStatusExt;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = process::all().unwrap().into_iter().find(|one| one.pid.cast_unsigned() == child.id());
        let looks = std::cell::Cell::new(0);
        let find = || {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                Ok(found.into_iter().collect())
            } else {
                Err(std::io::ErrorKind::Other.into())
            }
        };
        assert!(kill(find).is_err());
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.number()));
    }
}
