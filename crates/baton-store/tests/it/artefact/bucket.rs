//! The artefact store in a bucket, by itself and for members that read straight from it.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use baton_core::ids::{BuildKey, ChunkId, PackId, ReleaseId};
use baton_core::release::Chunk;
use baton_release::fetch::{FetchError, Fetched, fetch};
use baton_release::pack;
use baton_release::releases::ReleasesDir;
use baton_release::remote::Remote;
use baton_release::store::{ArtefactStore, Custody, Kind};
use baton_store::artefact::{BucketStore, conformance};
use tempfile::TempDir;

use super::azure;
use super::front::{Act, Front};
use super::google::{self, google};
use super::http::Server;
use super::s3::{self, Checking};
use super::{check_all, push_dir, source};

/// In the address of whoever reads with a grant, and in no request of the store itself.
const GRANTED: &str = "X-Amz-Signature";

#[test]
fn a_bucket_of_moto_conforms() -> Result<(), conformance::Failure> {
    conformance::run_custody(|| s3::store(s3::moto()))
}

#[test]
fn a_bucket_that_checks_signatures_conforms() -> Result<(), conformance::Failure> {
    let server = Checking::start();
    conformance::run_custody(|| s3::store(server.address))
}

#[test]
fn a_bucket_of_azurite_conforms() -> Result<(), conformance::Failure> {
    conformance::run_custody(azure::store)
}

#[test]
fn a_member_without_credentials_reads_from_azures_bucket() {
    let store = Arc::new(azure::store());
    let dir = tempfile::tempdir().unwrap();
    let release = push_dir(&dir.path().join("source"), 1, &*store).unwrap().id;
    let control = Front::of(Server::start(store).address());
    let releases = ReleasesDir::open(&dir.path().join("state")).unwrap();
    fetch(release, &remote(control.address), &releases, &|_| {}).unwrap();
    releases.verify_full(release).unwrap();
    let asked = control.asked();
    assert!(asked.iter().any(|line| line.contains("/v1/chunks/grant")), "{asked:?}");
    assert!(!asked.iter().any(|line| line.contains("/v1/chunks/pack")), "{asked:?}");
}

#[test]
fn f70_azure_refuses_the_key_of_somebody_else() {
    let stranger = azure::open("some/prefix", "c29tZWJvZHkgZWxzZQ==");
    assert_eq!(stranger.put(&pack::of(b"content").unwrap()).unwrap_err().kind, Kind::Denied);
}

#[test]
fn p27_nothing_is_written_that_is_too_long_for_one_request() {
    let server = Checking::start();
    let bucket = Front::of(server.address);
    let (store, long) = (s3::store(bucket.address), " ".repeat((8 << 20) + 1));
    for refused in [
        store.publish(ReleaseId::from_bytes([7; 32]), long.as_bytes()),
        store.keep_record(BuildKey::from_bytes([7; 32]), &long),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, Kind::Corrupt);
        assert!(chain(&refused).contains("it has 8388609 bytes"), "{}", chain(&refused));
    }
    assert!(bucket.asked().is_empty(), "{:?}", bucket.asked());
}

#[test]
fn a_bucket_of_google_conforms() -> Result<(), conformance::Failure> {
    conformance::run_custody(google::store)
}

#[test]
fn f76_google_is_told_to_write_only_what_is_not_there() {
    let prefix = google::prefix();
    let pack = pack::of(b"content").unwrap();
    // Each of these knows nothing of the other.
    for store in [google().open(&prefix), google().open(&prefix)] {
        store.put(&pack).unwrap();
    }
    let mut asked = google().asked(&prefix);
    asked.retain(|(line, ..)| line.starts_with("PUT "));
    let answered: Vec<(bool, u16)> =
        asked.iter().map(|(_, conditional, status)| (*conditional, *status)).collect();
    assert_eq!(answered, [(true, 200), (true, 412)], "{asked:?}");
    assert_eq!(google().open(&prefix).missing(&[ChunkId::of(b"content")]).unwrap(), []);
}

#[test]
fn a_member_without_credentials_reads_from_googles_bucket() {
    let prefix = google::prefix();
    let store = Arc::new(google().open(&prefix));
    let dir = tempfile::tempdir().unwrap();
    let release = push_dir(&dir.path().join("source"), 1, &*store).unwrap().id;
    let control = Front::of(Server::start(store).address());
    let releases = ReleasesDir::open(&dir.path().join("state")).unwrap();
    fetch(release, &remote(control.address), &releases, &|_| {}).unwrap();
    releases.verify_full(release).unwrap();
    let asked = control.asked();
    assert!(asked.iter().any(|line| line.contains("/v1/chunks/grant")), "{asked:?}");
    assert!(!asked.iter().any(|line| line.contains("/v1/chunks/pack")), "{asked:?}");
    let signed = google().asked(&prefix);
    assert!(
        signed.iter().any(|(line, _, status)| line.contains("X-Goog-Signature") && *status == 206),
        "{signed:?}"
    );
}

#[test]
fn f70_google_refuses_the_key_of_somebody_else_and_so_does_an_address_that_it_has_signed() {
    let prefix = google::prefix();
    let stranger = google().open_with(&prefix, &google::Key::new());
    let pack = pack::of(b"content").unwrap();
    assert_eq!(stranger.put(&pack).unwrap_err().kind, Kind::Denied);
    let store = google().open(&prefix);
    store.put(&pack).unwrap();
    let url =
        store.grant(&[ChunkId::of(b"content")], Duration::from_secs(60)).unwrap()[0].url.clone().unwrap();
    let answer = |url: &str| {
        let path = url.strip_prefix(&format!("http://{}", google().address)).unwrap();
        let mut stream = TcpStream::connect(google().address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[9..12]).into_owned()
    };
    assert_eq!((answer(&url).as_str(), answer(&url.replace("packs", "corrupt")).as_str()), ("200", "403"));
}

#[test]
fn a_bucket_behind_http_conforms() -> Result<(), conformance::Failure> {
    let servers = RefCell::new(Vec::new());
    conformance::run(|| {
        let server = Checking::start();
        let remote = Server::start(Arc::new(s3::store(server.address))).remote();
        servers.borrow_mut().push(server);
        remote
    })
}

/// A release in a bucket, a server that knows it, and something in front of both.
struct Scene {
    bucket: Front,
    control: Front,
    store: Arc<BucketStore>,
    release: ReleaseId,
    dir: TempDir,
    _server: Checking,
}

impl Scene {
    fn new() -> Self {
        let server = Checking::start();
        let bucket = Front::of(server.address);
        let store = Arc::new(s3::store(bucket.address));
        let control = Front::of(Server::start(store.clone()).address());
        let dir = tempfile::tempdir().unwrap();
        let release = push_dir(&dir.path().join("source"), 1, &*store).unwrap().id;
        Self { bucket, control, store, release, dir, _server: server }
    }

    /// What a member without credentials gets that has nothing yet.
    fn fetch(&self) -> Result<Fetched, FetchError> {
        let state = tempfile::tempdir().unwrap();
        let releases = ReleasesDir::open(state.path()).unwrap();
        let fetched = fetch(self.release, &remote(self.control.address), &releases, &|_| {})?;
        releases.verify_full(self.release).unwrap();
        Ok(fetched)
    }

    fn granted(&self) -> Vec<String> {
        self.bucket.asked().into_iter().filter(|line| line.contains(GRANTED)).collect()
    }

    fn came_through_control(&self) -> bool {
        self.control.asked().iter().any(|line| line.contains("/v1/chunks/pack"))
    }
}

fn remote(server: SocketAddr) -> Remote {
    Remote::new(&format!("http://{server}"))
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[test]
fn p24_a_member_without_credentials_reads_from_the_bucket_in_three_round_trips() {
    let scene = Scene::new();
    let state = tempfile::tempdir().unwrap();
    let releases = ReleasesDir::open(state.path()).unwrap();
    let files = scene.dir.path().join("source");
    // One that is there, and one with so many files that the outline of its manifest has an outline.
    for n in 0..2500 {
        fs::write(files.join(format!("{n}")), "").unwrap();
    }
    let large = push_dir(&files, 1, &*scene.store).unwrap().id;
    fs::write(files.join("changed"), "in one file").unwrap();
    let changed = push_dir(&files, 1, &*scene.store).unwrap().id;
    for release in [scene.release, large, changed] {
        scene.bucket.act(|_| Act::Pass);
        scene.control.act(|_| Act::Pass);
        fetch(release, &remote(scene.control.address), &releases, &|_| {}).unwrap();
        releases.verify_full(release).unwrap();
        let asked = scene.control.asked();
        let paths: Vec<&str> = asked.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
        let outline = format!("/v1/releases/{release}/outline");
        match scene.granted().as_slice() {
            // It has all that is in those files.
            [] => assert_eq!((release, paths), (large, vec![outline.as_str()])),
            granted => {
                assert_eq!(paths, [&outline, "/v1/chunks/grant"]);
                let by_range = |line: &String| line.starts_with("GET ") && line.contains("range: bytes=");
                assert!(granted.iter().all(by_range), "{granted:?}");
            }
        }
    }
}

#[test]
fn f70_whatever_the_bucket_answers_a_member_it_gets_the_right_bytes() {
    let scene = Scene::new();
    let denied = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    for (act, times, through_control) in [
        (Act::Answer(403, "", denied), 1, false),
        (Act::Answer(400, "", "<Error><Code>ExpiredToken</Code></Error>"), 1, false),
        (Act::Answer(404, "", ""), 1, false),
        (Act::Answer(403, "", denied), usize::MAX, true),
        (Act::Answer(500, "", ""), 1, false),
        (Act::Answer(503, "", "<Error><Code>SlowDown</Code></Error>"), 2, false),
        (Act::Answer(429, "Retry-After: 1\r\n", ""), 1, false),
        (Act::Answer(307, "Location: http://127.0.0.1:1/\r\n", ""), usize::MAX, true),
        (Act::Answer(200, "", "something else"), 1, true),
        (Act::Close, 2, false),
        (Act::Lose, 1, false),
        (Act::Halve, 1, false),
        (Act::Flip, 1, true),
        (Act::Swap, 1, true),
        (Act::Extend, 1, true),
        (Act::Misplace, 1, true),
    ] {
        scene.control.act(|_| Act::Pass);
        scene.bucket.act_on(GRANTED, times, act);
        scene.fetch().unwrap();
        assert_eq!(scene.came_through_control(), through_control, "{act:?}: {:?}", scene.control.asked());
    }
}

#[test]
fn f72_a_range_that_breaks_off_is_read_on_from_there() {
    let scene = Scene::new();
    scene.bucket.act_on(GRANTED, 1, Act::Halve);
    scene.fetch().unwrap();
    let starts: Vec<u64> = scene
        .granted()
        .iter()
        .map(|line| {
            let (_, range) = line.split_once("range: bytes=").unwrap();
            range.split_once('-').unwrap().0.parse().unwrap()
        })
        .collect();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert!(starts[1] > starts[0], "{starts:?}");
}

#[test]
fn f73_a_range_that_stalls_is_given_up_and_read_on_from_there() {
    let scene = Scene::new();
    scene.bucket.act_on(GRANTED, 1, Act::Stall);
    scene.fetch().unwrap();
    assert_eq!(scene.granted().len(), 2);
    assert!(!scene.came_through_control());
}

#[test]
fn f73_a_range_that_drips_is_given_up_and_read_on_from_there() {
    let scene = Scene::new();
    let (files, state) = (scene.dir.path().join("source"), tempfile::tempdir().unwrap());
    let releases = ReleasesDir::open(state.path()).unwrap();
    let bring = |release| fetch(release, &remote(scene.control.address), &releases, &|_| {}).unwrap();
    bring(scene.release);
    // One file is lacking, of which more is left than comes in the time that is given.
    let noise = (0..2048_u32).flat_map(|n| *ChunkId::of(&n.to_le_bytes()).as_bytes());
    fs::write(files.join("large"), noise.collect::<Vec<u8>>()).unwrap();
    let release = push_dir(&files, 1, &*scene.store).unwrap().id;
    scene.bucket.act_on(GRANTED, 1, Act::Drip);
    bring(release);
    releases.verify_full(release).unwrap();
    let granted = scene.granted();
    assert!(granted.len() == 2 && granted[0] != granted[1], "what has come is not read again: {granted:?}");
    assert!(!scene.came_through_control());
}

#[test]
fn f71_members_that_cannot_reach_the_bucket_read_through_control() {
    let scene = Scene::new();
    scene.bucket.act_on(GRANTED, usize::MAX, Act::Close);
    scene.fetch().unwrap();
    assert!(scene.came_through_control());
}

#[test]
fn f72_what_is_altered_in_the_bucket_is_refused_and_the_next_push_heals_it() {
    let scene = Scene::new();
    let packs = scene._server.dir.path().join("bucket").join("some");
    let mut found = Vec::new();
    for prefix in fs::read_dir(&packs).unwrap() {
        found.extend(
            fs::read_dir(prefix.unwrap().path().join("packs")).unwrap().map(|entry| entry.unwrap().path()),
        );
    }
    assert_eq!(found.len(), 1);
    let mut bytes = fs::read(&found[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&found[0], bytes).unwrap();

    let refused = scene.fetch().unwrap_err();
    assert!(chain(&refused).contains("read pack"), "{}", chain(&refused));
    assert!(push_dir(&scene.dir.path().join("source"), 1, &*scene.store).unwrap().chunks_new >= 1);
    scene.fetch().unwrap();
}

#[test]
fn f74_a_pack_that_is_removed_too_early_is_missed_by_name() {
    let scene = Scene::new();
    let other = Scene::new();
    // Somebody else's server removes it; this one finds out by itself.
    let ids: Vec<PackId> = scene.store.packs().unwrap().into_iter().map(|pack| pack.id).collect();
    for entry in fs::read_dir(scene._server.dir.path().join("bucket/some")).unwrap() {
        for id in &ids {
            fs::remove_file(entry.as_ref().unwrap().path().join(format!("packs/{id}"))).unwrap();
        }
    }
    let refused = scene.fetch().unwrap_err();
    assert!(matches!(&refused, FetchError::Read(_)), "{}", chain(&refused));
    assert!(chain(&refused).contains("does not have it"), "{}", chain(&refused));
    other.fetch().unwrap();
}

#[test]
fn f70_a_bucket_that_fails_is_told_with_what_it_says() {
    let server = Checking::start();
    let front = Front::of(server.address);
    let store = s3::store(front.address);
    let id = ChunkId::of(b"content");
    front.act(|_| Act::Answer(403, "", "<Error><Code>AccessDenied</Code></Error>"));
    let error = store.put(&pack::of(b"content").unwrap()).unwrap_err();
    assert_eq!(error.kind, Kind::Denied);
    let told = chain(&error);
    let asked = format!("http://{}: ", front.address);
    assert!(told.contains("AccessDenied") && told.contains(&asked), "{told}");
    assert_eq!((told.matches("403").count(), told.contains("reach it")), (1, false), "{told}");
    front.act(|_| Act::Answer(503, "", "<Error><Code>SlowDown</Code></Error>"));
    assert_eq!(store.missing(&[id]).unwrap_err().kind, Kind::Unavailable);
    assert!(front.asked().len() > 1, "it is tried again");
    assert_eq!(store.ready().unwrap_err().kind, Kind::Unavailable);
    front.act(|_| Act::Pass);
    store.ready().unwrap();
    assert_eq!(store.missing(&[id]).unwrap(), [id]);
    // With the secret of somebody else.
    let stranger = s3::open(server.address, "some/prefix", "wrong");
    assert_eq!(stranger.put(&pack::of(b"content").unwrap()).unwrap_err().kind, Kind::Denied);
}

#[test]
fn f70_a_store_opens_without_its_bucket_and_works_once_that_is_there() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = s3::store(nobody);
    let error = store.list().unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    // Whom it asked, and what happened, once.
    let told = format!(
        "cannot list releases: the artefact store is not available: http://{nobody}: Connection refused (os error 111): \
         is it there, and may this server reach it?"
    );
    assert_eq!(chain(&error), told);
}

#[test]
fn f76_pushers_at_once_lost_answers_and_a_push_that_ends_halfway_are_harmless() {
    let server = Checking::start();
    let front = Front::of(server.address);
    let dir = tempfile::tempdir().unwrap();
    let request = source(&dir.path().join("source"), 1);

    // Every request but those for the outline gets through: a push that ends before its release is known.
    let store = s3::store(front.address);
    front.act_on("/manifests/", usize::MAX, Act::Answer(403, "", ""));
    push_dir(&dir.path().join("source"), 1, &store).unwrap_err();
    front.act(|_| Act::Pass);
    assert_eq!(store.list().unwrap(), []);

    // The answers to what is put are lost, once each.
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    front.act(move |line| match line.starts_with("PUT ") && seen.lock().unwrap().insert(line.to_owned()) {
        true => Act::Lose,
        false => Act::Pass,
    });
    let lost = push_until_it_works(&dir, &store);
    front.act(|_| Act::Pass);

    let stores: Vec<BucketStore> = (0..4).map(|_| s3::open(front.address, "some/shared", "secret")).collect();
    let ids: Vec<_> = thread::scope(|scope| {
        let push = |store| baton_release::push::push(&request, store, &|_| {}).unwrap().id;
        let pushers: Vec<_> = stores.iter().map(|store| scope.spawn(move || push(store))).collect();
        pushers.into_iter().map(|pusher| pusher.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == lost));
    for store in &stores {
        assert_eq!(check_all(store), 1);
    }
    // One that starts now learns everything from the bucket.
    assert_eq!(check_all(&s3::open(front.address, "some/shared", "secret")), 1);
}

/// As `baton push` does it: what may pass is tried again.
fn push_until_it_works(dir: &TempDir, store: &BucketStore) -> ReleaseId {
    (0..9).find_map(|_| Some(push_dir(&dir.path().join("source"), 1, store).ok()?.id)).unwrap()
}

#[test]
fn f43_a_damaged_pack_stays_in_the_bucket_until_what_is_right_of_it_is_kept() {
    let server = Checking::start();
    let bucket = Front::of(server.address);
    let open = || s3::open(bucket.address, "prefix", "secret");
    let store = open();
    let frame = |content: &[u8]| {
        let chunk = Chunk { id: ChunkId::of(content), bytes: content.len() as u32 };
        pack::pack(vec![chunk], content).unwrap()
    };
    let content = pack::join(vec![frame(b"first"), frame(b"second")]);
    let (id, chunks) = (PackId::of(&content), [&b"first"[..], b"second"].map(ChunkId::of));
    store.put(&content).unwrap();
    let refused = Act::Answer(403, "", "");
    // It cannot be read; it is damaged on its way, and what is right of it is not taken.
    for (read, written) in [(refused, Act::Pass), (Act::Flip, refused)] {
        bucket.act(move |line| match line.to_ascii_lowercase() {
            line if line.starts_with("get ") && line.contains("/packs/") => read,
            line if line.starts_with("put ") && line.contains("/packs/") => written,
            _ => Act::Pass,
        });
        assert_eq!(store.salvage(id).unwrap_err().kind, Kind::Denied);
        bucket.act(|_| Act::Pass);
        assert_eq!(open().get(&chunks).unwrap(), content);
    }
    bucket.act_on("/packs/", 1, Act::Flip);
    store.salvage(id).unwrap();
    for store in [&store, &open()] {
        assert_eq!(store.missing(&chunks).unwrap(), [ChunkId::of(b"second")]);
        store.get(&[ChunkId::of(b"first")]).unwrap();
    }
    bucket.act(|_| Act::Pass);
}
