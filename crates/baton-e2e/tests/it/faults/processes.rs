//! What can happen to processes: signals at bad moments, processes that stand still, and ends.

use baton_sys::process::all;
use rustix::process::{Pid, Signal, kill_process};

use super::{example, generation, is_gone, pid, process, serving};
use crate::boot::{Boot, Folder};
use crate::cgroup::Frozen;
use crate::fleet::Fleet;
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::program::Client;
use crate::wait::{wait_for, wait_or_tell};

/// The bootloader as PID 1 of a namespace: killed from outside, nothing of it is left, and another one starts.
#[test]
fn f3_a_killed_pid_1_takes_everything_along_and_starts_again() {
    let (folder, address) = example("50ms");
    let mut before = vec!["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !rustix::process::geteuid().is_root() {
        before.extend(["--user", "--map-root-user"]);
    }
    for _ in 0..2 {
        let boot = Boot::start_under(&before, &folder, &[]);
        boot.wait_for(" serves, ", 1);
        let children = |parent: i32| all().unwrap().into_iter().filter(move |child| child.parent == parent);
        let init = children(boot.pid()).next().unwrap().pid;
        let program = Pid::from_raw(children(init).next().unwrap().pid).unwrap();
        kill_process(Pid::from_raw(init).unwrap(), Signal::KILL).unwrap();
        assert!(!boot.exit().success());
        wait_for("the program to be gone", || is_gone(program).then_some(()));
        assert!(Client::connect(address).is_none());
    }
}

/// In a container as above, which keeps nothing but its state folder.
#[test]
fn f19_a_start_tells_once_of_a_run_that_was_cut_off_and_never_of_one_that_was_stopped() {
    let folder = Folder::empty();
    folder.write("baton.toml", "service = \"x\"\n[run]\ncommand = [\"sleep\", \"1000\"]\n");
    let mut before = vec!["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !rustix::process::geteuid().is_root() {
        before.extend(["--user", "--map-root-user"]);
    }
    let boot = Boot::start_under(&before, &folder, &[]);
    boot.wait_for(" serves, ", 1);
    let note = || folder.read("state/scratch/1/running");
    wait_for("a note of what runs", || note().contains("generation 1 (image) serving").then_some(()));
    let init = all().unwrap().into_iter().find(|child| child.parent == boot.pid()).unwrap().pid;
    kill_process(Pid::from_raw(init).unwrap(), Signal::KILL).unwrap();
    assert!(!boot.exit().success());
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for("the run before this one was cut off, not long after 20", 1);
    boot.wait_for(": it ran generation 1 (image) serving", 1);
    boot.wait_for(" serves, ", 1);
    assert_eq!(boot.status()["cut_off"]["ran"], "generation 1 (image) serving", "{}", boot.status());
    boot.stop();
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    assert!(!boot.log().contains("cut off"), "{}", boot.log());
    assert!(boot.status()["cut_off"].is_null(), "{}", boot.status());
    boot.stop();
}

/// The signal comes while the child has been forked and has not become the program yet: that takes a while here.
#[test]
fn f4_a_stop_between_fork_and_exec_is_not_lost() {
    let folder = Folder::empty();
    let slow = ["-e", "trace=execve", "-e", "inject=execve:delay_enter=400ms"];
    let before = [&["strace", "-D", "-f", "-q", "-o", "trace"][..], &slow].concat();
    let boot = Boot::start_under(&before, &folder, &["--", "sleep", "60"]);
    // Before, it is strace.
    let status = || std::fs::read_to_string(format!("/proc/{}/status", boot.pid())).unwrap_or_default();
    wait_for("blocked signals", || {
        let blocked = status().lines().find(|line| line.starts_with("SigBlk"))?.to_owned();
        (!blocked.ends_with("0000000000000000")).then_some(())
    });
    let child = wait_for("the fork", || all().unwrap().into_iter().find(|child| child.parent == boot.pid()));
    let still = std::fs::read_to_string(format!("/proc/{}/comm", child.pid)).unwrap_or_default();
    assert_ne!(still, "sleep\n", "the program runs already");
    let code = boot.stop().code();
    assert!(matches!(code, Some(0 | 143)), "{code:?}");
    assert!(is_gone(Pid::from_raw(child.pid).unwrap()));
}

#[test]
fn f5_a_stop_during_a_trial_a_bake_a_drain_and_a_way_back_is_clean() {
    let (folder, boot, _) = serving("30s");
    folder.write("behaviour", "never-healthy\n");
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 (image) launched", 1);
    assert!(boot.stop().success(), "during a trial");

    let (_folder, boot, _) = serving("30s");
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 (image) serves", 1);
    assert!(boot.stop().success(), "during a bake");

    let (_folder, boot, address) = serving("50ms");
    let mut held = Client::connect(address).unwrap();
    held.send("/slow?ms=1500");
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 (image) is proven", 1);
    assert!(boot.stop().success(), "during a drain");
    assert_eq!(held.answer().unwrap().generation(), "1");

    let (folder, boot, _) = serving("30s");
    folder.write("behaviour", "crash-after=0.2\n");
    boot.signal(Signal::HUP);
    boot.wait_for("handed back from generation 2 to 1", 1);
    assert!(boot.stop().success(), "on the way back");
}

/// The main process ends with 0 and leaves the server behind, as daemons do.
#[test]
fn f9_a_program_that_makes_itself_a_daemon_is_refused_and_ended() {
    let (folder, boot, address) = serving("50ms");
    let daemonise =
        "setsid sh -c 'echo $$ >> daemons; exec python3 server.py' & while [ ! -s daemons ]; do :; done";
    folder.write("daemonise", daemonise);
    folder.change("baton.toml", "[\"python3\", \"server.py\"]", "[\"sh\", \"daemonise\"]");
    boot.signal(Signal::HUP);
    boot.wait_for("left processes behind: a program that makes itself a daemon must be told to stay", 1);
    boot.wait_for("refused: exit 0 after ", 1);
    assert_eq!(generation(address), "1");
    wait_for("the daemons to be gone", || {
        folder.read("daemons").lines().all(|one| is_gone(pid(one))).then_some(())
    });
    assert!(boot.stop().success());
}

#[test]
fn f11_a_stopped_program_fails_its_probes_and_does_not_hold_up_a_stop() {
    let (folder, address) = example("50ms");
    folder.change("baton.toml", "interval        = \"1s\"", "interval = \"200ms\"");
    folder.hangs_after("2s");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    kill_process(process(address), Signal::STOP).unwrap();
    boot.wait_for("generation 1 failed (failed its probes", 1);
    boot.wait_for("generation 2 (image) serves", 1);
    assert_eq!(generation(address), "2");
    boot.wait_for("generation 1 is gone", 1);
    kill_process(process(address), Signal::STOP).unwrap();
    assert!(boot.stop().success());
}

/// A frozen process takes no signal, not even KILL: as one that waits in the kernel for a disk that is gone.
#[test]
fn f12_a_stop_ends_although_a_process_cannot_be_killed() {
    let folder = Folder::empty();
    folder
        .write("baton.toml", "service = \"x\"\n[run]\ncommand = [\"sleep\", \"1000\"]\ndrain = \"300ms\"\n");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let program = all().unwrap().into_iter().find(|child| child.parent == boot.pid()).unwrap().pid;
    let frozen = Frozen::freeze(program);
    assert_eq!(boot.stop().code(), Some(137));
    let program = Pid::from_raw(program).unwrap();
    let alive = !is_gone(program);
    frozen.thaw();
    wait_for("the program to end", || is_gone(program).then_some(()));
    assert!(alive, "it could be killed after all");
}

/// Every system call that waits for something takes 2 ms longer, in the bootloader and in its program.
#[test]
fn f24_slow_system_calls_lose_nothing() {
    let (folder, address) = example("50ms");
    let slow = "inject=epoll_wait,accept4,connect,recvfrom,recvmsg,sendto,sendmsg,read,write,setsockopt:delay_exit=2ms";
    let boot = Boot::start_under(&["strace", "-D", "-f", "-q", "-o", "/dev/null", "-e", slow], &folder, &[]);
    boot.wait_for(" serves, ", 1);
    let load = Load::start(plan(address));
    for reload in 1..=3 {
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload + 1);
    }
    assert_nothing_lost(&load.stop());
    assert!(boot.stop().success());
}

#[test]
fn f41_a_member_that_dies_under_load_costs_no_other_member_anything_and_comes_back_as_it_was() {
    let folder = Folder::with_example("python");
    let mut fleet = Fleet::start("web", 3);
    let quick = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "100ms"];
    assert_eq!(fleet.deploy(&folder, &quick), Some(0));
    let release = fleet.release();
    let others: Vec<Load> = fleet.addresses[1..].iter().map(|address| Load::start(plan(*address))).collect();
    fleet.replace_member(0);
    let serves = || format!("the member to serve again: {}", fleet.log("web-0"));
    wait_or_tell(serves, || (fleet.answers(0)? == release).then_some(()));
    others.into_iter().for_each(|load| assert_nothing_lost(&load.stop()));
}

/// Ends when it is told to, and leaves one behind that makes orphans for three minutes, each of which ends at once.
const FLOOD: &str = r#"
import os, signal, time
while not os.path.exists("go"):
    time.sleep(0.01)
if os.fork() > 0:
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.alarm(180)
while True:
    if os.fork() == 0:
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                time.sleep(0.001)
        os._exit(0)
    time.sleep(0.002)
"#;

/// With each orphan the bootloader learns that the last process may have gone; to look whether it has takes a while here.
#[test]
fn f7_a_flood_of_orphans_does_not_outlive_the_limit_of_a_stop() {
    let folder = Folder::empty();
    folder.write("flood.py", FLOOD);
    let run = "command = [\"python3\", \"flood.py\"]\non_exit = \"exit\"\ndrain = \"500ms\"";
    folder.write("baton.toml", &format!("service = \"flood\"\n[run]\n{run}\n"));
    let slow = ["-e", "trace=getdents64", "-e", "inject=getdents64:delay_enter=50ms"];
    // Nothing else is stopped for `strace` to look at.
    let before = [&["strace", "-D", "-f", "--seccomp-bpf", "-q", "-o", "/dev/null"][..], &slow].concat();
    let boot = Boot::start_under(&before, &folder, &[]);
    boot.wait_for(" serves, ", 1);
    folder.write("go", "");
    assert_eq!(boot.exit().code(), Some(0));
}
