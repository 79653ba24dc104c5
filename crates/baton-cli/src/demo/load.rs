//! The load of the demo: a process of its own that accounts for every request.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::DemoError;

/// Clients that make a connection for each request, over the members in turn.
const NEW: u64 = 8;
/// Clients that keep their connection, spread over the members.
const KEEP: u64 = 8;

/// How long the generator may take to answer: it prints every second.
const ANSWER: Duration = Duration::from_secs(10);
/// How long running requests may take to end.
const END: Duration = Duration::from_secs(30);

/// The counts that the demo shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Counts {
    /// When they were taken, in milliseconds since 1970.
    pub ended_ms: u64,
    /// Requests begun.
    pub sent: u64,
    /// Requests with their whole answer.
    pub answered: u64,
    /// Requests under way.
    pub unfinished: u64,
    /// Requests lost.
    pub lost: u64,
    /// Requests that ended with a program that crashed or was killed.
    pub died_with_program: u64,
    /// Reused connections that were closed before an answer began.
    pub idle_closes: u64,
    /// Requests that the generator itself could not send.
    pub not_sent: u64,
}

/// Most requests that can be in flight on one of so many members: a client has one at a time.
pub const fn in_flight_on_one(members: usize) -> u64 {
    NEW + KEEP.div_ceil(members as u64)
}

impl Counts {
    /// What has come since these. What was said to have died may turn out to be lost.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            ended_ms: self.ended_ms,
            sent: self.sent - before.sent,
            answered: self.answered - before.answered,
            unfinished: self.unfinished,
            lost: self.lost.saturating_sub(before.lost),
            died_with_program: self.died_with_program.saturating_sub(before.died_with_program),
            idle_closes: self.idle_closes - before.idle_closes,
            not_sent: self.not_sent - before.not_sent,
        }
    }
}

/// One line of the generator.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Progress(Counts),
    Heard(String),
    Misheard { line: String, why: String },
    Report(Counts),
}

/// The generator, at work.
pub struct Load {
    child: Child,
    said: Option<ChildStdin>,
    lines: Receiver<(String, Line)>,
    /// The last line as it came: with an example of each kind of loss.
    last: String,
}

impl Load {
    /// Starts it on these addresses.
    pub fn start(program: &Path, targets: &[SocketAddr]) -> Result<Self, DemoError> {
        let started = Command::new(program)
            .args(targets.iter().map(SocketAddr::to_string))
            .args(["--attached", "--new", &NEW.to_string(), "--keep", &KEEP.to_string()])
            .args(["--rate", "25", "--slow-share", "5%"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.map_err(DemoError::io(format!("start {}", program.display())))?;
        let (send, lines) = channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let Ok(parsed) = serde_json::from_str(&line) else { continue };
                    if send.send((line, parsed)).is_err() {
                        return;
                    }
                }
            });
        }
        let said = child.stdin.take();
        Ok(Self { child, said, lines, last: String::new() })
    }

    /// Tells it something, and waits until it has heard.
    pub fn say(&mut self, what: &str) -> Result<(), DemoError> {
        let Some(said) = &mut self.said else { return Ok(()) };
        writeln!(said, "{what}").map_err(DemoError::io("talk to the load generator"))?;
        loop {
            match self.next(ANSWER)? {
                Line::Heard(line) if line == what => return Ok(()),
                Line::Misheard { line, why } => {
                    return Err(DemoError::Unexpected(format!(
                        "the load generator did not understand {line:?}: {why}"
                    )));
                }
                Line::Heard(_) | Line::Progress(_) | Line::Report(_) => {}
            }
        }
    }

    /// The counts at this moment or a little later.
    pub fn counts(&mut self) -> Result<Counts, DemoError> {
        // What has been printed already is old.
        while self.lines.try_recv().is_ok() {}
        loop {
            if let Line::Progress(counts) = self.next(ANSWER)? {
                return Ok(counts);
            }
        }
    }

    /// Lets running requests end, and returns the whole account with its text.
    pub fn finish(mut self) -> Result<(Counts, String), DemoError> {
        self.say("stop")?;
        loop {
            if let Line::Report(counts) = self.next(END)? {
                return Ok((counts, std::mem::take(&mut self.last)));
            }
        }
    }

    fn next(&mut self, limit: Duration) -> Result<Line, DemoError> {
        let until = Instant::now() + limit;
        loop {
            DemoError::check_interrupted()?;
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok((text, line)) => {
                    self.last = text;
                    return Ok(line);
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(_) => {
                    return Err(DemoError::Unexpected("the load generator says nothing any more".to_owned()));
                }
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It ends with its driver's words; this is for when it does not.
        drop(self.said.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
