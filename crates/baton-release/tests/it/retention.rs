//! What stays on a member's disk, and what goes.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use baton_core::ids::{Epoch, ReleaseId};
use baton_release::fetch::{Fetched, Way, fetch};
use baton_release::releases::{Keep, ReleasesDir};
use baton_release::store::interrupted::Interrupted;
use baton_release::store::memory::MemoryStore;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::sample::{left, nodes, open, push_nodes};

/// Longer than anything here takes that does not wait for what it must not wait for.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn p28_what_is_held_and_the_last_proven_releases_stay_and_the_rest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, releases) = (MemoryStore::new(), open(dir.path()));
    let ids: Vec<ReleaseId> = (1..=8).map(|seed| push_nodes(&nodes(seed), &store).id).collect();
    for id in &ids {
        fetch(*id, &store, &releases, &|_| {}).unwrap();
    }
    for (index, epoch) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)] {
        releases.commit(ids[index], Epoch(epoch)).unwrap();
    }
    assert_eq!(releases.proven(ids[3]), Some(Epoch(4)));
    assert_eq!(releases.upkeep().unwrap().gone, [], "nobody has said what runs");

    let held = BTreeSet::from([ids[0], ids[5]]);
    releases.keep(Keep { held: held.clone(), proven: 2 });
    let done = releases.upkeep().unwrap();
    let gone: BTreeSet<ReleaseId> = done.gone.iter().copied().collect();
    // Held: the first and the sixth. Committed: the fifth. Proven last: the third and fourth.
    assert_eq!(gone, BTreeSet::from([ids[1], ids[6], ids[7]]));
    assert_eq!(done.gone.last(), Some(&ids[1]), "what was never proven goes first");
    let stays: BTreeSet<String> = [0, 2, 3, 4, 5].map(|index| format!("releases/{}", ids[index])).into();
    assert_eq!(left(dir.path()).into_iter().collect::<BTreeSet<_>>(), stays);
    [0, 2, 3, 4, 5].iter().for_each(|index| releases.verify_full(ids[*index]).unwrap());

    assert_eq!(releases.upkeep().unwrap().gone, [], "once");
    drop(releases);
    let releases = open(dir.path());
    releases.keep(Keep { held, proven: 2 });
    assert_eq!(releases.upkeep().unwrap().gone, [], "as it was before the restart");
}

#[test]
fn a_member_whose_record_is_damaged_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, releases) = (MemoryStore::new(), open(dir.path()));
    let id = push_nodes(&nodes(1), &store).id;
    fetch(id, &store, &releases, &|_| {}).unwrap();
    fs::write(dir.path().join("committed"), "x").unwrap();
    releases.keep(Keep { held: BTreeSet::new(), proven: 0 });
    assert_eq!(releases.upkeep().unwrap().gone, []);
    assert!(releases.has(id));
}

#[test]
fn a_member_whose_disk_does_not_say_what_was_proven_removes_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (store, releases) = (MemoryStore::new(), open(dir.path()));
    let ids = [1, 2, 3].map(|seed| push_nodes(&nodes(seed), &store).id);
    for (id, epoch) in ids.iter().zip(1..) {
        fetch(*id, &store, &releases, &|_| {}).unwrap();
        releases.commit(*id, Epoch(epoch)).unwrap();
    }
    releases.keep(Keep { held: BTreeSet::new(), proven: 1 });
    let record = dir.path().join(format!("releases/{}/proven", ids[1]));
    fs::remove_file(&record).unwrap();
    fs::create_dir(&record).unwrap();
    releases.upkeep().unwrap_err();
    assert!(ids.iter().all(|id| releases.has(*id)));

    // What was never written down is another matter.
    fs::remove_dir(&record).unwrap();
    assert_eq!(releases.upkeep().unwrap().gone, [ids[1]]);
}

/// A member that has committed to one release and has another one on disk that need not be kept, and its store.
fn member_with_a_surplus(state: &Path) -> (Arc<MemoryStore>, Arc<ReleasesDir>, [ReleaseId; 2]) {
    let (store, releases) = (Arc::new(MemoryStore::new()), Arc::new(open(state)));
    let ids = [1, 2].map(|seed| push_nodes(&nodes(seed), &*store).id);
    for id in ids {
        fetch(id, &*store, &releases, &|_| {}).unwrap();
    }
    releases.commit(ids[0], Epoch(1)).unwrap();
    releases.keep(Keep { held: BTreeSet::from([ids[0]]), proven: 0 });
    (store, releases, ids)
}

/// What somebody gets who wants a release now; nothing when it has to wait.
fn wanted_now(releases: &Arc<ReleasesDir>, held: [ReleaseId; 2]) -> Option<Fetched> {
    let (done, answer) = mpsc::channel();
    let releases = Arc::clone(releases);
    releases.keep(Keep { held: BTreeSet::from(held), proven: 0 });
    thread::spawn(move || done.send(fetch(held[1], &MemoryStore::new(), &releases, &|_| {}).unwrap()));
    answer.recv_timeout(LIMIT).ok()
}

/// Opens a fifo once somebody reads it.
fn reached(fifo: &Path) -> File {
    let start = Instant::now();
    loop {
        let flags = OFlags::NONBLOCK.bits() as i32;
        match OpenOptions::new().write(true).custom_flags(flags).open(fifo) {
            Ok(opened) => return opened,
            Err(error) => assert!(start.elapsed() < LIMIT, "nobody reads it: {error}"),
        }
        thread::yield_now();
    }
}

#[test]
fn p28_a_release_on_disk_waits_for_no_upkeep_and_stays_though_that_was_about_to_remove_it() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (_, releases, [committed, surplus]) = member_with_a_surplus(dir.path());
    // The upkeep has decided what goes when it reads this, and comes no further before it is written.
    let manifest = dir.path().join(format!("releases/{committed}/manifest"));
    let text = fs::read(&manifest).unwrap();
    let aside = dir.path().join("aside");
    fs::rename(&manifest, &aside).unwrap();
    mknodat(CWD, &manifest, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let upkeep = thread::spawn({
        let releases = Arc::clone(&releases);
        move || releases.upkeep().unwrap()
    });
    let mut fifo = reached(&manifest);
    fs::rename(&aside, &manifest).unwrap();
    let way_back = wanted_now(&releases, [committed, surplus]);
    fifo.write_all(&text).unwrap();
    drop(fifo);
    let done = upkeep.join().unwrap();
    assert_eq!(way_back, Some(Fetched::default()), "the way back waits for the upkeep");
    assert_eq!(done.gone, [], "what was wanted meanwhile stays");
    [committed, surplus].iter().for_each(|id| releases.verify_full(*id).unwrap());
    // And goes when nobody wants it any more.
    releases.keep(Keep { held: BTreeSet::from([committed]), proven: 0 });
    assert_eq!(releases.upkeep().unwrap().gone, [surplus]);
}

#[test]
fn p28_a_release_on_disk_waits_for_no_fetch_and_no_other_one_is_made_of_it() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (store, releases, [committed, surplus]) = member_with_a_surplus(dir.path());
    let new = push_nodes(&nodes(3), &*store).id;
    let (sent, way_back) = mpsc::channel();
    let wanted = Arc::clone(&releases);
    // The new release was about to be made of the one that goes when the store is asked for its second part.
    let store = Interrupted::new(store, 2, move || {
        sent.send(wanted_now(&wanted, [committed, surplus])).unwrap();
    });
    let fetched = fetch(new, &store, &releases, &|_| {}).unwrap();
    assert_eq!(way_back.try_recv(), Ok(Some(Fetched::default())), "the way back waits for the fetch");
    assert_eq!(fetched.way, Way::Created);
    [committed, surplus, new].iter().for_each(|id| releases.verify_full(*id).unwrap());
}
