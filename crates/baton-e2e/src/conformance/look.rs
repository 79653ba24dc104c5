//! What `/proc` tells about a process of the namespace, seen from outside of it.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use baton_core::signal::Signal;
use baton_sys::process::{self, Process};

/// A process and everything that descends from it; from a PID 1, everything in its namespace.
pub fn family(of: i32) -> io::Result<Vec<Process>> {
    let all = process::all()?;
    let mut found = BTreeSet::from([of]);
    loop {
        let before = found.len();
        found.extend(
            all.iter()
                .filter(|process| found.contains(&process.parent))
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            break;
        }
    }
    Ok(all.into_iter().filter(|process| found.contains(&process.pid)).collect())
}

/// The name of the program that a process runs now.
pub fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// A line of `/proc/PID/status` without its name.
pub fn status(pid: i32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The signals of a mask of `/proc/PID/status`: `SigBlk`, `SigIgn` or `SigCgt`. Without 32 and 33, which belong to
/// the C library: where it has a handler for one, what it spawns ignores it.
pub fn signals(pid: i32, mask: &str) -> Vec<Signal> {
    let bits = status(pid, mask).and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or_default();
    (1..=31)
        .chain(34..=64)
        .filter(|number| bits >> (number - 1) & 1 == 1)
        .filter_map(Signal::from_number)
        .collect()
}

/// A field of `/proc/PID/stat` by its number in `man 5 proc`, from 4 (the parent) on.
pub fn stat(pid: i32, field: usize) -> Option<i64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, and ends with the last parenthesis; the state, field 3, follows.
    let (_, fields) = text.rsplit_once(") ")?;
    fields.split_ascii_whitespace().nth(field - 3)?.parse().ok()
}

/// The numbers of its open descriptors, with what each one is.
pub fn descriptors(pid: i32) -> io::Result<Vec<(i32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        if let Ok(number) = entry.file_name().to_string_lossy().parse() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            found.push((number, target.to_string_lossy().into_owned()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_looked_at() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(status(me, "Pid"), Some(me.to_string()));
        assert_eq!(stat(me, 4), Some(i64::from(std::os::unix::process::parent_id())));
        // Rust ignores it in every program.
        assert!(signals(me, "SigIgn").contains(&"PIPE".parse().unwrap()));
        assert!(descriptors(me).unwrap().iter().any(|(number, _)| *number == 2));
        assert!(family(me).unwrap().iter().any(|process| process.pid == me));
        assert!(!name(me).is_empty());
    }
}
