//! What the artefact store has lost comes back from members that are connected.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use baton_core::ids::{ChunkId, MemberId, ReleaseId};
use baton_core::member::Member;
use baton_core::release::outline::Outlined;
use baton_core::release::{Chunk, Entry, EntryKind, File, Manifest, Provenance, Tree};
use baton_core::report::{Report, Stamp};
use baton_core::run::RunSettings;
use baton_release::fetch::fetch;
use baton_release::manifest::pack_outline;
use baton_release::pack;
use baton_release::peers::Shelf;
use baton_release::releases::ReleasesDir;
use baton_release::remote::Remote;
use baton_release::store::ArtefactStore;
use baton_wire::api::{Repair, Repaired, Verified, Verify};
use baton_wire::session::{ContentLent, ContentWanted, FromMember, Hello, Socket, ToMember};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::running::{Running, rollout};

/// How much a member says at once here.
const PART_BYTES: usize = 4_000;

/// A release with these files, in the store of a server.
async fn push(server: &Running, files: &[(&str, Vec<u8>)]) -> ReleaseId {
    let chunk = |content: &[u8]| Chunk { id: ChunkId::of(content), bytes: content.len() as u32 };
    let entry = |(path, content): &(&str, Vec<u8>)| {
        let kind = EntryKind::File(File { executable: false, chunks: [chunk(content)].into() });
        Entry { path: path.parse().unwrap(), kind }
    };
    let manifest = Manifest {
        service: "web".parse().unwrap(),
        provenance: Provenance { created: 1, builder: "test".into(), commit: None },
        run: RunSettings::for_command(vec!["true".into()]),
        tree: Tree::of(files.iter().map(entry).collect()).unwrap(),
    };
    let (id, text) = (manifest.id(), manifest.to_text());
    let outlined = Outlined::of(&text);
    let parts = outlined.manifest.iter().chain(&outlined.listing).map(|part| part.content.clone());
    let contents: Vec<Vec<u8>> = files.iter().map(|(_, content)| content.clone()).chain(parts).collect();
    let (remote, outline) = (Remote::new(&server.url), pack_outline(&outlined.top).unwrap());
    let push = move || {
        contents.iter().for_each(|content| remote.put(&pack::of(content).unwrap()).unwrap());
        remote.publish(id, &outline).unwrap();
    };
    spawn_blocking(push).await.unwrap();
    id
}

/// A member of `web` that has a release on its disk and says so.
struct Lender {
    dir: TempDir,
    session: JoinHandle<()>,
}

impl Drop for Lender {
    fn drop(&mut self) {
        self.session.abort();
    }
}

impl Lender {
    async fn having(server: &Running, name: &str, release: ReleaseId) -> Self {
        Self::of(server, server.address, name, release).await
    }

    /// One that has it from there, and lives with control at this address.
    async fn of(from: &Running, address: SocketAddr, name: &str, release: ReleaseId) -> Self {
        let dir = TempDir::new().unwrap();
        let releases = Arc::new(ReleasesDir::open(dir.path()).unwrap());
        let (to, remote) = (Arc::clone(&releases), Remote::new(&from.url));
        spawn_blocking(move || fetch(release, &remote, &to, &|_| {}).unwrap()).await.unwrap();
        let member: MemberId = name.parse().unwrap();
        let session = tokio::spawn(live(address, member, release, Arc::new(Shelf::new(releases))));
        Self { dir, session }
    }

    fn spoil(&self, release: ReleaseId, path: &str) {
        fs::write(self.dir.path().join(format!("releases/{release}/tree/{path}")), "something else").unwrap();
    }
}

async fn live(address: SocketAddr, member: MemberId, release: ReleaseId, shelf: Arc<Shelf>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut socket = Socket::call(stream, &address.to_string(), None).await.unwrap();
    let hello = Hello {
        member: member.clone(),
        service: "web".parse().unwrap(),
        version: "test".into(),
        listens: Vec::new(),
        life: 1,
        peer: None,
    };
    let stamp = Stamp { life: 1, sequence: 1 };
    let report = Report { stamp, running: Some(release), ..Member::new(member, None, None).report() };
    for said in [FromMember::Hello(hello), FromMember::Report(report.into())] {
        socket.say(&said.to_wire()).await.unwrap();
    }
    // Until the server ends.
    while let Ok(order) = socket.hear().await {
        let Some(ToMember::ContentWanted(ContentWanted { question, release, chunks })) =
            ToMember::from_wire(order).unwrap()
        else {
            continue;
        };
        let found = shelf.lend(release, &chunks);
        for part in found.chunks(PART_BYTES) {
            let lent = ContentLent { question, part: part.to_vec(), is_last: false };
            socket.say(&FromMember::ContentLent(lent).to_wire()).await.unwrap();
        }
        let last = ContentLent { question, part: Vec::new(), is_last: true };
        socket.say(&FromMember::ContentLent(last).to_wire()).await.unwrap();
    }
}

async fn repair(server: &Running, dry_run: bool) -> Repaired {
    let answer = server.post("/v1/releases/repair", &Repair { dry_run, from: None }).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn is_well(server: &Running) -> bool {
    let answer = server.post("/v1/releases/verify", &Verify { after: None }).await;
    let found: Verified = answer.json();
    assert!(found.next.is_none());
    found.damaged.is_empty()
}

/// Takes away what lies in a folder of the store.
fn lose(server: &Running, folder: &str) {
    for entry in fs::read_dir(server.data_dir().join("artefacts").join(folder)).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let long = |seed: u8| {
        let mut content = vec![0; 700_000];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut content);
        content
    };
    vec![("a", long(1)), ("b", long(2)), ("c", long(3)), ("d", b"short".to_vec())]
}

#[tokio::test(flavor = "multi_thread")]
async fn f74_a_release_in_force_that_the_store_has_lost_comes_back_from_members() {
    let server = Running::start();
    let release = push(&server, &files()).await;
    server.deploy(&rollout(release, 0)).await;
    let members =
        [Lender::having(&server, "web-1", release).await, Lender::having(&server, "web-2", release).await];
    server.wait_for("both are heard", |status| status.counts.live == 2).await;
    assert_eq!(repair(&server, false).await, Repaired { releases: 1, ..Repaired::default() });

    lose(&server, "packs");
    lose(&server, "manifests");
    let would = repair(&server, true).await;
    let one = &would.repaired[0];
    assert_eq!((one.id.as_str(), one.is_whole), (release.to_string().as_str(), false));
    assert_eq!(
        (&one.members[..], one.why.as_ref()),
        (&["web/web-1".to_owned(), "web/web-2".to_owned()][..], None)
    );
    assert!(!is_well(&server).await, "nothing was given back");
    let done = repair(&server, false).await;
    let one = &done.repaired[0];
    assert_eq!((one.is_whole, one.chunks, one.manifest, one.why.as_ref()), (true, 4, true, None), "{one:?}");
    assert_eq!((one.bytes, one.members.len()), (2_100_005, 2));
    assert!(is_well(&server).await);

    // What was altered on both disks is nowhere, and named.
    lose(&server, "packs");
    members.iter().for_each(|member| member.spoil(release, "b"));
    let done = repair(&server, false).await;
    let (one, why) = (&done.repaired[0], done.repaired[0].why.clone().unwrap());
    assert!(!one.is_whole && why.contains("1 of its chunks are nowhere") && why.contains(" of b "), "{why}");
    assert!(why.contains("(2 members were asked)") && why.contains("push it again"), "{why}");
    drop(members);
    let dir = server.stop().await;
    let log = fs::read_to_string(dir.path().join("data/audit.log")).unwrap();
    assert_eq!(log.matches("/v1/releases/repair").count(), 4, "{log}");
    let release = release.short();
    assert!(
        log.contains(&format!("release {release}: 4 chunks of 2100005 from web/web-1 web/web-2")),
        "{log}"
    );
    assert!(log.contains("3 chunks of 1400005 from web/web-1 web/web-2, not whole yet"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_begun_anew_gets_what_its_members_run() {
    let (before, anew) = (Running::start(), Running::start());
    let release = push(&before, &files()).await;
    let _member = Lender::of(&before, anew.address, "web-1", release).await;
    anew.wait_for("it is heard", |status| status.counts.live == 1).await;
    let done = repair(&anew, false).await;
    assert!(done.repaired.len() == 1 && done.repaired[0].is_whole, "{done:?}");
    assert_eq!(repair(&anew, false).await, Repaired { releases: 1, ..Repaired::default() });
    anew.deploy(&rollout(release, 0)).await;
    before.stop().await;
    anew.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_member_may_have_is_told_at_once() {
    let server = Running::start();
    let release = server.push(1).await;
    server.deploy(&rollout(release, 0)).await;
    lose(&server, "packs");
    for dry_run in [true, false] {
        let done = repair(&server, dry_run).await;
        let why = done.repaired[0].why.clone().unwrap();
        assert!(why.contains("no member that is connected to this server"), "{why}");
    }
    let astray = Repair { dry_run: false, from: Some("there".into()) };
    let astray = server.post("/v1/releases/repair", &astray).await;
    assert_eq!(astray.status, 400, "{}", astray.text());
    server.stop().await;
}
