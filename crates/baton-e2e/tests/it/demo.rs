//! `baton demo`, as people run it.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::boot::{Folder, binary};
use crate::wait::wait_for;

fn start(folder: &Folder) -> Child {
    let output = std::fs::File::create(folder.path().join("output")).unwrap();
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    Command::new(binary("baton"))
        .arg("demo")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap()
}

/// No file is left, and no process that was given the demo's folder.
pub fn assert_nothing_left(folder: &Folder) {
    let temporary = folder.path().join("tmp");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    let given = |pid: i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let state = baton_sys::process::started_with(pid, "BATON_STATE_DIR").unwrap_or_default();
        let folder = temporary.to_str().unwrap();
        state.contains(folder) || String::from_utf8_lossy(&arguments).contains(folder)
    };
    let left: Vec<i32> = baton_sys::process::all()
        .unwrap()
        .into_iter()
        .map(|process| process.pid)
        .filter(|pid| given(*pid))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_demo_ends_well_and_leaves_nothing_behind() {
    let folder = Folder::empty();
    let mut demo = start(&folder);
    // Together they may take longer than anything may alone.
    for step in ["deploy 2:", "deploy 3:", "deploy 4:", "roll back", "kill a program", "deploy 5:"] {
        wait_for(step, || {
            let ended = demo.try_wait().unwrap().is_some();
            (ended || folder.read("output").lines().any(|line| line.starts_with(step))).then_some(())
        });
    }
    let status = wait_for("the demo to end", || demo.try_wait().unwrap());
    let output = folder.read("output");
    assert!(status.success(), "{output}");
    assert!(!output.contains("LOST"), "{output}");
    assert_eq!(output.matches("taken back by baton").count(), 2, "{output}");
    assert_nothing_left(&folder);
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let folder = Folder::empty();
    let mut demo = start(&folder);
    wait_for("the members", || folder.read("output").contains("8 members at").then_some(()));
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    let status = wait_for("the demo to end", || demo.try_wait().unwrap());
    assert_eq!(status.code(), Some(130), "{}", folder.read("output"));
    assert_nothing_left(&folder);
}
