//! Where it all happens: namespaces of processes, networks and mounts of its own, which end with the program, whatever ends
//! it. Nothing of it is on the machine, and nothing is left.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, ensure};
use baton_sys::process;
use tokio::signal::unix::{SignalKind, signal};

/// The word by which the program knows that it is inside.
pub const INSIDE: &str = "--inside";

/// Becomes the same program inside, with [`INSIDE`] before its arguments. It needs these programs there. Returns only if that is
/// not possible.
///
/// # Errors
/// Why it is not.
pub fn enter(programs: &[&str]) -> anyhow::Error {
    match try_enter(programs) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

fn try_enter(programs: &[&str]) -> anyhow::Result<std::convert::Infallible> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this makes namespaces of its own, for which it must be root: say sudo before it"
    );
    for program in ["unshare"].iter().chain(programs) {
        let there = Command::new(program).arg("--version").output().is_ok();
        ensure!(there, "there is no {program}: run scripts/setup for it");
    }
    let own = std::env::current_exe().context("cannot find this program")?;
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"])
        .arg(own)
        .arg(INSIDE)
        .args(std::env::args_os().skip(1))
        // Temporary files go with everything else.
        .env("TMPDIR", "/run")
        .exec();
    Err(error).context("cannot run unshare")
}

/// Whether this process is the first one inside: else it would break things on the machine.
pub fn is_entered() -> bool {
    std::process::id() == 1
}

/// The first thing to do inside: `/run` is a folder in memory that nobody else sees, loopback addresses can be reached, and
/// INT, TERM and HUP end it all.
///
/// # Errors
/// If the system does not allow that.
pub fn begin() -> anyhow::Result<()> {
    ensure!(is_entered(), "this is to be run in namespaces of its own");
    for words in [&["mount", "-t", "tmpfs", "tmpfs", "/run"][..], &["ip", "link", "set", "lo", "up"]] {
        let (program, arguments) = words.split_first().context("no command")?;
        let status = Command::new(program).args(arguments).status();
        ensure!(status.with_context(|| format!("cannot run {program}"))?.success(), "{words:?} failed");
    }
    end_when_told()
}

/// The first process of a namespace hears only what it waits for. When it ends, everything there does.
fn end_when_told() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let heard = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    };
    let [int, term, hup] = heard;
    let (mut int, mut term, mut hup) = (int?, term?, hup?);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = hup.recv() => {}
            }
        });
        eprintln!("interrupted");
        std::process::exit(130);
    });
    Ok(())
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
