//! Processes: which there are, how they ended, and signals to them.

pub mod inspect;
pub mod usage;

use std::io;
use std::os::fd::OwnedFd;

use baton_core::exit::Exit;
use baton_core::signal::Signal;
use rustix::process::{self, Pid, PidfdFlags, WaitId, WaitIdOptions, WaitOptions};

/// One running process, as `/proc/<pid>/stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// The process that gets its exit status.
    pub parent: i32,
    /// Its process group: the pid of the group's leader.
    pub group: i32,
    /// The session that it belongs to: the pid of the session's leader.
    pub session: i32,
    /// When it was started, in kernel ticks since boot: with the pid, its identity.
    pub started: u64,
    /// It has ended and waits to be reaped.
    pub zombie: bool,
}

/// Every process that this one can see. A process that ends meanwhile may be missing.
///
/// # Errors
/// Where there is no `/proc`, or only that of other processes.
pub fn all() -> io::Result<Vec<Process>> {
    seen()?;
    // First all numbers, as that is quick: new ones come at the end of the list, and where they come faster than each could be
    // looked at, the list would have no end.
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids.into_iter().filter_map(read_stat).collect())
}

/// The processes that descend from this one: all that were there all the time, and perhaps not all that came meanwhile, or
/// whose siblings ended meanwhile (`man 5 proc`, `/proc/<pid>/task/<tid>/children`). On a machine with many others that
/// takes much less time than [`all`], which is what comes back from kernels that do not tell.
pub fn descendants() -> io::Result<Vec<Process>> {
    seen()?;
    let (mut found, mut parents) = (Vec::new(), vec![process::getpid().as_raw_pid()]);
    while let Some(parent) = parents.pop() {
        // One that has ended meanwhile has no children any more.
        for thread in std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = match std::fs::read_to_string(thread.path().join("children")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && thread.path().exists() => {
                    return all();
                }
                children => children.unwrap_or_default(),
            };
            let pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
            parents.extend(pids.clone());
            found.extend(pids.filter_map(read_stat));
        }
    }
    Ok(found)
}

/// Whether `/proc` shows the processes that this one has to do with, by the numbers that they have for it. That of another
/// pid namespace shows others by the same numbers.
///
/// # Errors
/// It does not, or there is no `/proc`.
pub fn seen() -> io::Result<()> {
    let why = match std::fs::read_link("/proc/self") {
        Ok(own) if own.to_str() == Some(&process::getpid().to_string()) => return Ok(()),
        Ok(_) => "/proc shows another pid namespace than that of this process: mount the one of this",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "/proc is not mounted: mount it",
        Err(error) => return Err(error),
    };
    Err(io::Error::other(why))
}

/// Whether this process has children, ended ones included. Those whose parents have ended are ours where this one
/// [adopts](adopts_orphans) them: then, where there is no child, there is no descendant.
pub fn has_children() -> bool {
    let looking = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(process::waitid(WaitId::All, looking), Err(rustix::io::Errno::CHILD))
}

/// More than a line of `/proc/<pid>/stat` has: 52 numbers and a name.
const STAT_MAX: usize = 2048;

/// Reads what the kernel says of one process. There may be thousands, and each call counts: one to open, one to read.
fn read_stat(pid: i32) -> Option<Process> {
    let file = rustix::fs::open(
        format!("/proc/{pid}/stat"),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let mut line = [0; STAT_MAX];
    let length = rustix::io::read(file.ok()?, &mut line).ok()?;
    parse_stat(&String::from_utf8_lossy(line.get(..length)?))
}

/// Reads a line of `/proc/<pid>/stat` (`man 5 proc`). The program's name is in parentheses and may contain
/// anything, so fields are counted from the last one.
fn parse_stat(line: &str) -> Option<Process> {
    let (pid, rest) = line.split_once(" (")?;
    let (_, fields) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    Some(Process {
        pid: pid.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// When a process was started, in kernel ticks since boot; with its pid, its identity.
pub fn started(pid: i32) -> Option<u64> {
    seen().ok()?;
    read_stat(pid).map(|process| process.started)
}

/// The value of one variable in the environment that the process was started with, if it can be read.
pub fn started_with(pid: i32, variable: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let (name, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
        (name == variable).then(|| value.to_owned())
    })
}

/// The real user of a process (`man 5 proc`, `Uid` of `/proc/<pid>/status`).
pub fn real_user(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().next()?.parse().ok()
}

/// Whether any of these processes has the socket with this inode open; `None` where that cannot be read.
pub fn holds_socket(pids: &[i32], inode: u64) -> Option<bool> {
    let wanted = format!("socket:[{inode}]");
    for pid in pids {
        let fds = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(fds) => fds,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return None,
        };
        for fd in fds.flatten() {
            if std::fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()) {
                return Some(true);
            }
        }
    }
    Some(false)
}

/// Makes orphaned descendants of this process its children, as they are PID 1's anyway.
pub fn become_subreaper() -> io::Result<()> {
    Ok(process::set_child_subreaper(Some(process::getpid()))?)
}

/// Whether orphaned descendants become children of this process.
pub fn adopts_orphans() -> bool {
    process::getpid().as_raw_nonzero().get() == 1 || matches!(process::child_subreaper(), Ok(Some(_)))
}

/// Whether this is a child of this process that was not reaped yet, and may have ended.
pub fn is_child(pid: i32) -> bool {
    let looking = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let Some(pid) = Pid::from_raw(pid) else { return false };
    !matches!(process::waitid(WaitId::Pid(pid), looking), Err(rustix::io::Errno::CHILD))
}

/// Whether a process has ended and was reaped, whoever has done that. Where that cannot be seen, as long as there is no
/// descriptor to read `/proc` with, it has not.
pub fn is_gone(of: Process) -> bool {
    match (started(of.pid), Pid::from_raw(of.pid)) {
        (Some(started), _) => started != of.started,
        (None, Some(pid)) => process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH),
        (None, None) => true,
    }
}

/// A descriptor of a process: it can be read from when that has ended, whoever reaps it.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when it [is gone](is_gone), and no other then. Any other says nothing of the process: there may be
/// no descriptor left.
pub fn open(of: Process) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(of.pid).ok_or(io::ErrorKind::NotFound)?;
    // Not even with PIDFD_NONBLOCK, which kernels before 5.10 do not know: nobody reads from it.
    let open = process::pidfd_open(pid, PidfdFlags::empty());
    if is_gone(of) { Err(io::ErrorKind::NotFound.into()) } else { Ok(open?) }
}

/// Lets no process of the same user look into this one: its memory, and the environment that it was started with
/// (`man 2 prctl`, `PR_SET_DUMPABLE`). Programs that this one starts are as open as ever.
pub fn close_to_others() -> io::Result<()> {
    Ok(process::set_dumpable_behavior(process::DumpableBehavior::NotDumpable)?)
}

/// Sets how soon the kernel ends a process when memory runs out: -1000 (never) to 1000 (`man 5 proc`).
pub fn set_oom_score_adj(pid: i32, score: i16) -> io::Result<()> {
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
}

/// The name of this host, as its kernel knows it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What became of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited {
    /// It has ended, and is buried.
    Ended(i32, Exit),
    /// It was stopped by a signal.
    Stopped(i32),
}

/// What became of one child since it was asked for the last time, if there is any news.
pub fn reap() -> io::Result<Option<Waited>> {
    loop {
        let (pid, status) = match process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let by_signal = || status.terminating_signal().and_then(Signal::from_number).map(Exit::Signal);
        let by_code = || status.exit_status().and_then(|code| u8::try_from(code).ok()).map(Exit::Code);
        let pid = pid.as_raw_nonzero().get();
        if status.stopped() {
            return Ok(Some(Waited::Stopped(pid)));
        }
        if let Some(exit) = by_code().or_else(by_signal) {
            return Ok(Some(Waited::Ended(pid, exit)));
        }
    }
}

/// Sends a signal to a process, if it is still the one that was seen.
///
/// The pid may have been given to a stranger since: the process is opened first and its start time compared.
/// A process that has ended is no error.
pub fn signal(to: Process, signal: Signal) -> io::Result<()> {
    let (Some(pid), Some(number)) = (Pid::from_raw(to.pid), named(signal)) else {
        return Ok(());
    };
    let open = match process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(open) => open,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if started(to.pid) != Some(to.started) {
        return Ok(());
    }
    match process::pidfd_send_signal(open, number) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal to a child that has not been reaped yet: its pid cannot have been given to another process.
pub fn signal_child(pid: i32, signal: Signal) -> io::Result<()> {
    let (Some(pid), Some(number)) = (Pid::from_raw(pid), named(signal)) else {
        return Ok(());
    };
    match process::kill_process(pid, number) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Kills every process in the group of a child that has not been reaped yet: the group's number is still its own.
pub fn kill_group(leader: i32) -> io::Result<()> {
    let Some(leader) = Pid::from_raw(leader) else { return Ok(()) };
    match process::kill_process_group(leader, process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn named(signal: Signal) -> Option<process::Signal> {
    let number = signal.number();
    process::Signal::from_named_raw(number).or_else(|| {
        // SAFETY: 34 to 64 are the real-time signals, which the kernel delivers like any other.
        (34..=64).contains(&number).then(|| unsafe { process::Signal::from_raw_unchecked(number) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = "42 (a) b (c) S 7 42 40 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1 1";
        let read = parse_stat(line).unwrap();
        assert_eq!(
            read,
            Process { pid: 42, parent: 7, group: 42, session: 40, started: 12345, zombie: false }
        );
        assert_eq!(parse_stat("42 (x"), None);
    }

    #[test]
    fn children_and_theirs_are_descendants_and_strangers_are_not() {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};
        // From another thread than the one that looks.
        let start =
            || Command::new("sh").args(["-c", "sleep 60 & echo $!; wait"]).stdout(Stdio::piped()).spawn();
        let mut shell = std::thread::spawn(start).join().unwrap().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let sleep: i32 = line.trim().parse().unwrap();
        let found: Vec<i32> = descendants().unwrap().iter().map(|process| process.pid).collect();
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(found.contains(&i32::try_from(shell.id()).unwrap()) && found.contains(&sleep), "{found:?}");
        assert!(!found.contains(&me) && !found.contains(&1), "{found:?}");
        let of_sleep = all().unwrap().into_iter().find(|process| process.pid == sleep).unwrap();
        signal(of_sleep, Signal::KILL).unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn f21_a_signal_for_an_earlier_owner_of_a_pid_reaches_nobody() {
        use std::os::unix::process::ExitStatusExt;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let seen = all().unwrap().into_iter().find(|process| process.pid == pid).unwrap();
        signal(Process { started: seen.started - 1, ..seen }, Signal::KILL).unwrap();
        signal(seen, Signal::TERM).unwrap();
        // Had the first one arrived, it would have been the end.
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.number()));
        // Nobody has the pid now, and that is no error.
        signal(seen, Signal::KILL).unwrap();
    }

    #[test]
    fn only_a_process_that_is_gone_is_not_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let seen = Process { pid, started: started(pid).unwrap(), ..all().unwrap()[0] };
        assert!(!is_gone(seen));
        assert!(is_gone(Process { started: seen.started - 1, ..seen }), "the pid is somebody else's now");
        // One that nobody has reaped yet can be waited for, and its end is seen at once.
        child.kill().unwrap();
        let open_one = open(seen).unwrap();
        assert!(!rustix::fs::fcntl_getfl(&open_one).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        let mut fds = [rustix::event::PollFd::new(&open_one, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut fds, None), Ok(1));
        child.wait().unwrap();
        assert!(is_gone(seen) && open(seen).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn this_process_is_among_all() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(all().unwrap().iter().any(|process| process.pid == me));
        assert_eq!(started_with(me, "PATH"), std::env::var("PATH").ok());
        assert_eq!(real_user(me), Some(process::getuid().as_raw()));
    }
}
