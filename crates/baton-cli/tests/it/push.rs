//! Pushes that are killed and go on, and pushes at once: real processes, at moments that are chosen.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use baton_core::ids::ReleaseId;
use baton_release::fetch::fetch;
use baton_release::releases::ReleasesDir;
use baton_release::remote::Remote;
use baton_wire::api::ReleaseView;
use tempfile::TempDir;

use crate::control::Control;
use crate::program::{Ran, baton, run};
use crate::story::sample_project;
use crate::wait::wait_for;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
/// How long each file of the projects here is: a pack holds a few of them.
const FILE_BYTES: usize = 2_000_000;

/// A project with these files, none of which can be compressed.
fn project(files: &[u32]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    sample_project(dir.path());
    for seed in files {
        let mut noise = seed.wrapping_mul(0x9e37_79b9) | 1;
        let content = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            noise.to_le_bytes()
        });
        let content: Vec<u8> = content.take(FILE_BYTES / 4).flatten().collect();
        fs::write(dir.path().join(seed.to_string()), content).unwrap();
    }
    dir
}

/// The address of something in front of control that does this before it passes on a pack, the n-th from 0.
fn in_front(control: &Control, before_pack: impl Fn(usize) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = control.url.strip_prefix("http://").unwrap().to_owned();
    let shared = Arc::new((server, before_pack, AtomicUsize::new(0)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (server, before_pack, packs) = &*shared;
                let before = |line: &str| {
                    if line.starts_with("PUT /v1/packs/") {
                        before_pack(packs.fetch_add(1, Ordering::Relaxed));
                    }
                };
                // Who was killed does not read its answer.
                let _ = pass(&stream.unwrap(), server, before);
            });
        }
    });
    url
}

/// Passes one request on, and its answer back.
fn pass(mut client: &TcpStream, server: &str, before: impl Fn(&str)) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        match lower.split(':').next() {
            Some("connection") => {}
            Some("host") => head.push_str(&format!("Host: {server}\r\n")),
            Some(_) | None => head.push_str(&line),
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    before(&head);
    let mut upstream = TcpStream::connect(server)?;
    upstream.write_all(&[format!("{head}Connection: close\r\n\r\n").as_bytes(), &body].concat())?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    client.write_all(&answer)
}

/// What a push printed.
fn pushed(ran: &Ran) -> (ReleaseId, u64, u64) {
    assert_eq!(ran.code, 0, "{ran:?}");
    let view = ran.json();
    let number = |name: &str| view[name].as_u64().unwrap();
    (view["id"].as_str().unwrap().parse().unwrap(), number("bytes"), number("bytes_new"))
}

/// A member gets all of a release.
fn must_be_whole(id: ReleaseId, control: &Control) {
    let dir = tempfile::tempdir().unwrap();
    let releases = ReleasesDir::open(dir.path()).unwrap();
    fetch(id, &Remote::new(&control.url), &releases, &|_| {}).unwrap();
    releases.verify_full(id).unwrap();
}

fn known(dir: &Path, control: &Control) -> BTreeSet<ReleaseId> {
    let ran = run(dir, &control.url, &["releases", "--output", "json"]);
    let views: Vec<ReleaseView> = serde_json::from_str(&ran.stdout).unwrap();
    views.iter().map(|view| view.id.parse().unwrap()).collect()
}

/// How much the chunks in packs are together, by their indexes, each counted once.
fn content(packs: &Path) -> u64 {
    let mut chunks = BTreeSet::new();
    for pack in fs::read_dir(packs).unwrap() {
        let bytes = fs::read(pack.unwrap().path()).unwrap();
        let index = String::from_utf8_lossy(&bytes).into_owned();
        let lines = index.lines().take_while(|line| !line.starts_with("data "));
        chunks.extend(lines.filter_map(|line| line.strip_prefix("chunk ")).map(str::to_owned));
    }
    let bytes = |line: &String| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    chunks.iter().map(bytes).sum()
}

#[test]
fn f76_a_push_that_was_killed_goes_on_with_what_is_missing() {
    const ARRIVED: usize = 2;
    let (data, project) = (tempfile::tempdir().unwrap(), project(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
    let control = Control::start(data.path());
    let (more, reached) = mpsc::channel();
    let url = in_front(&control, move |pack| {
        if pack >= ARRIVED {
            more.send(()).unwrap();
            // It never arrives.
            loop {
                thread::park();
            }
        }
    });
    let mut push = baton(project.path(), &url, &["push"]).spawn().unwrap();
    reached.recv_timeout(LIMIT).unwrap();
    let packs = data.path().join("artefacts/packs");
    let arrived = || fs::read_dir(&packs).unwrap().count() == ARRIVED;
    wait_for("the packs that were passed on", || arrived().then_some(()));
    push.kill().unwrap();
    assert_eq!(push.wait().unwrap().signal(), Some(9));
    assert_eq!(known(project.path(), &control), BTreeSet::new(), "nothing is known of it");

    let there = content(&packs);
    let (id, bytes, bytes_new) = pushed(&run(project.path(), &control.url, &["push", "--output", "json"]));
    assert!(there > 0 && bytes_new > 0);
    assert_eq!(bytes_new, bytes - there, "what has arrived does not travel again");
    must_be_whole(id, &control);
}

/// Two pushes, both of which have asked what is missing before either has brought anything.
fn at_once(control: &Control, projects: [&TempDir; 2]) -> [ReleaseId; 2] {
    let both = Arc::new(Barrier::new(2));
    let pushes = projects.map(|project| {
        let both = Arc::clone(&both);
        let url = in_front(control, move |pack| {
            if pack == 0 {
                both.wait();
            }
        });
        baton(project.path(), &url, &["push", "--output", "json"]).spawn().unwrap()
    });
    pushes.map(|push| pushed(&push.wait_with_output().unwrap().into()).0)
}

#[test]
fn f76_two_pushes_at_once_of_one_release_and_of_two_that_share_most_are_whole() {
    let (data, first) = (tempfile::tempdir().unwrap(), project(&[1, 2, 3, 4]));
    let control = Control::start(data.path());
    let [one, same] = at_once(&control, [&first, &first]);
    assert_eq!(one, same);
    assert_eq!(known(first.path(), &control), BTreeSet::from([one]));
    must_be_whole(one, &control);

    let [left, right] = [project(&[5, 6, 7, 8]), project(&[6, 7, 8, 9])];
    let ids = at_once(&control, [&left, &right]);
    assert_ne!(ids[0], ids[1]);
    ids.iter().for_each(|id| must_be_whole(*id, &control));
    assert_eq!(known(first.path(), &control), BTreeSet::from([one, ids[0], ids[1]]));
}
