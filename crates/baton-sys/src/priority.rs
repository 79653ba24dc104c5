//! The priority with which processes get their turn on a processor (`man 2 setpriority`). Each thread has its own, and gives it
//! to the threads and processes that it starts.

use rustix::process::{Pid, getpriority_process, setpriority_process};
use rustix::thread::{CapabilitySet, capabilities};

/// How often threads are looked for that were started while others were changed. Each look finds fewer.
const LOOKS: u32 = 4;

/// The priority of this process.
pub fn own() -> i32 {
    getpriority_process(None).unwrap_or(0)
}

/// Whether this process may raise the priority of others, whoever they run as: `CAP_SYS_NICE`. Anybody may lower it, and has
/// then no way back.
pub fn may_raise() -> bool {
    capabilities(None).is_ok_and(|ours| ours.effective.contains(CapabilitySet::SYS_NICE))
}

/// Changes the priority of a process's threads, of those that still have the one that they were started with: what a program has
/// set itself is its own affair.
pub fn change(pid: i32, from: i32, to: i32) {
    for _ in 0..LOOKS {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let threads = threads.filter_map(|thread| Pid::from_raw(thread.file_name().to_str()?.parse().ok()?));
        let unchanged = |thread: &Pid| getpriority_process(Some(*thread)).is_ok_and(|nice| nice == from);
        let changed =
            threads.filter(unchanged).filter(|thread| setpriority_process(Some(*thread), to).is_ok());
        if changed.count() == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    /// Three threads, of which one has set a priority of its own; it says so, and waits.
    const THREADS: &str = "import os, threading, sys\n\
        ready = threading.Barrier(3)\n\
        def run(nice):\n    \
            if nice: os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)\n    \
            ready.wait()\n    \
            sys.stdin.read()\n\
        [threading.Thread(target=run, args=[nice], daemon=True).start() for nice in (0, 12)]\n\
        ready.wait(); print(flush=True); sys.stdin.read()";

    fn priorities(child: &Child) -> Vec<i32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        let pid = |name: &str| Pid::from_raw(name.parse().unwrap());
        let nice = threads
            .map(|thread| getpriority_process(pid(thread.unwrap().file_name().to_str().unwrap())).unwrap());
        let mut all: Vec<i32> = nice.collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn f85_all_threads_are_changed_but_those_that_have_changed_themselves() {
        let mut command = Command::new("nice");
        command.args(["-n", "5", "python3", "-c", THREADS]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.process_group(0).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        let base = own();
        assert_eq!(priorities(&child), [base + 5, base + 5, 12]);
        change(pid, base + 5, base + 7);
        assert_eq!(priorities(&child), [base + 7, base + 7, 12]);
        change(pid, base + 7, base);
        let expected = if may_raise() { [base, base, 12] } else { [base + 7, base + 7, 12] };
        assert_eq!(priorities(&child), expected);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
