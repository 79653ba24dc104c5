//! Pushes, fetches and prunes at the same time, at every kind of store: what is needed is there, at any moment.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use baton_core::collection::{self, Fate};
use baton_core::ids::ReleaseId;
use baton_core::units::Millis;
use baton_release::collect::{self, Needed};
use baton_release::fetch::fetch;
use baton_release::push::{PushError, Pushed};
use baton_release::releases::ReleasesDir;
use baton_release::store::interrupted::Interrupted;
use baton_release::store::{ArtefactStore, Custody, StoreError};
use baton_store::artefact::FolderStore;
use tempfile::TempDir;

use super::front::{Act, Front};
use super::http::Server;
use super::push_dir;
use super::s3::{self, Checking};

/// A store that several can open at once, as several servers do.
enum Kept {
    Folder(TempDir),
    /// Of moto, which believes every signature.
    Moto(String),
    Checking(Checking),
}

impl Kept {
    fn all() -> [Self; 3] {
        let prefix = format!("some/pruned-{}", tempfile::tempdir().unwrap().path().display());
        [Self::Folder(tempfile::tempdir().unwrap()), Self::Moto(prefix), Self::Checking(Checking::start())]
    }

    fn open(&self) -> Arc<dyn Custody> {
        match self {
            Self::Folder(dir) => Arc::new(FolderStore::open(dir.path()).unwrap()),
            Self::Moto(prefix) => Arc::new(s3::open(s3::moto(), prefix, "secret")),
            Self::Checking(server) => Arc::new(s3::open(server.address, "some/pruned", "secret")),
        }
    }
}

/// What a prune without grace is about to do that keeps these.
fn fates(store: &dyn Custody, kept: &[ReleaseId]) -> (Vec<ReleaseId>, Vec<collection::Pack>, Needed) {
    let mut needed = Needed::default();
    kept.iter().for_each(|id| needed.count_release(*id, store).unwrap());
    let goes = store.list().unwrap().into_iter().filter(|id| !kept.contains(id)).collect();
    (goes, collect::packs(store).unwrap(), needed)
}

/// All but these go, however young.
pub fn prune(store: &dyn Custody, kept: &[ReleaseId]) -> Result<bool, StoreError> {
    let (goes, packs, needed) = fates(store, kept);
    let fates = collection::packs(&packs, |id| needed.has(id), Millis(0));
    collect::remove(store, &goes, &fates, &|| Ok(()))?;
    Ok(fates.iter().any(|(_, fate)| matches!(fate, Fate::Repacked(_))))
}

/// How long each file is here.
const FILE_BYTES: u64 = 300_000;

/// Files that cannot be compressed.
fn push(dir: &Path, files: &[u32], store: &dyn ArtefactStore) -> Result<Pushed, PushError> {
    fs::create_dir_all(dir).unwrap();
    for seed in files {
        let mut noise = seed.wrapping_mul(0x9e37_79b9) | 1;
        let content = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            noise.to_le_bytes()
        });
        let content: Vec<u8> = content.take(FILE_BYTES as usize / 4).flatten().collect();
        fs::write(dir.join(seed.to_string()), content).unwrap();
    }
    push_dir(dir, 0, store)
}

/// What a member gets that has nothing yet.
fn get(id: ReleaseId, store: &dyn ArtefactStore) {
    let state = tempfile::tempdir().unwrap();
    let releases = ReleasesDir::open(state.path()).unwrap();
    fetch(id, store, &releases, &|_| {}).unwrap();
    releases.verify_full(id).unwrap();
}

/// Two releases, of which the second needs one file of the first one's pack.
pub fn two(dir: &Path, store: &dyn ArtefactStore) -> [ReleaseId; 2] {
    let first = push(&dir.join("first"), &[1, 2, 3, 4, 5, 6], store).unwrap().id;
    [first, push(&dir.join("second"), &[6, 7], store).unwrap().id]
}

#[test]
fn p28_what_is_kept_is_whole_and_what_was_removed_can_be_pushed_again() {
    for kept in Kept::all() {
        let (store, dir) = (kept.open(), tempfile::tempdir().unwrap());
        let client = Server::start(Arc::clone(&store)).remote();
        let [first, second] = two(dir.path(), &client);
        let before = store.packs().unwrap().len();
        assert!(prune(&*store, &[second]).unwrap(), "the first one's pack is repacked");
        assert_eq!((store.list().unwrap(), store.packs().unwrap().len()), (vec![second], before));
        // For who was there before, and for one that starts now.
        get(second, &client);
        get(second, &*kept.open());
        assert!(!prune(&*store, &[second]).unwrap(), "there is nothing left to do");
        let again = push_dir(&dir.path().join("first"), 0, &client).unwrap();
        assert_eq!(again.id, first);
        // Beside the file that both have, a frame that is kept may hold a part of another one.
        let new = again.bytes_new;
        assert!(new > 4 * FILE_BYTES && new <= 5 * FILE_BYTES, "{new} bytes");
        [first, second].iter().for_each(|id| get(*id, &client));
        prune(&*store, &[]).unwrap();
        assert_eq!((store.list().unwrap(), store.packs().unwrap()), (vec![], vec![]));
    }
}

#[test]
fn f76_a_push_ends_with_a_whole_release_at_whatever_moment_is_pruned() {
    for kept in Kept::all() {
        let mut moments = 0;
        for before in 1.. {
            let (store, dir) = (kept.open(), tempfile::tempdir().unwrap());
            prune(&*store, &[]).unwrap();
            let [_, second] = two(dir.path(), &*store);
            // Another server's prune: even of what the push under way has put, and what it counts on.
            let other = kept.open();
            let interrupted = Interrupted::new(Arc::clone(&store), before, move || {
                prune(&*other, &[second]).unwrap();
            });
            let interrupted = Arc::new(interrupted);
            let client = Server::start(interrupted.clone()).remote();
            let third = push(&dir.path().join("third"), &[2, 3, 7, 8], &client).unwrap().id;
            [second, third].iter().for_each(|id| get(*id, &*store));
            if interrupted.calls() < before {
                break;
            }
            moments += 1;
        }
        assert!(moments >= 3, "{moments}");
    }
}

#[test]
fn p28_a_member_gets_its_release_at_whatever_moment_packs_are_repacked() {
    for kept in Kept::all() {
        let mut moments = 0;
        for before in 1.. {
            let (store, dir) = (kept.open(), tempfile::tempdir().unwrap());
            prune(&*store, &[]).unwrap();
            let [_, second] = two(dir.path(), &*store);
            let other = kept.open();
            let interrupted = Interrupted::new(Arc::clone(&store), before, move || {
                assert!(prune(&*other, &[second]).unwrap());
            });
            let interrupted = Arc::new(interrupted);
            get(second, &Server::start(interrupted.clone()).remote());
            if interrupted.calls() < before {
                break;
            }
            moments += 1;
        }
        assert!(moments >= 3, "{moments}");
    }
}

#[test]
fn p28_a_member_that_reads_straight_from_a_bucket_is_told_where_its_chunks_are_now() {
    let (server, dir) = (Checking::start(), tempfile::tempdir().unwrap());
    let open = |address| s3::open(address, "some/prefix", "secret");
    let front = Front::of(server.address);
    let store = Arc::new(open(front.address));
    let [_, second] = two(dir.path(), &*store);
    let (other, done) = (open(server.address), AtomicBool::new(false));
    front.act(move |line| {
        // Between the grant and the reading.
        if line.contains("X-Amz-Signature") && !done.swap(true, Ordering::Relaxed) {
            assert!(prune(&other, &[second]).unwrap());
        }
        Act::Pass
    });
    get(second, &Server::start(store).remote());
    let granted = front.asked().iter().filter(|line| line.contains("X-Amz-Signature")).count();
    assert!(granted >= 2, "refused once, and read then: {granted}");
}

#[test]
fn two_prunes_at_once_leave_all_that_is_needed() {
    for kept in Kept::all() {
        let (store, dir) = (kept.open(), tempfile::tempdir().unwrap());
        let [_, second] = two(dir.path(), &*store);
        let other = kept.open();
        // Both have looked before the other one has removed anything.
        let looks = [&store, &other].map(|store| fates(&**store, &[second]));
        for (store, (goes, packs, needed)) in [&store, &other].into_iter().zip(&looks) {
            let fates = collection::packs(packs, |id| needed.has(id), Millis(0));
            // What is to be repacked may be gone; then nothing else was done.
            let _ = collect::remove(&**store, goes, &fates, &|| Ok(()));
            get(second, &*kept.open());
        }
        prune(&*other, &[second]).unwrap();
        get(second, &*store);
        let ids: BTreeSet<ReleaseId> = store.list().unwrap().into_iter().collect();
        assert_eq!(ids, BTreeSet::from([second]));
    }
}
