//! Where it all happens: namespaces of processes, networks and mounts of its own, which end with the program, whatever ends
//! it. Nothing of it is on the machine, and nothing is left.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, ensure};
use baton_sys::process;

/// The word by which the program knows that it is inside.
pub const INSIDE: &str = "--inside";

/// Becomes the same program inside. Returns only if that is not possible.
///
/// # Errors
/// Why it is not.
pub fn enter() -> anyhow::Error {
    match try_enter() {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

fn try_enter() -> anyhow::Result<std::convert::Infallible> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this makes network namespaces, for which it must be root: sudo make chaos"
    );
    for program in ["unshare", "nsenter", "ip", "iptables", "tc", "redis-server", "redis-cli"] {
        let there = Command::new(program).arg("--version").output().is_ok();
        ensure!(there, "there is no {program}: run scripts/setup chaos");
    }
    let own = std::env::current_exe().context("cannot find this program")?;
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"])
        .arg(own)
        .arg(INSIDE)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("cannot run unshare")
}

/// Whether this process is the first one inside: else it would break things on the machine.
pub fn is_entered() -> bool {
    std::process::id() == 1
}

/// The processes that run here beside this one. Those that have ended and were this one's to reap are reaped.
///
/// # Errors
/// If they cannot be listed.
pub fn others() -> anyhow::Result<Vec<String>> {
    while process::reap()?.is_some() {}
    let own = i32::try_from(std::process::id())?;
    let others = process::all()?.into_iter().filter(|other| other.pid != own && !other.zombie);
    Ok(others.map(|other| format!("{} {}", other.pid, command_line(other.pid))).collect())
}

fn command_line(pid: i32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned()
}
