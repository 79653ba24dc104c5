//! What a program was doing when it hung: looked at before it is ended, for whoever has to find out why.

use std::time::Duration;

use baton_core::words::Words;
use baton_sys::process::inspect::{self, Connection, Thread};
use tokio::task::spawn_blocking;

use crate::tree::{self, Root};

/// How long looking may take. Reading `/proc` of a process in trouble can take longer than of others, and longest where the
/// machine has no time left, which is when processes hang.
const LIMIT: Duration = Duration::from_secs(3);
/// How many processes are told of.
const PROCESSES_MAX: usize = 16;
/// How many are looked at, to find those.
const LOOKED_AT_MAX: usize = 64;
/// How many threads of a process are told of: a pool of workers waits in one place.
const THREADS_MAX: usize = 24;
/// How many connections of a process are told of.
const CONNECTIONS_MAX: usize = 24;
/// How many lines there are in all.
const LINES_MAX: usize = 96;

/// How likely it is that a thread hangs, the most likely first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hangs {
    /// It is stopped, or waits for a disk.
    Held,
    /// It computes.
    Runs,
    /// It waits for something, or nobody may know for what.
    Waits,
    /// It waits for new work, or for its children.
    Idle,
}

/// Looks at the processes of a generation, off the loop, and tells what was seen, a line each.
pub async fn gather(root: Root) -> Vec<String> {
    let generation = root.generation;
    match tokio::time::timeout(LIMIT, spawn_blocking(move || look(&root))).await {
        Ok(Ok(lines)) => lines,
        Ok(Err(_)) | Err(_) => {
            vec![format!("the processes of generation {generation} could not be looked at within {LIMIT:?}")]
        }
    }
}

/// The main processes come first where nothing tells who hangs.
fn look(root: &Root) -> Vec<String> {
    let all = tree::of(root).map(|all| all.iter().map(|process| process.pid).collect());
    let mut pids: Vec<i32> = all.unwrap_or_else(|_| root.mains.iter().map(|main| main.pid).collect());
    pids.sort_by_key(|pid| !root.is_main(*pid));
    pids.truncate(LOOKED_AT_MAX);
    let mut processes: Vec<_> =
        pids.into_iter().map(|pid| (pid, inspect::threads(pid, THREADS_MAX))).collect();
    let likely =
        |threads: &std::io::Result<Vec<Thread>>| threads.as_deref().map_or(Hangs::Waits, most_likely);
    processes.sort_by_key(|(_, threads)| likely(threads));
    processes.truncate(PROCESSES_MAX);
    let several = processes.len() > 1;
    let told: Vec<i32> = processes.iter().map(|(pid, _)| *pid).collect();
    let mut connections = inspect::connections(&told, CONNECTIONS_MAX);
    let mut lines = Vec::new();
    for (pid, threads) in processes {
        if several {
            lines.push(process_line(pid));
        }
        match threads {
            Ok(threads) => lines.extend(threads.iter().map(thread_line)),
            Err(error) => lines.push(format!("the threads of process {pid} cannot be read: {error}")),
        }
        match connections.remove(&pid) {
            Some(Ok(connections)) => lines.extend(connections.iter().map(connection_line)),
            Some(Err(error)) => lines.push(format!("the sockets of process {pid} cannot be read: {error}")),
            None => {}
        }
    }
    lines.truncate(LINES_MAX);
    lines
}

/// By the first word of its command line, which is where servers say what a process of theirs is for. Others may be secrets.
fn process_line(pid: i32) -> String {
    let (name, words) = inspect::command_line(pid).unwrap_or_default();
    let command = words.into_iter().next().unwrap_or(name);
    format!("process {pid}: {}", Words::new(&command).as_str())
}

/// How likely it is that a process with these threads hangs.
fn most_likely(threads: &[Thread]) -> Hangs {
    threads.iter().map(hangs).min().unwrap_or(Hangs::Idle)
}

fn hangs(thread: &Thread) -> Hangs {
    /// Calls in which servers wait for something to do.
    const IDLE: [&str; 15] = [
        "accept",
        "accept4",
        "epoll_pwait",
        "epoll_pwait2",
        "epoll_wait",
        "futex",
        "pause",
        "poll",
        "ppoll",
        "pselect6",
        "rt_sigsuspend",
        "rt_sigtimedwait",
        "select",
        "wait4",
        "waitid",
    ];
    let call = thread.call.as_deref().and_then(|call| call.split('(').next());
    match (thread.state, call) {
        ('D' | 'T' | 't', _) => Hangs::Held,
        ('R', _) => Hangs::Runs,
        (_, Some(call)) if IDLE.contains(&call) => Hangs::Idle,
        (_, _) => Hangs::Waits,
    }
}

fn thread_line(thread: &Thread) -> String {
    let Thread { id, name, state, waits_in, call, stack } = thread;
    let state = match state {
        'R' => "runs".to_owned(),
        'S' | 'I' => "sleeps".to_owned(),
        'D' => "waits for the kernel".to_owned(),
        'T' | 't' => "is stopped".to_owned(),
        'Z' | 'X' => "has ended".to_owned(),
        other => format!("is in state {other}"),
    };
    let part = |before: &str, text: Option<String>| text.map(|text| format!("{before}{text}"));
    let stack = (!stack.is_empty()).then(|| stack.join(" < "));
    let parts = [part(" in ", waits_in.clone()), part(", ", call.clone()), part("; stack: ", stack)];
    let rest: String = parts.into_iter().flatten().collect();
    format!("thread {id} {:?} {state}{rest}", Words::new(name).as_str())
}

fn connection_line(connection: &Connection) -> String {
    let Connection { fd, local, peer, state } = connection;
    match peer.port() {
        0 => format!("fd {fd}: {local} {state}"),
        _ => format!("fd {fd}: {local} to {peer} {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_hangs_as_likely_as_the_most_likely_of_its_threads() {
        let thread = |(state, call): &(char, Option<&str>)| Thread {
            id: 1,
            name: String::new(),
            state: *state,
            waits_in: None,
            call: call.map(str::to_owned),
            stack: Vec::new(),
        };
        type Threads<'a> = &'a [(char, Option<&'a str>)];
        let table: [(Threads<'_>, Hangs); 9] = [
            (&[], Hangs::Idle),
            (&[('S', Some("epoll_wait(fd 4)"))], Hangs::Idle),
            (&[('S', Some("wait4")), ('S', Some("futex"))], Hangs::Idle),
            (&[('S', Some("accept4(fd 3)")), ('S', Some("recvfrom(fd 7)"))], Hangs::Waits),
            (&[('S', Some("clock_nanosleep"))], Hangs::Waits),
            (&[('S', None)], Hangs::Waits),
            (&[('S', Some("select")), ('R', None)], Hangs::Runs),
            (&[('R', None), ('D', Some("fsync(fd 9)"))], Hangs::Held),
            (&[('T', Some("epoll_wait(fd 4)"))], Hangs::Held),
        ];
        for (threads, expected) in table {
            let threads: Vec<Thread> = threads.iter().map(thread).collect();
            assert_eq!(most_likely(&threads), expected, "{threads:?}");
        }
    }

    #[test]
    fn a_thread_and_a_connection_are_told_in_one_line_each() {
        let thread = Thread {
            id: 7,
            name: "py\nthon".to_owned(),
            state: 'S',
            waits_in: Some("wait_woken".to_owned()),
            call: Some("recvfrom(fd 5)".to_owned()),
            stack: ["wait_woken", "sk_wait_data"].map(str::to_owned).to_vec(),
        };
        let full =
            "thread 7 \"py thon\" sleeps in wait_woken, recvfrom(fd 5); stack: wait_woken < sk_wait_data";
        assert_eq!(thread_line(&thread), full);
        let bare = Thread { state: 'R', waits_in: None, call: None, stack: Vec::new(), ..thread };
        assert_eq!(thread_line(&bare), "thread 7 \"py thon\" runs");
        let (local, peer) = (([127, 0, 0, 1], 4000).into(), ([10, 0, 0, 2], 5432).into());
        let connection = Connection { fd: 5, local, peer, state: "ESTABLISHED" };
        assert_eq!(connection_line(&connection), "fd 5: 127.0.0.1:4000 to 10.0.0.2:5432 ESTABLISHED");
    }
}
