//! Build steps: run once, and brought from the store everywhere else.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::control::Control;
use crate::program::{Ran, baton};
use crate::wait::wait_for;

/// A server, and machines that share nothing but it.
struct Place {
    home: tempfile::TempDir,
    control: Control,
}

/// What makes `out/made` of `in`, and leaves a line where the test sees it.
const MAKE: &str = "mkdir -p out/sub && cp in out/made && ln -s made out/link && echo run >>$RUNS";

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { control: Control::start(&home.path().join("data")), home }
    }

    /// An empty working copy with a cache of its own.
    fn machine(&self, name: &str, script: &str) -> PathBuf {
        let dir = self.home.path().join(name).join("project");
        fs::create_dir_all(&dir).unwrap();
        let script = script.replace('"', "\\\"");
        let toml = format!(
            "service = \"web\"\nrun.command = [\"true\"]\n[[build]]\nname = \"make\"\ninputs = [\"in\", \"src\"]\n\
             run = [\"sh\", \"-c\", \"{script}\"]\noutputs = [\"out\"]\nenv = [\"MODE\"]\n"
        );
        fs::write(dir.join("baton.toml"), toml).unwrap();
        fs::write(dir.join(".gitignore"), "out\n").unwrap();
        fs::write(dir.join("in"), "one\n").unwrap();
        dir
    }

    fn command(&self, dir: &Path, arguments: &[&str]) -> std::process::Command {
        let mut command = baton(dir, &self.control.url, arguments);
        command.env("HOME", dir.parent().unwrap()).env("RUNS", self.home.path().join("runs"));
        command
    }

    fn run(&self, dir: &Path, arguments: &[&str]) -> Ran {
        self.command(dir, arguments).output().unwrap().into()
    }

    /// Builds; tells how, and why.
    fn build(&self, dir: &Path) -> (String, Vec<String>) {
        let ran = self.run(dir, &["build", "--output", "json"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        told(&ran)
    }

    /// How often the command has run.
    fn runs(&self) -> usize {
        fs::read_to_string(self.home.path().join("runs")).map_or(0, |text| text.lines().count())
    }
}

fn told(ran: &Ran) -> (String, Vec<String>) {
    let built = ran.json()[0].clone();
    let why = built["why"].as_array().unwrap().iter().map(|why| why.as_str().unwrap().to_owned());
    (built["how"].as_str().unwrap().to_owned(), why.collect())
}

#[test]
fn a_step_runs_once_for_everybody_and_again_when_something_counts() {
    let place = Place::new();
    let one = place.machine("one", MAKE);
    assert_eq!(place.build(&one).0, "ran");
    assert_eq!(place.build(&one), ("unchanged".to_owned(), vec![]));

    let other = place.machine("other", MAKE);
    assert_eq!(place.build(&other).0, "restored");
    assert_eq!(fs::read_to_string(other.join("out/link")).unwrap(), "one\n");
    assert!(other.join("out/sub").is_dir() && !other.join(".baton-build").exists());
    assert_eq!(place.runs(), 1);

    fs::write(one.join("out/made"), "spoiled").unwrap();
    assert_eq!(place.build(&one), ("restored".to_owned(), vec!["what it made was altered".to_owned()]));
    fs::create_dir(one.join("src")).unwrap();
    fs::write(one.join("src/a b"), "").unwrap();
    assert_eq!(place.build(&one), ("ran".to_owned(), vec!["input src/a b is new".to_owned()]));
    fs::write(one.join("in"), "two\n").unwrap();
    let shown = place.run(&one, &["build", "--explain"]);
    assert!(
        shown.stdout.contains("make: made 1 file") && shown.stdout.contains("\n  input in has changed\n"),
        "{shown:?}"
    );
    let mode: Ran =
        place.command(&one, &["build", "--output", "json"]).env("MODE", "x").output().unwrap().into();
    assert_eq!(told(&mode), ("ran".to_owned(), vec!["env MODE has changed".to_owned()]));
    // What everything was like before is still known.
    fs::remove_dir_all(one.join("src")).unwrap();
    fs::write(one.join("in"), "one\n").unwrap();
    assert_eq!(place.build(&one).0, "restored");
    assert_eq!(place.runs(), 4);
}

#[test]
fn a_push_takes_the_steps_and_what_they_make_is_in_the_release_though_git_ignores_it() {
    let place = Place::new();
    let dir = place.machine("one", MAKE);
    let pushed = place.run(&dir, &["push", "--output", "json"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    assert_eq!(pushed.json()["files"], 4, "baton.toml, .gitignore, in, out/made");
    fs::remove_dir_all(dir.join("out")).unwrap();
    let without = place.run(&dir, &["push", "--no-build", "--output", "json"]);
    assert_eq!(without.json()["files"], 3);
    assert_eq!(place.runs(), 1);
}

#[test]
fn what_is_signed_is_made_by_who_signs() {
    let place = Place::new();
    place.build(&place.machine("one", MAKE));
    let other = place.machine("other", MAKE);
    assert_eq!(place.build(&other).0, "restored");
    let key = place.home.path().join("ada.key");
    let key = key.to_str().unwrap();
    let trusted = place.home.path().join("trusted");
    let made = ["key", "generate", "ada", "--private", key, "--trusted", trusted.to_str().unwrap()];
    assert_eq!(place.run(&other, &made).code, 0);
    for _ in 0..2 {
        let pushed = place.run(&other, &["push", "--key", key]);
        assert_eq!(pushed.code, 0, "{pushed:?}");
        assert_eq!(place.runs(), 2, "once on each machine");
    }
}

#[test]
fn a_step_that_fails_says_how_and_leaves_what_was_there() {
    let place = Place::new();
    let dir = place.machine("one", MAKE);
    place.build(&dir);
    for (script, said) in [
        ("mkdir out && echo half >out/made && echo seen && exit 3", "step make has failed: exit code 3"),
        ("kill -9 $$", "ended by signal 9"),
        ("true", "has not made out"),
    ] {
        place.machine("one", script);
        let ran = place.run(&dir, &["build", "--output", "json"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
        assert!(ran.stderr.contains(said) && ran.stderr.contains("build-failed"), "{ran:?}");
        assert_eq!(fs::read_to_string(dir.join("out/made")).unwrap(), "one\n");
        assert!(!dir.join(".baton-build").exists());
    }
}

#[test]
fn ctrl_c_ends_the_command_and_leaves_what_was_there() {
    let place = Place::new();
    let dir = place.machine("one", MAKE);
    place.build(&dir);
    let pid_file = place.home.path().join("pid");
    place.machine("one", &format!("mkdir out && echo $$ >{} && exec sleep 1000", pid_file.display()));
    let child = place.command(&dir, &["build"]).spawn().unwrap();
    let command = wait_for("the command", || fs::read_to_string(&pid_file).ok()?.trim().parse::<u32>().ok());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.code, 130, "{ran:?}");
    assert!(!Path::new(&format!("/proc/{command}")).exists());
    assert_eq!(fs::read_to_string(dir.join("out/made")).unwrap(), "one\n");
}

#[test]
fn a_build_that_was_killed_is_cleared_up_by_the_next_one_and_two_take_turns() {
    let place = Place::new();
    let dir = place.machine("one", MAKE);
    place.build(&dir);
    fs::create_dir_all(dir.join(".baton-build/before")).unwrap();
    fs::rename(dir.join("out"), dir.join(".baton-build/before/out")).unwrap();
    fs::create_dir(dir.join("out")).unwrap();
    assert_eq!(place.build(&dir), ("unchanged".to_owned(), vec![]));

    fs::write(dir.join("in"), "two\n").unwrap();
    let both = [0; 2].map(|_| place.command(&dir, &["build", "--output", "json"]).spawn().unwrap());
    let mut how = both.map(|child| told(&child.wait_with_output().unwrap().into()).0);
    how.sort();
    assert_eq!((how, place.runs()), (["ran".to_owned(), "unchanged".to_owned()], 2));
}

#[test]
fn without_control_a_step_runs_here() {
    let place = Place::new();
    let dir = place.machine("one", MAKE);
    let ran: Ran = place
        .command(&dir, &["build", "--server", "http://127.0.0.1:1", "--output", "json"])
        .output()
        .unwrap()
        .into();
    assert_eq!((ran.code, told(&ran).0.as_str()), (0, "ran"), "{ran:?}");
    assert_eq!(place.build(&dir).0, "unchanged");
}
