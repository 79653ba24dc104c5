//! A server that goes away while somebody follows what happens, and comes back.

use std::io::{BufRead, BufReader, Lines, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::control::Control;
use crate::program::{baton, run};
use crate::story::sample_project;

/// A server, and a command that goes on until Ctrl-C.
struct Scene {
    dir: TempDir,
    data: TempDir,
    control: Option<Control>,
    url: String,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Scene {
    /// With a first deploy, of which the command tells.
    fn start(arguments: &[&str]) -> Self {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sample_project(dir.path());
        let control = Control::start(data.path());
        let url = control.url.clone();
        deploy(dir.path(), &url);
        let mut child = baton(dir.path(), &url, arguments).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { dir, data, control: Some(control), url, child, stdout, stderr }
    }

    /// The server ends; it starts again, and another deploy follows, once the command has noticed.
    fn go_away_and_come_back(&mut self) -> String {
        self.control = None;
        let complaint = self.stderr.next().unwrap().unwrap();
        self.control = Some(Control::start_at(&self.url, self.data.path()));
        deploy(self.dir.path(), &self.url);
        complaint
    }

    fn line(&mut self) -> String {
        self.stdout.next().unwrap().unwrap()
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(130));
    }
}

fn deploy(dir: &Path, url: &str) {
    let ran = run(dir, url, &["deploy", "--detach"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn p33_events_go_on_after_the_last_one_once_the_server_is_back() {
    let mut scene = Scene::start(&["events", "-f", "--output", "json"]);
    let (mut printed, mut deploys) = (Vec::new(), 0);
    for round in 1..=3 {
        while deploys < round {
            printed.push(scene.json());
            deploys += u32::from(printed.last().unwrap()["kind"] == "deployed");
        }
        let complaint: Value = serde_json::from_str(&scene.go_away_and_come_back()).unwrap();
        assert_eq!(complaint["error"]["code"], "unreachable");
    }
    let all = run(scene.dir.path(), &scene.url, &["events", "--output", "json"]).json();
    assert_eq!(printed[..], all.as_array().unwrap()[..printed.len()], "each once, and none is missing");
    scene.stop();
}

#[test]
fn p33_a_status_is_watched_on_once_the_server_is_back() {
    let mut scene = Scene::start(&["status", "--watch"]);
    while !scene.line().contains("epoch 1") {}
    let complaint = scene.go_away_and_come_back();
    assert!(complaint.starts_with("baton: lost the connection to control, trying again: "), "{complaint}");
    assert_eq!(scene.stderr.next().unwrap().unwrap(), "baton: control answers again");
    while !scene.line().contains("epoch 2") {}
    scene.stop();
}

#[test]
fn any_of_several_servers_will_do_also_while_somebody_looks_on() {
    let dir = tempfile::tempdir().unwrap();
    sample_project(dir.path());
    // Two that know each another deploy, so that it shows which of them answers.
    let data = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [second, first] = [1, 0].map(|at| Control::start(data[at].path()));
    deploy(dir.path(), &first.url);
    (0..2).for_each(|_| deploy(dir.path(), &second.url));

    let nobody = "http://127.0.0.1:1";
    let all = format!("{nobody}, {}, {}", first.url, second.url);
    let epoch =
        || run(dir.path(), &all, &["status", "--output", "json"]).json()[0]["deploy"]["epoch"].clone();
    assert_eq!(epoch(), 1, "the first one that is there");
    for arguments in
        [&["push"][..], &["releases"], &["members"], &["deploy", "--detach", "--again"], &["halt", "-m", "x"]]
    {
        let ran = run(dir.path(), &format!("{nobody},{}", second.url), arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    }

    let mut child = baton(dir.path(), &all, &["status", "--watch"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("epoch 1")));
    drop(first);
    let of_the_other = format!("epoch {}", epoch());
    assert!(lines.any(|line| line.contains(&of_the_other)), "{of_the_other}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!said.contains("lost the connection"), "nobody was missed: {said}");

    drop(second);
    let ran = run(dir.path(), &all, &["status"]);
    assert_eq!(ran.code, 7);
    assert!(ran.stderr.contains(&format!("unreachable at {all}: ")), "{}", ran.stderr);
}
