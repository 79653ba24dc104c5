//! Somebody who has seen enough of what goes on until Ctrl-C: `baton events -f | head -1`.

use std::io::{BufRead, BufReader};

use crate::control::Control;
use crate::program::{baton, run};
use crate::story::sample_project;
use crate::wait::wait_for;

#[test]
fn a_reader_that_leaves_ends_the_command_although_nothing_happens() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample_project(dir.path());
    let control = Control::start(data.path());
    let deployed = run(dir.path(), &control.url, &["deploy", "--detach"]);
    assert_eq!(deployed.code, 0, "{deployed:?}");
    for arguments in [["events", "-f"], ["status", "-w"]] {
        let mut child = baton(dir.path(), &control.url, &arguments).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        assert_ne!(stdout.read_line(&mut String::new()).unwrap(), 0);
        drop(stdout);
        let ended = wait_for("the end of the command", || child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(0), "{arguments:?}");
    }
}
