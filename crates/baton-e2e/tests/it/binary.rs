//! `baton-load` as the process that drivers start.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use baton_e2e::load::{Line, Loss, Report, Target};
use rustix::process::{Pid, Signal, kill_process};

use crate::server::{Server, well_behaved};

struct Driven {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Driven {
    fn start(target: &Target, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_baton-load"))
            .arg(target.as_str())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn line(&mut self) -> Line {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    /// The answer to what was just said.
    fn answer(&mut self) -> Line {
        loop {
            match self.line() {
                Line::Progress(_) => {}
                line @ (Line::Heard(_) | Line::Misheard { .. } | Line::Report(_)) => return line,
            }
        }
    }

    /// The report at the end, and the exit code.
    fn end(mut self) -> (Report, i32) {
        let report = loop {
            if let Line::Report(report) = self.line() {
                break report;
            }
        };
        assert!(self.lines.next().is_none(), "the report is the last line");
        (report, self.child.wait().unwrap().code().unwrap())
    }
}
impl Drop for Driven {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_hears_answers_and_ends_with_the_account() {
    let server = Server::start(|_, peer| well_behaved("r1", peer));
    let mut load = Driven::start(&server.target, &["--slow-share", "0%"]);
    load.say("forbid r2");
    assert_eq!(load.answer(), Line::Heard("forbid r2".into()));
    load.say("make tea");
    assert!(matches!(load.answer(), Line::Misheard { line, .. } if line == "make tea"));
    // One second's counts at least.
    while !matches!(load.line(), Line::Progress(report) if report.answered > 0) {}
    load.say("stop");
    let (report, code) = load.end();
    assert!(report.is_clean() && report.answered > 0, "{report:#?}");
    assert_eq!(code, 0);
}

#[test]
fn its_exit_code_tells_that_something_was_lost() {
    let server = Server::start(|_, peer| well_behaved("r1", peer));
    let mut load = Driven::start(&server.target, &["--slow-share", "0%"]);
    load.say("forbid r1");
    while !matches!(load.line(), Line::Progress(report) if report.lost > 0) {}
    kill_process(Pid::from_child(&load.child), Signal::TERM).unwrap();
    let (report, code) = load.end();
    assert_eq!(report.count(Loss::WrongRelease), report.answered);
    assert_eq!(code, 1);
}

#[test]
fn it_ends_by_its_duration_and_with_its_driver() {
    let server = Server::start(|_, peer| well_behaved("r1", peer));
    let by_duration = Driven::start(&server.target, &["--slow-share", "0%", "--duration", "100ms"]);
    assert_eq!(by_duration.end().1, 0);
    let mut by_driver = Driven::start(&server.target, &["--slow-share", "0%", "--attached"]);
    drop(by_driver.child.stdin.take());
    assert_eq!(by_driver.end().1, 0);
}

#[test]
fn a_plan_that_cannot_work_is_a_mistake_of_usage() {
    for args in
        [&["--new", "0", "--keep", "0"][..], &["--slow", "1m", "--timeout", "10s"], &["--rate", "fast"]]
    {
        let target = "127.0.0.1:1".parse().unwrap();
        let mut load = Driven::start(&target, args);
        assert!(load.lines.next().is_none(), "{args:?}");
        assert_eq!(load.child.wait().unwrap().code(), Some(2), "{args:?}");
    }
}
