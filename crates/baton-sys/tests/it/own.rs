//! What a process does to itself: each in a process of its own, which is this test program with one part to play.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use baton_core::exit::Exit;
use baton_core::signal::Signal;
use baton_sys::{descriptors, process};
use rustix::process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getpid, getrlimit, setrlimit};

use crate::spawned::{output, started, wait};

/// Says which part is to be played.
const PART: &str = "BATON_SYS_PART";

/// Plays a part in a process of its own.
fn play(part: &str) {
    let program = std::env::current_exe().unwrap();
    let alone = ["--exact", "own::a_part_in_a_process_of_its_own", "--nocapture", "--test-threads", "1"];
    let played = Command::new(program).args(alone).env(PART, part).output().unwrap();
    assert!(played.status.success(), "{part}: {}", String::from_utf8_lossy(&played.stderr));
    assert!(String::from_utf8_lossy(&played.stdout).contains("1 passed"), "{played:?}");
}

/// What the other tests here let another process do; nothing, where none is to be played.
#[test]
fn a_part_in_a_process_of_its_own() {
    match std::env::var(PART).as_deref() {
        Ok("closed") => closed(),
        Ok("adopts") => adopts(),
        Ok("raises") => raises(),
        Ok("hit") => hit(),
        _ => {}
    }
}

#[test]
fn who_is_closed_to_others_cannot_be_looked_into() {
    play("closed");
}

fn closed() {
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
    process::close_to_others().unwrap();
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
}

#[test]
fn p18_orphans_come_to_who_has_asked_for_them() {
    play("adopts");
}

fn adopts() {
    assert!(!process::adopts_orphans());
    process::become_subreaper().unwrap();
    assert!(process::adopts_orphans());
    let left: i32 = output("sleep 60 > /dev/null 2>&1 & echo $!", 0).trim().parse().unwrap();
    let orphan = process::all().unwrap().into_iter().find(|one| one.pid == left).unwrap();
    assert_eq!(orphan.parent, getpid().as_raw_nonzero().get());
    process::signal_child(left, Signal::KILL).unwrap();
    assert_eq!(wait(left), Exit::Signal(Signal::KILL));
}

#[test]
fn f16_as_many_descriptors_as_there_may_be_are_ours_and_programs_have_what_we_were_given() {
    play("raises");
}

fn raises() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum: hard }).unwrap();
    assert_eq!(descriptors::most(), 100);
    for _ in 0..2 {
        descriptors::raise().unwrap();
        assert_eq!(descriptors::most(), hard.unwrap_or(u64::MAX));
        assert_eq!(output("ulimit -n", 0), "100\n");
    }
}

/// Who is hit by signals while it starts programs, and whether one of those was before it had become another program.
static STARTS: AtomicI32 = AtomicI32::new(0);
static STRAYED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: i32) {
    // SAFETY: a system call without arguments.
    if unsafe { libc::getpid() } != STARTS.load(Ordering::Relaxed) {
        STRAYED.store(true, Ordering::Relaxed);
    }
}

/// A child shares our memory until it has become another program: a handler of ours that ran in it would do to us whatever it
/// does, in the name of another process.
#[test]
fn no_handler_of_ours_runs_in_a_child_that_starts() {
    play("hit");
}

fn hit() {
    // Nobody else is to be hit.
    rustix::process::setpgid(None, None).unwrap();
    STARTS.store(getpid().as_raw_nonzero().get(), Ordering::Relaxed);
    // SAFETY: the action is zero but for what is set, and the handler makes one system call and stores to an atomic.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // SAFETY: to all of our own process group.
                unsafe { libc::kill(0, libc::SIGUSR1) };
            }
        });
        for _ in 0..200 {
            // It is hit as well, and dies of it once it has let go of what we do at a signal.
            let exit = wait(started("exit 0"));
            assert!(matches!(exit, Exit::Code(0) | Exit::Signal(Signal::USR1)), "{exit:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(!STRAYED.load(Ordering::Relaxed));
}
