//! What generations take up, watched.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::boot::{Boot, Folder};
use crate::wait::wait_for;

/// The part of the status that is about the generation that serves.
fn serving(status: &Value) -> Option<Value> {
    status["generations"].as_array()?.iter().find(|one| one["state"] == "serving").cloned()
}

#[test]
fn what_a_tree_takes_up_is_seen_and_restarts_are_counted() {
    let folder = Folder::empty();
    folder.write(
        "greedy.py",
        "import os\nfiles = [open('/dev/null') for _ in range(300)]\nmemory = b'x' * (64 << 20)\n\
         os.fork()\nwhile True:\n    pass\n",
    );
    folder.write("baton.toml", "service = \"greedy\"\nrun.command = [\"python3\", \"greedy.py\"]\n");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let found = wait_for("two looks at a tree that has grown", || {
        let uses = serving(&boot.status())?["uses"].clone();
        (uses["processes"] == 2 && uses["cpu_percent"].as_u64()? > 0).then_some(uses)
    });
    // A child's descriptors are its own; what it shares of the memory is counted once.
    assert!(found["descriptors"].as_u64().unwrap() >= 600, "{found}");
    let memory = found["memory_bytes"].as_u64().unwrap();
    assert!((64 << 20..128 << 20).contains(&memory), "{found}");
    assert!(found["memory_peak_bytes"].as_u64().unwrap() >= memory, "{found}");
    assert!(found["cpu_ms"].as_u64().unwrap() > 0, "{found}");

    let status = boot.status();
    assert_eq!(status["restarts"], 0);
    assert_eq!(status["itself"]["processes"], 1);
    assert!((1 << 19..64 << 20).contains(&status["itself"]["memory_bytes"].as_u64().unwrap()), "{status}");
    let pid = serving(&status).unwrap()["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    boot.wait_for("generation 2 (image) serves, ", 1);
    assert_eq!(boot.status()["restarts"], 1);
    boot.stop();
}
