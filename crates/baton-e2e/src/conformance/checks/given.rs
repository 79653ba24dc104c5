//! What a program finds when it runs.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use anyhow::Context;
use baton_core::signal::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::conformance::check::{Check, Outcome};
use crate::conformance::look;
use crate::conformance::run::{Setting, Streams};
use crate::nasty::bytes_to_write;

/// Nothing blocked, ignored or handled.
pub const FRESH_SIGNALS: Check = Check {
    name: "fresh-signals",
    proves: "no signal is blocked or ignored in the program, SIGPIPE included",
    matters: "both survive an exec: a pipeline would never end, a worker never hear TERM",
    quick: true,
    run: |bench| {
        let mut run = bench.run(&["sleep", "1000"])?;
        let program = run.program("sleep")?.pid;
        let mut seen = Vec::new();
        for (mask, what) in [("SigBlk", "blocked"), ("SigIgn", "ignored")] {
            let signals = look::signals(program, mask);
            if !signals.is_empty() {
                seen.push(format!("{what}: {signals:?}"));
            }
        }
        Ok(Outcome::of(seen.is_empty(), "", seen.join(", ")))
    },
};

/// Fields of `/proc/PID/stat` (`man 5 proc`).
const PROCESS_GROUP: usize = 5;
const SESSION_ID: usize = 6;
const FOREGROUND_GROUP: usize = 8;
const NICE: usize = 19;

/// Its own group.
pub const SESSION: Check = Check {
    name: "session",
    proves: "the program has a session or at least a process group of its own",
    matters: "what it sends to its group, as many servers do to their workers, does not hit the init",
    quick: true,
    run: |bench| {
        let mut run = bench.run(&["sleep", "1000"])?;
        let (program, init) = (run.program("sleep")?.pid, run.init()?.pid);
        let own = |field| look::stat(program, field) != look::stat(init, field);
        let figure = if own(SESSION_ID) { "session" } else { "group" };
        let held = own(PROCESS_GROUP);
        Ok(Outcome::of(held, if held { figure } else { "" }, "it is in the init's process group"))
    },
};

/// Ctrl-C.
pub const TERMINAL: Check = Check {
    name: "terminal",
    proves: "on a terminal, the program is in its foreground, and Ctrl-C ends it",
    matters: "`docker run -it` with a shell or a debugger in it",
    quick: true,
    run: |bench| {
        let (mut keyboard, terminal) = open_terminal()?;
        // It becomes the terminal of PID 1, as the engine of a container does it.
        let before = vec!["setsid", "--ctty", "--"];
        let setting = Setting { before, streams: Streams::Terminal(terminal), ..Setting::default() };
        let mut run = bench.run_with(&["sleep", "1000"], setting)?;
        let program = run.program("sleep")?.pid;
        let group = look::stat(program, PROCESS_GROUP);
        run.wait_for("the program's group did not become the foreground of the terminal", |_| {
            (look::stat(program, FOREGROUND_GROUP) == group).then_some(())
        })?;
        keyboard.write_all(b"\x03")?;
        let status = run.end()?;
        let expected = 128 + Signal::INT.number();
        Ok(Outcome::of(status.code() == Some(expected), "", format!("after Ctrl-C it ended with {status}")))
    },
};

/// A new terminal: the side of the keyboard, and the side of the programs.
fn open_terminal() -> anyhow::Result<(File, OwnedFd)> {
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("cannot open a terminal")?;
    grantpt(&keyboard)?;
    unlockpt(&keyboard)?;
    let name = ptsname(&keyboard, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let terminal = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty())?;
    Ok((File::from(keyboard), terminal))
}

/// 0, 1 and 2.
pub const DESCRIPTORS: Check = Check {
    name: "descriptors",
    proves: "the program finds descriptors 0, 1 and 2 open and no others",
    matters: "a leaked one keeps sockets, pipes and locks of others alive",
    quick: true,
    run: |bench| {
        let mut run = bench.run(&["sleep", "1000"])?;
        let found = look::descriptors(run.program("sleep")?.pid)?;
        let standard = (0..=2).all(|number| found.iter().any(|(found, _)| *found == number));
        // What this program was started with by mistake is no fault of the init.
        let given = run.descriptors()?;
        let leaked = found.iter().filter(|found| found.0 > 2 && !given.contains(found));
        let leaked: Vec<String> = leaked.map(|(number, what)| format!("{number} is {what}")).collect();
        let held = standard && leaked.is_empty();
        Ok(Outcome::of(held, "", format!("standard ones: {standard}; leaked: {}", leaked.join(", "))))
    },
};

/// How much goes through its streams: more than a pipe holds.
const STREAM_BYTES: usize = 300_000;

/// Input.
pub const STDIN: Check = Check {
    name: "stdin",
    proves: "what is written to the init's standard input, the program reads",
    matters: "`docker run -i` and everything that is piped into a container",
    quick: true,
    run: |bench| {
        let bytes = bytes_to_write(STREAM_BYTES);
        let setting = Setting { streams: Streams::Fed(bytes.clone()), ..Setting::default() };
        let mut run = bench.nasty_with(&["copy"], setting)?;
        run.end()?;
        let came = run.stdout();
        Ok(Outcome::of(came == bytes, "", format!("{} of {STREAM_BYTES} bytes came", came.len())))
    },
};

/// Output.
pub const OUTPUT: Check = Check {
    name: "output",
    proves: "what the program writes comes out: every byte, each stream by itself, its last words too",
    matters: "what a program said before a crash is what is needed",
    quick: true,
    run: |bench| {
        let bytes = bytes_to_write(STREAM_BYTES);
        let mut run = bench.nasty(&["write", &STREAM_BYTES.to_string()])?;
        run.end()?;
        let (out, err) = (run.stdout(), run.stderr());
        // The init may say something on standard error, before or after.
        let err_held = err.windows(bytes.len()).any(|window| window == bytes);
        let seen = format!(
            "of {STREAM_BYTES} bytes {} came on standard output{}, {} on standard error{}",
            out.len(),
            if out == bytes { "" } else { " (altered or cut)" },
            err.len(),
            if err_held { "" } else { " (altered or cut)" }
        );
        Ok(Outcome::of(out == bytes && err_held, "", seen))
    },
};

/// Values that are easily broken: a long one is just below the kernel's 128 KiB for one variable.
fn odd_variables() -> Vec<(OsString, OsString)> {
    let odd = [
        ("CONFORMANCE_EMPTY", OsString::new()),
        ("CONFORMANCE_BLANKS", "  a  b ".into()),
        ("CONFORMANCE_SIGNS", "a=b;$PATH`'\"\\%(x)s%".into()),
        ("CONFORMANCE_LINES", "one\ntwo\n".into()),
        ("CONFORMANCE_BYTES", OsString::from_vec(vec![0xff, 0xfe, b'x'])),
        ("CONFORMANCE_LONG", "x".repeat(100_000).into()),
    ];
    odd.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// Variables.
pub const ENVIRONMENT: Check = Check {
    name: "environment",
    proves: "every variable that the init was started with reaches the program unchanged",
    matters: "settings and secrets come this way, in every form",
    quick: true,
    run: |bench| {
        let setting = Setting { variables: odd_variables(), ..Setting::default() };
        let mut run = bench.run_with(&["sleep", "1000"], setting)?;
        let program = run.program("sleep")?.pid;
        // It has its name a moment before it has its variables.
        let found = run.wait_for("the program got no environment", |_| {
            std::fs::read(format!("/proc/{program}/environ")).ok().filter(|found| !found.is_empty())
        })?;
        let found: Vec<&[u8]> = found.split(|byte| *byte == 0).collect();
        let lost = odd_variables().into_iter().filter(|(name, value)| {
            let entry = [name.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat();
            !found.contains(&entry.as_slice())
        });
        let lost: Vec<String> = lost.map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        Ok(Outcome::of(lost.is_empty(), "", format!("lost or altered: {}", lost.join(", "))))
    },
};

/// What a program inherits beside its environment.
pub const SURROUNDINGS: Check = Check {
    name: "surroundings",
    proves: "working directory, umask, limits and niceness of the program are those that the init was given",
    matters: "what is set in the Dockerfile or by `docker run --ulimit` holds for the program",
    quick: true,
    run: |bench| {
        // Nobody is nicer than 19.
        let nice = look::stat(std::process::id().try_into()?, NICE).map_or(19, |own| 19.min(own + 5));
        let before = vec!["nice", "-n", "5", "sh", "-c", "umask 027; ulimit -n 512; exec \"$@\"", "sh"];
        let mut run = bench.run_with(&["sleep", "1000"], Setting { before, ..Setting::default() })?;
        let program = run.program("sleep")?.pid;
        let mut wrong = Vec::new();
        let mut expect = |what: &str, expected: &str, found: Option<String>| {
            let found = found.unwrap_or_default();
            if found != expected {
                wrong.push(format!("{what} is {found} instead of {expected}"));
            }
        };
        let directory = std::fs::read_link(format!("/proc/{program}/cwd"))?;
        expect(
            "the working directory",
            &run.folder().to_string_lossy(),
            directory.to_str().map(str::to_owned),
        );
        expect("the umask", "0027", look::status(program, "Umask"));
        let limits = std::fs::read_to_string(format!("/proc/{program}/limits"))?;
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        expect(
            "the limit of files",
            "512",
            files.and_then(|line| line.split_whitespace().next()).map(str::to_owned),
        );
        expect("the niceness", &nice.to_string(), look::stat(program, NICE).map(|nice| nice.to_string()));
        Ok(Outcome::of(wrong.is_empty(), "", wrong.join(", ")))
    },
};
