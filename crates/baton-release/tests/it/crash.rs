//! A member that is killed, whose disk fails, or that loses its power, at every system call by which it changes the disk.
//!
//! The test program starts itself again under `strace`, which kills it at the n-th call or makes that call fail, and each
//! such point is a scene of its own. `make crash-points` tries all of them; without it one in [`STRIDE`] is tried.

mod power;
mod scene;

use scene::{Checked, Course, FAILED_CLEANLY, Scene};

/// The calls that change the disk; on other architectures some have other names.
const CALLS: [&str; 10] = [
    "?mkdir,mkdirat",
    "openat2,symlinkat",
    "openat",
    "write,pwrite64",
    "fchmod,?chmod",
    SYNC,
    "?rename,renameat,?renameat2",
    "?unlink,unlinkat,?rmdir",
    "ftruncate",
    // By which blocks are shared.
    "ioctl",
];

/// Those that make durable.
const SYNC: &str = "fsync,syncfs";

/// What a disk says when it fails.
const ERRORS: [&str; 5] = ["EIO", "ENOSPC", "EDQUOT", "EROFS", INTERRUPTED];

/// What a call says that a signal came between: it may be made once more.
const INTERRUPTED: &str = "EINTR";

/// Of so many points one is tried, where nothing else is asked for.
const STRIDE: usize = 30;

/// Of how many points one is to be tried.
fn stride() -> usize {
    let asked = std::env::var("BATON_CRASH_STRIDE").ok().and_then(|text| text.parse().ok());
    asked.filter(|stride| *stride > 0).unwrap_or(STRIDE)
}

/// How many points there must have been: so many, and all together no fewer than are promised.
fn least(few: usize) -> usize {
    if stride() == 1 { 300 } else { few }
}

/// Tries the points of each course by `point`, which is told the calls and which of them, and says whether there was one
/// left. Returns how many were tried.
fn each_point(mut point: impl FnMut(Course, &str, usize) -> bool) -> usize {
    let stride = stride();
    let mut tried = 0;
    for course in Course::ALL {
        for (index, calls) in CALLS.iter().enumerate() {
            // Not always at the same ones.
            let mut n = 1 + index % stride;
            while point(course, calls, n) {
                tried += 1;
                n += stride;
            }
        }
    }
    tried
}

#[test]
fn f40_killed_at_any_call_a_member_has_the_old_releases_or_the_new_one_too() {
    let (mut before, mut after, mut goes_on) = (0, 0, 0);
    let tried = each_point(|course, calls, n| {
        let scene = Scene::new(course);
        let (ended, hit) = scene.run(calls, "signal=KILL", n);
        assert!(hit || ended.success(), "{course:?} {calls} {n}: {ended:?}");
        let Checked { arrived, resumed } = scene.check();
        match arrived {
            true => after += 1,
            false => before += 1,
        }
        goes_on += usize::from(resumed);
        hit
    });
    println!("killed at {tried} points; from {goes_on} of them the fetch went on with what had come");
    assert!(goes_on > 0);
    assert!(
        before > 0 && after > 0 && tried >= least(10),
        "{tried} points, {before} before the release was there"
    );
}

#[test]
fn f38_a_disk_that_fails_at_any_call_is_a_reason_and_leaves_nothing_half_done() {
    let mut tried = 0;
    for error in ERRORS {
        tried += each_point(|course, calls, n| {
            let scene = Scene::new(course);
            let (ended, hit) = scene.run(calls, &format!("error={error}"), n);
            let what = format!("{course:?} {calls} {n} {error}: {ended:?}");
            // What is only left behind, and removed later, is no reason to fail; what is not durable is.
            match (hit, ended.code()) {
                (true, Some(FAILED_CLEANLY)) => {}
                (false, Some(0)) => assert!(scene.is_done(), "{what}"),
                (true, Some(0)) => {
                    assert!(calls != SYNC || error == INTERRUPTED, "{what}");
                    assert!(scene.is_done(), "{what}: it says that it is done");
                }
                _ => panic!("{what}"),
            }
            scene.check();
            hit
        });
    }
    println!("failed at {tried} points");
    assert!(tried >= least(30), "{tried}");
}
