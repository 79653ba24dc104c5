//! The processes of a program, and where they listen.

use baton_core::doctor::{Place, Process, Reaction};
use baton_core::signal::Signal;
use baton_sys::process::{self, inspect};

/// How many sockets of one process are looked at.
const SOCKETS_MAX: usize = 1000;

/// The living processes that descend from this one, without itself.
pub fn below(pid: i32) -> Vec<process::Process> {
    // Where processes cannot be listed there is nobody to tell of.
    let all = process::all().unwrap_or_default();
    let mut found = vec![pid];
    loop {
        let before = found.len();
        for process in &all {
            if found.contains(&process.parent) && !found.contains(&process.pid) {
                found.push(process.pid);
            }
        }
        if found.len() == before {
            break;
        }
    }
    all.into_iter()
        .filter(|process| process.pid != pid && !process.zombie && found.contains(&process.pid))
        .collect()
}

/// Everything that these processes listen on, each place once.
pub fn places(of: &[process::Process]) -> Vec<Place> {
    let pids: Vec<i32> = of.iter().map(|process| process.pid).collect();
    // A process may end while it is looked at.
    let sockets = inspect::connections(&pids, SOCKETS_MAX).into_values().flatten().flatten();
    let ports = sockets.filter(|one| one.state == "LISTEN").map(|one| Place::Tcp(one.local));
    let paths = pids.iter().flat_map(|pid| inspect::unix_listeners(*pid).unwrap_or_default());
    let mut places: Vec<Place> = ports.chain(paths.map(Place::Unix)).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// What these processes are, the one with this pid first.
pub fn describe(of: &[process::Process], main: i32) -> Vec<Process> {
    let mut pids: Vec<i32> = of.iter().map(|process| process.pid).collect();
    pids.sort_unstable_by_key(|pid| (*pid != main, *pid));
    let lines = pids.into_iter().filter_map(|pid| inspect::command_line(pid).ok());
    lines.map(|(name, words)| Process { name, words }).collect()
}

/// The names of these processes, each once.
pub fn names(of: &[process::Process]) -> Vec<String> {
    let mut names: Vec<String> = of
        .iter()
        .filter_map(|process| inspect::command_line(process.pid).ok())
        .map(|(name, _)| name)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What a process does at a signal; nothing when it has ended meanwhile.
pub fn reaction(pid: i32, signal: Signal) -> Option<Reaction> {
    Some(match inspect::disposition(pid, signal).ok()? {
        Some(inspect::Disposition::Caught | inspect::Disposition::Blocked) => Reaction::Handles,
        Some(inspect::Disposition::Ignored) => Reaction::Ignores,
        None => Reaction::Ends,
    })
}
