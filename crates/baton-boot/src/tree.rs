//! Which processes belong to a generation.

use std::collections::BTreeSet;

use baton_core::ids::GenerationId;
use baton_sys::process::{self, Process};

/// The main process of a generation: the leader of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Whose.
    pub generation: GenerationId,
    /// Its pid, which is also the number of its session.
    pub pid: i32,
    /// When it was started, in kernel ticks: once it is gone, its pid may be somebody else's.
    pub started: Option<u64>,
}

/// The living processes of a generation, its main process included.
///
/// A process belongs to it by its session, by descent from one that belongs to it, or, for one that left its
/// session and lost its parents, by the generation that it was started with.
pub fn of(root: Root) -> std::io::Result<Vec<Process>> {
    let all = process::all()?;
    let me = i32::try_from(std::process::id()).unwrap_or_default();
    let started_with = |process: &Process| process::started_with(process.pid, "BATON_GENERATION");
    Ok(members(root, &all, |process| {
        process.parent == me && started_with(process).is_some_and(|id| id == root.generation.to_string())
    }))
}

fn members(root: Root, all: &[Process], marked: impl Fn(&Process) -> bool) -> Vec<Process> {
    let mut pids: BTreeSet<i32> = BTreeSet::new();
    // While a session has members its number is not given away, so a stranger with it means there are none.
    let reused = all.iter().any(|process| process.pid == root.pid && Some(process.started) != root.started);
    loop {
        let before = pids.len();
        for process in all {
            let belongs = (!reused && (process.pid == root.pid || process.session == root.pid))
                || pids.contains(&process.parent)
                || (!pids.contains(&process.pid) && marked(process));
            if belongs {
                pids.insert(process.pid);
            }
        }
        if pids.len() == before {
            break;
        }
    }
    all.iter().filter(|process| pids.contains(&process.pid) && !process.zombie).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, parent, session, started: 0, zombie: false }
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
        let root = Root { generation: GenerationId(1), pid: 10, started: Some(0) };
        let found = |marked: &[i32]| {
            let found = members(root, &all, |process| marked.contains(&process.pid));
            found.iter().map(|process| process.pid).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), [10, 11, 12]);
        assert_eq!(found(&[13]), [10, 11, 12, 13, 14]);
        let stranger = Root { started: Some(7), ..root };
        assert_eq!(members(stranger, &all, |_| false), []);
    }
}
