//! Programs that use up what they share with the one that serves: memory, descriptors, the processor.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use baton_sys::priority;
use rustix::process::Signal;

use super::{example, generation};
use crate::boot::{Boot, Folder, binary};
use crate::cgroup::Group;
use crate::fleet::Fleet;
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::wait::wait_for;

/// Takes 8 MiB more again and again.
const EATS: &str = "import time; eaten = [bytearray(8 << 20) for _ in range(60) if time.sleep(0.02) is None]";

fn start_in(group: &Group, folder: &Folder, arguments: &[&str]) -> Boot {
    Boot::start_under(&group.joined().each_ref().map(String::as_str), folder, arguments)
}

#[test]
fn f18_a_program_that_the_kernel_killed_for_memory_is_told_apart() {
    let account = Group::of_memory(64 << 20);
    let folder = Folder::empty();
    let boot = start_in(&account, &folder, &["--", "python3", "-c", EATS]);
    assert_eq!(boot.exit().code(), Some(137));
    let log = folder.read("log");
    assert!(
        log.contains("memory ran out, limit 64 MiB: the kernel killed a process; used in the last"),
        "{log}"
    );
    assert_eq!(log.matches("memory ran out").count(), 1, "{log}");
    assert!(log.contains("killed by the kernel for memory after "), "{log}");
    assert!(log.contains(" of 64 MiB"), "{log}");
}

/// Of two programs in one account, the kernel takes the one on trial.
#[test]
fn f84_a_candidate_that_eats_the_memory_is_refused_for_it_and_the_old_one_serves() {
    let account = Group::of_memory(128 << 20);
    let (folder, address) = example("30s");
    let boot = start_in(&account, &folder, &[]);
    boot.wait_for(" serves, ", 1);
    let load = Load::start(plan(address));
    folder.write(
        "eats.py",
        &format!(
            "import threading, server\ndef eat():\n    {EATS}\n\
        threading.Timer(0.5, eat).start()\nserver.main()\n"
        ),
    );
    folder.change("baton.toml", "server.py", "eats.py");
    // It serves when it is killed: what it had in flight dies with it.
    load.say(&format!("window {address} begin"));
    boot.signal(Signal::HUP);
    boot.wait_for("(image) refused: killed by the kernel for memory after ", 1);
    load.say(&format!("window {address} end"));
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    assert_eq!(generation(address), "1");
    assert!(boot.stop().success());
}

#[test]
fn f84_a_candidate_that_there_is_no_memory_for_is_refused_without_a_start() {
    let account = Group::of_memory(128 << 20);
    let (folder, address) = example("50ms");
    let boot = start_in(&account, &folder, &[]);
    boot.wait_for(" is proven", 1);
    folder.change("baton.toml", "[run]", "[run]\nmemory.needs = \"127MiB\"");
    let load = Load::start(plan(address));
    boot.signal(Signal::HUP);
    boot.wait_for("(image) refused: it needs 127 MiB (run.memory.needs), and ", 1);
    boot.wait_for(" of the 128 MiB that this member may use are in use", 1);
    assert_eq!(
        boot.status()["trial"]["cause"],
        "there is no memory for two generations",
        "{}",
        boot.status()
    );
    folder.change("baton.toml", "127MiB", "40MiB");
    boot.signal(Signal::HUP);
    boot.wait_for("(image) is proven", 2);
    assert_nothing_lost(&load.stop());
    // The number of the one that was refused is not given again.
    assert_eq!(generation(address), "3");
    assert!(!boot.log().contains("generation 2 (image) launched"), "{}", boot.log());
    assert!(boot.stop().success());
}

#[test]
fn f84_a_reload_is_refused_where_there_is_no_room_for_another_one_like_what_serves() {
    let account = Group::of_memory(128 << 20);
    let (folder, address) = example("50ms");
    folder.write("takes.py", TAKES);
    folder.change("baton.toml", "server.py", "takes.py");
    let boot = start_in(&account, &folder, &[]);
    boot.wait_for(" is proven", 1);
    // What it takes is looked at once a second.
    wait_for("its memory to be known", || {
        boot.status()["generations"][0]["uses"]["memory_bytes"].as_u64().filter(|bytes| *bytes > 60 << 20)
    });
    boot.signal(Signal::HUP);
    boot.wait_for("(image) refused: what serves used up to ", 1);
    assert_eq!(generation(address), "1");
    folder.change("baton.toml", "[run]", "[run]\nmemory.needs = \"20MiB\"");
    folder.change("baton.toml", "takes.py", "server.py");
    boot.signal(Signal::HUP);
    boot.wait_for("(image) is proven", 2);
    assert!(boot.stop().success());
}

/// Serves with so much memory, in MiB.
const TAKES: &str = "import server\ntaken = bytearray(60 << 20)\nserver.main()\n";

#[test]
fn f84_what_a_release_used_here_before_is_held_against_what_there_is() {
    let account = Group::of_memory(160 << 20);
    let (place, folder) = (Folder::empty(), Folder::with_example("python"));
    let boot = account.joined_by(place.path(), &binary("baton-boot"));
    let fleet = Fleet::start_by(&boot, "web");
    let quick = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "2s"];
    assert_eq!(fleet.deploy(&folder, &quick), Some(0));
    let small = fleet.release();
    folder.write("takes.py", TAKES);
    folder.change("baton.toml", "server.py", "takes.py");
    assert_eq!(fleet.deploy(&folder, &quick), Some(0));
    let large = fleet.release();
    assert!(fleet.baton_in(folder.path(), &[&["deploy", &small], &quick[..]].concat()).status.success());
    // As large as it was, it does not fit in any more.
    wait_for("its memory to be free", || {
        (account.memory() < 60 << 20).then(|| account.limit_memory(64 << 20))
    });
    let refused = fleet.baton_in(folder.path(), &[&["deploy", &large], &quick[..]].concat());
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let told = fleet.json(&["events", "--service", "web"]).to_string();
    assert!(told.contains("it used up to ") && told.contains(" here until it was proven, and "), "{told}");
    assert_eq!(fleet.answers(0), Some(small));
}

#[test]
fn f45_a_disk_that_syncs_slowly_makes_a_deploy_slower_and_nothing_else() {
    let (place, folder) = (Folder::empty(), Folder::with_example("python"));
    let syncs = "fsync,fdatasync,syncfs,sync_file_range";
    let slow = format!("-e trace={syncs} -e inject={syncs}:delay_enter=1s");
    let boot = binary("baton-boot").display().to_string();
    place.write("boot", &format!("#!/bin/sh\nexec strace -D -f -q -o /dev/null {slow} {boot} \"$@\"\n"));
    let boot = place.path().join("boot");
    fs::set_permissions(&boot, Permissions::from_mode(0o755)).unwrap();
    let fleet = Fleet::start_by(&boot, "web");
    let quick = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "100ms"];
    assert_eq!(fleet.deploy(&folder, &quick), Some(0));
    let load = Load::start(plan(fleet.addresses[0]));
    folder.write("new", "what the release before did not have");
    assert_eq!(fleet.deploy(&folder, &quick), Some(0));
    assert_nothing_lost(&load.stop());
    assert_eq!(fleet.answers(0), Some(fleet.release()));
    let log = fleet.log("web-0");
    assert_eq!(log.matches(" launched").count(), 2, "{log}");
    // Of each release several things are synced.
    let took = log.lines().filter_map(|line| line.split_once(" is on disk after ")?.1.split(' ').next());
    let took: Vec<u64> = took.map(|millis| millis.parse().unwrap()).collect();
    assert!(took.len() == 2 && took.iter().all(|millis| *millis > 1000), "{took:?}");
}

/// Takes most of what there is at once, and then a little more again and again.
const EATS_SLOWLY: &str = "import time; eaten = [bytearray(230 << 20)] + [bytearray(1 << 20) for _ in range(99) \
                           if time.sleep(0.1) is None]";

#[test]
fn what_is_kept_warm_is_stopped_before_memory_runs_out() {
    let account = Group::of_memory(300 << 20);
    let (folder, address) = example("100ms");
    folder.change("baton.toml", "drain   =", "keep_warm = \"10m\"\ndrain   =");
    let boot = start_in(&account, &folder, &[]);
    boot.wait_for(" is proven", 1);
    boot.signal(Signal::HUP);
    boot.wait_for("generation 1 stands by for 10 min more", 1);
    let [sh, flag, join, group] = account.joined();
    let mut eater = std::process::Command::new(sh);
    eater.args([flag, join, group]).args(["python3", "-c", EATS_SLOWLY]);
    let mut eater = eater.spawn().unwrap();
    boot.wait_for("generation 1, which stood by, is stopped: memory is running out", 1);
    eater.kill().unwrap();
    eater.wait().unwrap();
    boot.wait_for("generation 1 is gone", 1);
    assert_eq!(generation(address), "2");
    assert!(boot.stop().success());
}

/// Keeps every connection that it was ever given.
const LEAKS: &str = r#"
import os, socket
listener = socket.socket(fileno=3)
kept = []
while True:
    try:
        client = listener.accept()[0]
        kept.append(client)
        client.recv(1000)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # whoever asked has heard enough; or there is no descriptor left
"#;

#[test]
fn f17_a_program_that_leaks_descriptors_is_found_by_its_probes_and_replaced() {
    let (folder, address) = example("0s");
    folder.write("leaks.py", LEAKS);
    folder.change("baton.toml", "server.py", "leaks.py");
    folder.change("baton.toml", "[run]", "[run]\nnofile = 24");
    folder.change("baton.toml", "interval        = \"1s\"", "interval = \"50ms\"\nfailures = 2");
    folder.hangs_after("1s");
    folder.change("baton.toml", "drain   = \"10s\"", "drain = \"500ms\"");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for("generation 1 failed (failed its probes", 1);
    boot.wait_for("generation 2 (image) serves", 1);
    boot.wait_for("generation 1 is gone", 1);
    assert!(std::net::TcpStream::connect(address).is_ok());
    boot.stop();
}

#[test]
fn f20_with_a_hundredth_of_a_processor_nothing_is_taken_for_dead() {
    let cpu = Group::of_processors();
    let (folder, address) = example("1s");
    folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"60s\"");
    let boot = start_in(&cpu, &folder, &[]);
    boot.wait_for(" is proven", 1);
    cpu.limit_processors(Some(1000));
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 (image) is proven", 1);
    assert_eq!(generation(address), "2");
    assert!(!boot.log().contains("failed"), "{}", boot.log());
    cpu.limit_processors(None);
    assert!(boot.stop().success());
}

#[test]
fn f85_a_candidate_that_takes_all_the_processors_leaves_the_old_one_serving() {
    let (folder, boot, address) = super::serving("30s");
    folder.write("burns.sh", "for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done\nwait\n");
    folder.change("baton.toml", "[\"python3\", \"server.py\"]", "[\"sh\", \"burns.sh\"]");
    folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"1s\"");
    folder.change("baton.toml", "drain   = \"10s\"", "drain = \"500ms\"");
    let load = Load::start(plan(address));
    boot.signal(Signal::HUP);
    boot.wait_for("(image) refused: not healthy within 1 s", 1);
    assert_nothing_lost(&load.stop());
    assert_eq!(generation(address), "1");
    assert!(boot.stop().success());
}

/// Waits to be let go on, and serves then.
const WAITS: &str = "while ! test -e go; do sleep 0.02; done; exec python3 server.py\n";

/// Whoever may not raise a priority again lowers none.
#[test]
fn f85_a_candidate_stands_back_behind_what_serves_until_it_serves() {
    let (folder, address) = example("30s");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let main = |generation: usize| {
        let pid = boot.status()["generations"][generation]["pid"].as_i64()?;
        rustix::process::Pid::from_raw(i32::try_from(pid).unwrap())
    };
    let nice = |pid| rustix::process::getpriority_process(Some(pid)).unwrap();
    let own = priority::own();
    assert_eq!(nice(main(0).unwrap()), own, "there is nobody to stand back behind");
    folder.write("waits.sh", WAITS);
    folder.change("baton.toml", "[\"python3\", \"server.py\"]", "[\"sh\", \"waits.sh\"]");
    boot.signal(Signal::HUP);
    let candidate = wait_for("the candidate", || main(1));
    assert_eq!(nice(candidate), if priority::may_raise() { own + 5 } else { own });
    folder.write("go", "");
    boot.wait_for("generation 2 (image) serves", 1);
    assert_eq!(generation(address), "2");
    assert_eq!((main(1), nice(candidate)), (Some(candidate), own));
    assert!(boot.stop().success());
}
