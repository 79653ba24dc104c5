//! Programs started by `spawn` and ended by `signal`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use baton_core::exit::Exit;
use baton_core::signal::Signal;
use baton_sys::attributes::{Attributes, Limit, User};
use baton_sys::process;
use baton_sys::spawn::{Spawn, SpawnError, Stdin, pipe, spawn};

fn environment(entries: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    entries.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// The exit of exactly this child: tests run side by side, so nobody may reap for all.
pub fn wait(pid: i32) -> Exit {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let (_, status) =
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    match status.exit_status() {
        Some(code) => Exit::Code(u8::try_from(code).unwrap()),
        None => Exit::Signal(Signal::from_number(status.terminating_signal().unwrap()).unwrap()),
    }
}

/// Starts a shell script that writes here.
fn start(script: &str, write: &OwnedFd) -> i32 {
    let command = ["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let what = Spawn {
        command: &command,
        directory: Path::new("/"),
        mount: None,
        environment: &environment(&[("PATH", "/usr/bin:/bin")]),
        sockets: &[],
        stdout: write.as_fd(),
        stderr: write.as_fd(),
        stdin: Stdin::Null,
        attributes: &Attributes::default(),
    };
    spawn(&what).unwrap()
}

/// Starts a shell script that nobody listens to.
pub fn started(script: &str) -> i32 {
    let (_read, write) = pipe().unwrap();
    start(script, &write)
}

#[test]
fn f2_a_program_is_asked_to_end_when_whoever_started_it_has_ended() {
    let asked = std::thread::spawn(|| started("exec sleep 60"));
    assert_eq!(wait(asked.join().unwrap()), Exit::Signal(Signal::TERM));
}

#[test]
fn a_child_that_another_program_starts_is_asked_to_end_with_whoever_started_it() {
    let start = || baton_sys::parent::end_with_parent(Command::new("sleep").arg("60")).spawn();
    let mut child = std::thread::spawn(start).join().unwrap().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.number()));
}

#[test]
fn p18_a_child_gets_the_signal_that_is_meant_for_it() {
    for signal in [Signal::TERM, Signal::USR1, Signal::from_number(40).unwrap()] {
        let pid = started("exec sleep 60");
        // Once more, when it may have ended: nobody has reaped it, and it is no error.
        process::signal_child(pid, signal).unwrap();
        process::signal_child(pid, signal).unwrap();
        assert_eq!(wait(pid), Exit::Signal(signal));
    }
}

#[test]
fn how_soon_a_process_ends_for_want_of_memory_is_set() {
    let pid = started("exec sleep 60");
    let score = || std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    // Above what it has from us, as raising it needs no right.
    let wanted = score().trim().parse::<i16>().unwrap().max(500) + 7;
    process::set_oom_score_adj(pid, wanted).unwrap();
    assert_eq!(score().trim(), wanted.to_string());
    process::signal_child(pid, Signal::KILL).unwrap();
    wait(pid);
    assert!(process::set_oom_score_adj(pid, wanted).is_err());
}

#[test]
fn a_group_is_killed_with_all_that_is_in_it() {
    let (read, write) = pipe().unwrap();
    let leader = start("sleep 60 & echo $!; wait", &write);
    let mut line = String::new();
    BufReader::new(std::fs::File::from(read)).read_line(&mut line).unwrap();
    let other: i32 = line.trim().parse().unwrap();
    let lives = || process::all().unwrap().iter().any(|one| one.pid == other && !one.zombie);
    assert!(lives());
    process::kill_group(leader).unwrap();
    assert_eq!(wait(leader), Exit::Signal(Signal::KILL));
    let begun = Instant::now();
    while lives() {
        assert!(begun.elapsed() < Duration::from_secs(10), "its child lives on");
        std::thread::yield_now();
    }
}

/// Runs a shell script to its end and returns what it wrote.
pub fn output(script: &str, sockets: usize) -> String {
    output_with(script, sockets, &[], &Attributes::default())
}

/// The same with more variables and attributes.
fn output_with(script: &str, sockets: usize, more: &[(&str, &str)], attributes: &Attributes) -> String {
    let _alone = crate::FORKING.lock().unwrap();
    let listeners: Vec<_> =
        (0..sockets).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let sockets: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let (mut read, write) = {
        let (read, write) = pipe().unwrap();
        (std::fs::File::from(read), write)
    };
    let command = ["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let pid = spawn(&Spawn {
        command: &command,
        directory: Path::new("/"),
        mount: None,
        environment: &environment(&[&[("PATH", "/usr/bin:/bin"), ("GREETING", "hello")], more].concat()),
        sockets: &sockets,
        stdout: write.as_fd(),
        stderr: write.as_fd(),
        stdin: Stdin::Null,
        attributes,
    })
    .unwrap();
    drop(write);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(wait(pid), Exit::Code(0), "{text}");
    text
}

#[test]
fn a_program_gets_the_attributes_it_was_given() {
    let mut attributes = Attributes {
        umask: Some(0o027),
        nice: Some(7),
        oom_score_adj: Some(507),
        limits: vec![(Limit::Files, 77)],
        ..Attributes::default()
    };
    let script = "umask; ulimit -n; nice; cat /proc/self/oom_score_adj; id -u; id -g; id -G";
    let own = format!("{}\n{}\n", rustix::process::geteuid(), rustix::process::getegid());
    let said = output_with(script, 0, &[], &attributes);
    assert!(said.starts_with(&format!("0027\n77\n7\n507\n{own}")), "{said}");
    if rustix::process::geteuid().is_root() {
        attributes.user = Some(User { uid: 65_534, gid: 65_533, groups: vec![65_533, 1], known_as: None });
        assert_eq!(output_with(script, 0, &[], &attributes), "0027\n77\n7\n507\n65534\n65533\n65533 1\n");
    }
}

#[test]
fn a_program_may_be_allowed_fewer_files_than_we_have_open() {
    let _many: Vec<_> = (0..60).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let attributes = Attributes { limits: vec![(Limit::Files, 8)], ..Attributes::default() };
    assert_eq!(output_with("ulimit -n", 2, &[], &attributes), "8\n");
}

#[test]
fn a_program_that_is_watched_is_told_its_own_pid() {
    let script = "[ \"$WATCHDOG_PID\" = $$ ] && [ \"$LISTEN_PID\" = $$ ] && echo both";
    assert_eq!(output_with(script, 1, &[("WATCHDOG_USEC", "1000000")], &Attributes::default()), "both\n");
    assert_eq!(output("echo $WATCHDOG_PID", 1), "\n");
}

const OPEN_DESCRIPTORS: &str =
    "for fd in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$fd ] && printf '%s ' $fd; done; true";

#[test]
fn a_program_gets_exactly_the_environment_and_descriptors_it_was_given() {
    assert_eq!(output("echo $GREETING $HOME; pwd", 0), "hello\n/\n");
    assert_eq!(output(OPEN_DESCRIPTORS, 2), "0 1 2 3 4 ");
}

#[test]
fn listen_pid_is_the_pid_of_the_program() {
    assert_eq!(output("test \"$LISTEN_PID\" = $$ && echo same", 1), "same\n");
    assert_eq!(output("echo \"${LISTEN_PID-none}\"", 0), "none\n");
}

#[test]
fn a_program_starts_with_no_signal_blocked_or_ignored() {
    // 32 and 33 are the C library's own: it lets nobody touch them.
    let of_the_library = 0b11 << 31;
    for line in output("exec grep -E 'SigBlk|SigIgn' /proc/self/status", 0).lines() {
        let mask = u64::from_str_radix(line.split_ascii_whitespace().last().unwrap(), 16).unwrap();
        assert_eq!(mask & !of_the_library, 0, "{line}");
    }
}

#[test]
fn f14_a_program_that_cannot_run_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), "no program").unwrap();
    let _alone = crate::FORKING.lock().unwrap();
    let attempt = |program: &str| {
        let command = [program.to_owned()];
        let null = std::fs::File::open("/dev/null").unwrap();
        let what = Spawn {
            command: &command,
            directory: folder.path(),
            mount: None,
            environment: &environment(&[("PATH", "/usr/bin:/bin")]),
            sockets: &[],
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            stdin: Stdin::Null,
            attributes: &Attributes::default(),
        };
        spawn(&what).unwrap_err()
    };
    assert!(matches!(attempt("no-such-program"), SpawnError::NotFound { .. }));
    assert!(matches!(attempt("./missing"), SpawnError::NotFound { .. }));
    let SpawnError::Failed { step, source, .. } = attempt("./text") else { panic!() };
    assert_eq!((step, source.raw_os_error()), ("exec", Some(libc::EACCES)));
}
