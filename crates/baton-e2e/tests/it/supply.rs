//! From where members get releases, as processes: from each other, a shared cache, a mirror.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::boot::Folder;
use crate::fleet::Fleet;
use crate::trips::Trips;
use crate::trust::Keys;
use crate::wait::{wait_for, wait_or_tell};

/// Content that cannot be compressed, in bytes.
const RELEASE_BYTES: usize = 8 << 20;
const QUICK: [&str; 6] = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "100ms"];

/// Bytes that look like chance: SplitMix64.
fn noise(seed: u64) -> Vec<u8> {
    let number = |n: u64| {
        let z = (seed << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    (0..RELEASE_BYTES as u64 / 8).flat_map(number).collect()
}

/// A worker whose data is new with every seed.
fn write(folder: &Folder, seed: u64) {
    folder.write("baton.toml", "service = \"worker\"\n[run]\ncommand = [\"sleep\", \"100000\"]\n");
    fs::write(folder.path().join("data"), noise(seed)).unwrap();
}

/// Deploys something new; returns how many times control has sent it.
fn deploys(fleet: &Fleet, seed: u64) -> f64 {
    let folder = Folder::empty();
    write(&folder, seed);
    let before = fleet.metric("baton_chunks_sent_bytes_total");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let release = fleet.release();
    assert!(fleet.members_now().iter().all(|member| member["running"] == release.as_str()));
    let times = (fleet.metric("baton_chunks_sent_bytes_total") - before) as f64 / RELEASE_BYTES as f64;
    println!("{times:.2} releases from the store for {} members", fleet.members.len());
    times
}

#[test]
fn f77_a_release_leaves_the_store_for_a_few_of_twenty_members() {
    const MEMBERS: usize = 20;
    let fleet = Fleet::of_workers_told("worker", MEMBERS, &[("BATON_PEERS", "127.0.0.1:0")]);
    for deploy in 1..=2 {
        let times = deploys(&fleet, deploy);
        assert!((1.0..4.0).contains(&times), "deploy {deploy}: {times:.2}");
    }
    let log = |member| fleet.log(&format!("worker-{member}"));
    let given = (0..MEMBERS).filter(|member| log(*member).contains("came from other members")).count();
    assert!(given >= MEMBERS - 4, "{given}");
}

#[test]
fn p24_a_member_with_keys_and_peers_needs_no_more_trips_than_one_without() {
    let keys = Keys::new();
    let mut fleet = Fleet::start_trusting(&keys.trusted(), "web", 0);
    let peers = ("BATON_PEERS", "127.0.0.1:0");
    fleet.add_member_told(&[peers]);
    let folder = Folder::with_example("python");
    assert_eq!(keys.deploy(&fleet, &folder, &["ci", "ada"], &[]), Some(0));
    let release = fleet.release();
    let front = Trips::before(fleet.control(), &["/outline", "/approvals", "/peers"]);
    let server = format!("http://{}", front.address);
    fleet.add_member_told(&[peers, ("BATON_SERVER", &server)]);
    let told = || format!("the second one to answer: {:?}\n{}", front.asked(), fleet.log("web-1"));
    wait_or_tell(told, || fleet.answers(1).filter(|answer| *answer == release));
    assert!(fleet.log("web-1").contains("came from other members"), "{}", fleet.log("web-1"));
    let asked = front.asked();
    assert!(asked.len() == 3 && asked.iter().all(|(_, before)| *before == 0), "all at once: {asked:?}");
}

#[test]
fn f74_what_a_store_has_lost_of_the_release_in_force_comes_back_from_its_members() {
    let mut fleet = Fleet::of_workers("worker", 2);
    let folder = Folder::empty();
    write(&folder, 1);
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let release = fleet.release();
    let lost: Vec<PathBuf> = ["packs", "manifests"]
        .iter()
        .flat_map(|name| fs::read_dir(fleet.path(&format!("control/artefacts/{name}"))).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    lost.iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_eq!(fleet.baton(&["releases", "verify"]).status.code(), Some(1));
    let would = fleet.baton(&["releases", "repair", "--dry-run"]);
    let told = String::from_utf8_lossy(&would.stdout).into_owned();
    assert!(would.status.success() && told.contains("worker/worker-0, worker/worker-1 have it"), "{told}");
    assert_eq!(fleet.baton(&["releases", "verify"]).status.code(), Some(1), "nothing was given back");
    let done = fleet.baton(&["releases", "repair"]);
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && told.contains("given back by worker/worker-0"), "{told}");
    assert_eq!(fleet.baton(&["releases", "verify"]).status.code(), Some(0), "{told}");
    // Whoever has nothing gets it from there.
    fleet.add_member();
    let runs = || {
        let members = fleet.members_now();
        let new = members.iter().find(|member| member["member"] == "worker-2")?;
        (new["running"] == release.as_str()).then_some(())
    };
    wait_for("the new member to run it", runs);
}

#[test]
fn the_members_of_a_host_share_one_download() {
    let cache = Folder::empty();
    let path = cache.path().join("cache");
    let fleet = Fleet::of_workers_told("worker", 4, &[("BATON_CACHE_DIR", path.to_str().unwrap())]);
    for deploy in 1..=2 {
        let times = deploys(&fleet, deploy);
        assert!((1.0..1.1).contains(&times), "deploy {deploy}: {times:.2}");
    }
}

#[test]
fn the_members_of_a_host_share_one_download_where_they_give_each_other_what_they_have() {
    let cache = Folder::empty();
    let path = cache.path().join("cache");
    let told = [("BATON_CACHE_DIR", path.to_str().unwrap()), ("BATON_PEERS", "127.0.0.1:0")];
    let fleet = Fleet::of_workers_told("worker", 4, &told);
    for deploy in 1..=2 {
        let times = deploys(&fleet, deploy);
        assert!((1.0..1.1).contains(&times), "deploy {deploy}: {times:.2}");
    }
}

#[test]
fn a_member_that_fetches_says_how_much_has_come_and_can_write_nowhere_else() {
    let (copy, held) = (Folder::empty(), Arc::new(Held::after(1)));
    let mirror = format!("http://{}", mirror(copy.path().join("artefacts"), Some(Arc::clone(&held))));
    let told = [("BATON_FETCH_LIMIT", "1MiB"), ("BATON_MIRRORS", mirror.as_str())];
    let fleet = Fleet::of_workers_told("worker", 1, &told);
    std::os::unix::fs::symlink(fleet.path("control/artefacts"), copy.path().join("artefacts")).unwrap();
    let folder = Folder::empty();
    write(&folder, 1);
    let member = || fleet.members_now()[0].clone();
    thread::scope(|scope| {
        let deploy = scope.spawn(|| fleet.deploy(&folder, &QUICK));
        // At this rate the first part takes longer than what is not worth telling; the others are held.
        let fetched = || member()["fetching"]["fetched_bytes"].as_u64().filter(|fetched| *fetched > 0);
        let fetched = wait_for("something to have come", fetched);
        let total = member()["fetching"]["total_bytes"].as_u64().unwrap();
        assert!((RELEASE_BYTES as u64..RELEASE_BYTES as u64 + 4096).contains(&total), "{total}");
        assert!(fetched < total, "{fetched}");
        assert_eq!(fleet.status()["fetching"], member()["fetching"], "one member is all of them");
        let table = fleet.baton(&["members", "--service", "worker"]);
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        assert!(table.contains("got ") && table.contains(" of 8.3 MB"), "{table}");
        // What the kernel allows those threads only where they can gain no rights by what they run.
        let (confined, free) = privileges(fleet.members[0].pid());
        assert!(confined > 0 && free > 0, "{confined} threads confined, {free} not");
        held.let_go();
        assert_eq!(deploy.join().unwrap(), Some(0));
    });
    assert!(member()["fetching"].is_null(), "{}", member());
    assert_eq!(privileges(fleet.members[0].pid()).0, 0, "nothing of it is left");
}

#[test]
fn f73_where_a_member_gets_nothing_the_rollout_goes_on_with_the_others() {
    let (copy, held) = (Folder::empty(), Arc::new(Held::after(0)));
    let mirror = format!("http://{}", mirror(copy.path().join("artefacts"), Some(Arc::clone(&held))));
    let mut fleet = Fleet::of_workers("worker", 3);
    fleet.add_member_told(&[("BATON_MIRRORS", mirror.as_str())]);
    std::os::unix::fs::symlink(fleet.path("control/artefacts"), copy.path().join("artefacts")).unwrap();
    wait_for("four members", || (fleet.members_now().len() == 4).then_some(()));
    let folder = Folder::empty();
    write(&folder, 1);
    thread::scope(|scope| {
        let deploy = scope.spawn(|| fleet.deploy(&folder, &QUICK));
        let members = wait_for("the others to have proven it", || {
            let members = fleet.members_now();
            let proven = members.iter().filter(|member| member["standing"] == "proven").count();
            (proven == 3).then_some(members)
        });
        let last = members.iter().find(|member| member["member"] == "worker-3").unwrap();
        assert!(last["running"].is_null(), "it waits for the mirror: {last}");
        held.let_go();
        assert_eq!(deploy.join().unwrap(), Some(0));
    });
}

/// How many threads of a process can gain no rights, and how many can.
fn privileges(pid: u32) -> (usize, usize) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let statuses: Vec<String> = tasks.flatten().filter_map(status).collect();
    let confined = statuses.iter().filter(|status| status.contains("NoNewPrivs:\t1")).count();
    (confined, statuses.len() - confined)
}

/// Large answers that are held back.
struct Held {
    allowed: Mutex<usize>,
    more: Condvar,
}

impl Held {
    /// All but so many.
    fn after(count: usize) -> Self {
        Self { allowed: Mutex::new(count), more: Condvar::new() }
    }

    fn pass(&self) {
        let allowed = self.allowed.lock().unwrap();
        *self.more.wait_while(allowed, |allowed| *allowed == 0).unwrap() -= 1;
    }

    fn let_go(&self) {
        *self.allowed.lock().unwrap() = usize::MAX;
        self.more.notify_all();
    }
}

/// A web server over a folder that knows ranges, and nothing else.
fn mirror(folder: PathBuf, held: Option<Arc<Held>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (folder, held) = (folder.clone(), held.clone());
            thread::spawn(move || answer(&folder, held.as_deref(), &stream));
        }
    });
    address
}

fn answer(folder: &Path, held: Option<&Held>, mut stream: &TcpStream) {
    let lines: Vec<String> =
        BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let Some(path) = lines.first().and_then(|line| line.strip_prefix("GET /")?.split(' ').next()) else {
        return;
    };
    let range =
        lines.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let Some((start, last)) = range.as_ref().and_then(|range| range.split_once('-')) else { return };
    let (start, last): (usize, usize) = (start.parse().unwrap(), last.parse().unwrap());
    let Ok(file) = fs::read(folder.join(path)) else {
        let _ = stream.write_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let part = &file[start..=last];
    if let Some(held) = held.filter(|_| part.len() > 1 << 20) {
        held.pass();
    }
    let head = format!(
        "HTTP/1.1 206 X\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{last}/{}\r\nConnection: close\r\n\r\n",
        part.len(),
        file.len()
    );
    // Who asked may have gone.
    let _ = stream.write_all(&[head.as_bytes(), part].concat());
}

#[test]
fn f73_what_a_mirror_has_does_not_come_from_the_store_and_without_it_everything_does() {
    let copy = Folder::empty();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let here = mirror(copy.path().join("artefacts"), None);
    let mirrors = format!("http://{nobody},http://{here}");
    let fleet = Fleet::of_workers_told("worker", 2, &[("BATON_MIRRORS", &mirrors)]);
    std::os::unix::fs::symlink(fleet.path("control/artefacts"), copy.path().join("artefacts")).unwrap();
    let times = deploys(&fleet, 1);
    assert!(times < 0.1, "{times:.2}");
    assert!(fleet.log("worker-0").contains(&format!("the mirror http://{nobody} is not asked for a minute")));
    fs::remove_file(copy.path().join("artefacts")).unwrap();
    let times = deploys(&fleet, 2);
    assert!((2.0..2.1).contains(&times), "{times:.2}");
}
