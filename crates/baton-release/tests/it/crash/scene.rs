//! A member with releases on its disk, in the middle of something.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use baton_core::ids::{DeployId, Epoch, ReleaseId};
use baton_core::release::id_of;
use baton_core::run::secrets::Secret;
use baton_release::disk::replace_private;
use baton_release::fetch::{FetchError, Way, fetch};
use baton_release::releases::{Committed, Keep, Papers, ReleasesDir, Seen};
use baton_release::store::Kind;
use baton_release::store::memory::MemoryStore;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{PTracer, set_ptracer};

use crate::sample::{Node, Nodes, chain, file, left, nodes, noise, open, plant_manifest, push_nodes, read};

/// Which course the child takes; its presence makes it the child.
const CHILD: &str = "BATON_TEST_CRASH_COURSE";
/// Where the child's state directory is.
const STATE: &str = "BATON_TEST_CRASH_STATE";
/// The child's exit code when what it does failed with a reason.
pub const FAILED_CLEANLY: i32 = 3;

/// What the member is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It creates a release and commits to it.
    Create,
    /// It goes on with one of which an earlier fetch has left something.
    Resume,
    /// It patches one into its spare tree.
    Patch,
    /// It patches one into a release that need not be kept.
    Recycle,
    /// It removes releases and makes a spare tree of one.
    Upkeep,
    /// It makes a spare tree by copying, and removes a release.
    Copy,
    /// It gets a new signed deploy, the papers and the secrets of a release, and a new credential.
    Papers,
}

impl Course {
    pub const ALL: [Self; 7] =
        [Self::Create, Self::Resume, Self::Patch, Self::Recycle, Self::Upkeep, Self::Copy, Self::Papers];

    /// Whether the oldest release may go.
    fn lets_go(self) -> bool {
        matches!(self, Self::Recycle | Self::Upkeep | Self::Copy)
    }
}

/// The releases of the scenes: the oldest, the committed one, the one that is to come, and the one after it.
pub struct Releases {
    store: MemoryStore,
    ids: [ReleaseId; 4],
}

/// They differ in everything that a patch can do: content, kind, mode, place, and directories that come and go.
fn tree(version: u8) -> Nodes {
    let mut tree = nodes(version);
    tree.insert(format!("dir{version}"), Node::Dir);
    tree.insert(format!("dir{version}/small"), file(&noise(version, 100)));
    tree.insert("changed".to_owned(), file(&noise(50 + version, 200)));
    tree.insert("link2".to_owned(), Node::Link(format!("dir{version}")));
    let kind = match version % 2 {
        0 => Node::Dir,
        _ => Node::File { executable: version % 4 == 1, content: b"same".to_vec() },
    };
    tree.insert("kind".to_owned(), kind);
    tree
}

/// Made once in each process, and with the same ids in all.
pub fn releases() -> &'static Releases {
    static RELEASES: OnceLock<Releases> = OnceLock::new();
    RELEASES.get_or_init(Releases::new)
}

/// The deploy that the member hears of.
const SEEN: Seen = Seen { epoch: Epoch(3), deploy: DeployId::from_bytes([3; 16]) };

impl Releases {
    fn new() -> Self {
        let store = MemoryStore::new();
        let ids = [1, 2, 3, 4].map(|version| {
            let mut manifest = (*push_nodes(&tree(version), &store).manifest).clone();
            // When it was made would give it another id in the child.
            manifest.provenance.created = 1;
            let text = manifest.to_text();
            plant_manifest(&store, id_of(&text), &text);
            id_of(&text)
        });
        Self { store, ids }
    }

    /// Fetches the new release, of which the last call of the store fails. The other member is like this one.
    fn fetch_in_part(&self, releases: &ReleasesDir, twin: &ReleasesDir) {
        let calls = self.store.calls();
        fetch(self.ids[2], &self.store, twin, &|_| {}).unwrap();
        self.store.fail_call(self.store.calls() - calls, Kind::Unavailable);
        fetch(self.ids[2], &self.store, releases, &|_| {}).unwrap_err();
    }
}

/// What the files hold before the course, and after it: of other lengths, and sorted so that the new ones come first.
const OLD: &str = "old, and longer";
const NEW: &str = "new";

/// The member gets all of it, in this order.
fn get_papers(member: &ReleasesDir, state: &Path, text: &str) -> Result<(), String> {
    let current = releases().ids[1];
    let papers = Papers { approvals: text.to_owned(), warrant: Some(text.to_owned()) };
    member.keep_warrant(text).map_err(|error| chain(&error))?;
    member.keep_papers(current, &papers).map_err(|error| chain(&error))?;
    member.keep_secrets(current, &Secret::new(text.to_owned())).map_err(|error| chain(&error))?;
    // As the bootloader keeps its credential, beside the releases.
    replace_private(&state.join("credential"), text.as_bytes()).map_err(|error| chain(&error))
}

/// What it has of all that, in the order in which it came; what only its owner may read nobody else may.
fn papers(member: &ReleasesDir, state: &Path) -> [String; 5] {
    let current = releases().ids[1];
    let Papers { approvals, warrant } = member.papers(current).unwrap();
    let secret = member.kept_secrets(current).unwrap().unwrap().reveal().to_owned();
    let credential = state.join("credential");
    assert_eq!(fs::metadata(&credential).unwrap().permissions().mode() & 0o7777, 0o600);
    let credential = fs::read_to_string(credential).unwrap();
    [member.warrant().unwrap().unwrap(), approvals, warrant.unwrap(), secret, credential]
}

/// A member, and the directory that it is in.
pub struct Scene {
    pub course: Course,
    pub state: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

impl Scene {
    /// A member that is about to take this course.
    pub fn new(course: Course) -> Self {
        // Not among temporary files, which may be in memory: there no spare tree is made by copying.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let state = dir.path().join("state");
        Self::prepare(course, &state);
        Self { course, state, _dir: Some(dir) }
    }

    /// The member in a directory that was prepared before.
    pub fn at(course: Course, state: &Path) -> Self {
        Self { course, state: state.to_owned(), _dir: None }
    }

    /// Brings the member to where it is about to take this course.
    pub fn prepare(course: Course, state: &Path) {
        let Releases { store, ids } = releases();
        let releases = open(state);
        for (id, epoch) in [(ids[0], 1), (ids[1], 2)] {
            fetch(id, store, &releases, &|_| {}).unwrap();
            releases.commit(id, Epoch(epoch)).unwrap();
        }
        match course {
            Course::Patch => {
                releases.keep(Keep { held: BTreeSet::from([ids[1]]), proven: 1 });
                assert_eq!(releases.upkeep().unwrap().spare, Some(ids[1]));
            }
            Course::Copy => {
                // Without stamps nothing is believed, and it is read.
                fs::remove_file(state.join(format!("releases/{}/laid-out", ids[0]))).unwrap();
            }
            // With a store of its own: others use the one of all.
            Course::Resume => {
                let twin = tempfile::tempdir().unwrap();
                Self::prepare(Course::Create, twin.path());
                Releases::new().fetch_in_part(&releases, &open(twin.path()));
            }
            Course::Papers => get_papers(&releases, state, OLD).unwrap(),
            Course::Create | Course::Recycle | Course::Upkeep => {}
        }
    }

    /// Runs the child with this fault at the n-th of these calls of any of its threads, and waits for its end.
    /// Tells how it ended, and whether the fault came.
    pub fn run(&self, calls: &str, fault: &str, n: usize) -> (ExitStatus, bool) {
        let mut child = self.spawn();
        let trace = tempfile::NamedTempFile::new().unwrap();
        let mut strace = Command::new("strace")
            .args(["-f", "-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{fault}:when={n}")])
            .arg("-o")
            .arg(trace.path())
            .args(["-p", &child.id().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test needs strace: apt-get install strace");
        let mut told = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        // It says "attached" when it is.
        while !line.contains("attached") {
            line.clear();
            assert!(told.read_line(&mut line).unwrap() > 0, "strace ended without attaching");
        }
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let ended = child.wait().unwrap();
        // What it goes on to say, nobody reads; it ends with what it traces.
        told.read_to_string(&mut line).unwrap();
        strace.wait().unwrap();
        // Killed does not mean gone: its last thread gives the lock back.
        let lock = fs::File::options().create(true).append(true).open(self.state.join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        flock(&lock, FlockOperation::Unlock).unwrap();
        let hit = ended.code().is_none() || fs::read_to_string(trace.path()).unwrap().contains("(INJECTED)");
        (ended, hit)
    }

    /// The child, which waits until it is told to go on. When it has said that it is there, all its threads are.
    fn spawn(&self) -> Child {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::scene::the_member", "--nocapture", "--test-threads=1"])
            .env(CHILD, Course::ALL.iter().position(|course| *course == self.course).unwrap().to_string())
            .env(STATE, &self.state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("waiting") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "the child ended before it began");
        }
        child
    }

    /// Whether all that the child was to do is done.
    pub fn is_done(&self) -> bool {
        let [oldest, current, new, _] = releases().ids;
        let member = open(&self.state);
        match self.course {
            Course::Upkeep | Course::Copy => {
                !member.has(oldest) && self.state.join(format!("spare/{current}")).is_dir()
            }
            Course::Papers => papers(&member, &self.state).iter().all(|text| text == NEW),
            Course::Create | Course::Resume | Course::Patch | Course::Recycle => {
                member.has(new)
                    && member.committed().unwrap() == Some(Committed { release: new, epoch: SEEN.epoch })
                    && member.seen().unwrap() == Some(SEEN)
            }
        }
    }

    /// What must hold after any crash, and that the member goes on from there.
    pub fn check(&self) -> Checked {
        let Releases { store, ids } = releases();
        let [oldest, current, new, next] = *ids;
        let member = open(&self.state);
        let here: Vec<bool> = ids.iter().map(|id| member.has(*id)).collect();
        let mut left = left(&self.state);
        // What the next fetch goes on from.
        left.retain(|left| *left != format!("staging/{new}"));
        assert_eq!(left.len(), here.iter().filter(|here| **here).count(), "nothing else is left");
        assert!(here[1] && !here[3] && (here[0] || self.course.lets_go()), "{here:?}");
        for (id, version) in ids.iter().zip(1..).filter(|(id, _)| member.has(**id)) {
            if self.course != Course::Copy || *id != oldest {
                member.verify_quick(*id).unwrap();
            }
            member.verify_full(*id).unwrap();
            assert_eq!(read(&member.path(*id)), tree(version));
        }
        let Committed { release: committed, epoch } = member.committed().unwrap().unwrap();
        assert!((committed, epoch) == (current, Epoch(2)) || (committed, epoch) == (new, SEEN.epoch));
        if self.course == Course::Papers {
            let found = papers(&member, &self.state);
            // One after the other, each whole: what came later is not there before what came first.
            assert!(found.iter().all(|text| text == OLD || text == NEW), "{found:?}");
            assert!(found.is_sorted(), "{found:?}");
        }
        let seen = member.seen().unwrap();
        assert!(seen == Some(SEEN) && here[2] || seen.is_none() && committed == current, "{seen:?}");

        // It goes on, also with what was half done.
        let mut resumed = false;
        for (id, version) in [(new, 3), (next, 4)] {
            let fetched = fetch(id, store, &member, &|_| {}).unwrap();
            resumed |= matches!(fetched.way, Way::Resumed { .. });
            member.verify(id).unwrap();
            assert_eq!(read(&member.path(id)), tree(version));
            member.keep(Keep { held: BTreeSet::from([committed, new]), proven: 0 });
            member.upkeep().unwrap();
        }
        Checked { arrived: here[2], resumed }
    }
}

/// What was found after a crash.
pub struct Checked {
    /// The new release had arrived.
    pub arrived: bool,
    /// It had in part, and the member went on from there.
    pub resumed: bool,
}

/// Not a test by itself: the member that is killed. It says by its exit code how it ended otherwise.
#[test]
fn the_member() {
    let Some(course) = std::env::var_os(CHILD) else { return };
    let course = Course::ALL[course.to_str().unwrap().parse::<usize>().unwrap()];
    let state = PathBuf::from(std::env::var_os(STATE).unwrap());
    let Releases { store, ids } = releases();
    // Where a kernel has no Yama, anybody of the same user may trace us anyway.
    let _ = set_ptracer(PTracer::Any);
    println!("waiting");
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).unwrap();
    let failed = |why: String| -> ! {
        // Nobody is told where that is the call that fails: strace counts the calls of each thread for itself.
        let _ = writeln!(std::io::stderr(), "{why}");
        std::process::exit(FAILED_CLEANLY)
    };
    let releases = ReleasesDir::open(&state).unwrap_or_else(|error| failed(chain(&error)));
    if course.lets_go() {
        releases.keep(Keep { held: BTreeSet::from([ids[1]]), proven: 0 });
    }
    match course {
        Course::Upkeep | Course::Copy => {
            releases.upkeep().unwrap_or_else(|error| failed(chain(&error)));
        }
        Course::Papers => get_papers(&releases, &state, NEW).unwrap_or_else(|why| failed(why)),
        Course::Create | Course::Resume | Course::Patch | Course::Recycle => {
            if let Err(error) = fetch(ids[2], store, &releases, &|_| {}) {
                assert!(matches!(error, FetchError::Disk(_)), "{}", chain(&error));
                failed(chain(&error));
            }
            releases.see(SEEN).unwrap_or_else(|error| failed(chain(&error)));
            releases.commit(ids[2], SEEN.epoch).unwrap_or_else(|error| failed(chain(&error)));
        }
    }
    std::process::exit(0);
}
