//! What a push costs that has nothing or one file to bring, beside walking the directory: `push DIR FILE`.
//!
//! Rounds of each, one after the other, so that what the machine does besides hits all. A line is added to the file, and taken
//! back at the end.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on says so by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use baton_core::run::RunSettings;
use baton_release::push::{Prepared, Reading, Source, Step, Wanted, prepare};
use baton_release::store::memory::MemoryStore;

/// How many rounds.
const ROUNDS: usize = 21;

fn main() {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (dir, file) = (arguments.next().unwrap(), arguments.next().unwrap());
    let (caches, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let push = || drop(read(&dir, caches.path()).0.send(&store, &|_| {}).unwrap());
    let cold = timed(push);
    // Until what the directory was made by is long enough ago to be remembered.
    while read(&dir, caches.path()).1 > 0 {}

    let mut times: [Vec<Duration>; 4] = Default::default();
    let content = fs::read(&file).unwrap();
    for round in 0..ROUNDS {
        times[0].push(timed(|| assert!(walk(&dir) > 0)));
        times[1].push(timed(|| drop(read(&dir, caches.path()))));
        times[2].push(timed(push));
        fs::write(&file, [content.as_slice(), format!("\n// {round}\n").as_bytes()].concat()).unwrap();
        times[3].push(timed(push));
    }
    fs::write(&file, content).unwrap();
    println!("{} files, {cold:.0?} for the first push", walk(&dir));
    for (what, mut times) in
        ["walk on one thread", "read", "push of nothing new", "push of one file"].iter().zip(times)
    {
        times.sort_unstable();
        println!("{what}: {:.1?} ({:.1?} to {:.1?})", times[ROUNDS / 2], times[0], times[ROUNDS - 1]);
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Looks at everything in a directory; tells how many files there are.
fn walk(dir: &Path) -> usize {
    let look = |entry: std::io::Result<fs::DirEntry>| {
        let (entry, found) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))).unwrap();
        if found.is_dir() { walk(&entry) } else { usize::from(found.is_file()) }
    };
    fs::read_dir(dir).unwrap().map(look).sum()
}

/// Reads a directory; tells also how many bytes of it had to be read.
fn read(dir: &Path, caches: &Path) -> (Prepared, u64) {
    let source = Source {
        dir: dir.to_owned(),
        service: "web".parse().unwrap(),
        run: RunSettings::for_command(vec!["true".to_owned()]),
        builder: "bench".to_owned(),
    };
    // What ignore files exclude is wanted here.
    let wanted = Wanted { include: vec!["*".to_owned()], ..Wanted::default() };
    let reading = Reading { wanted, stat_caches: Some(caches.to_owned()), portable: false };
    let bytes = AtomicU64::new(0);
    let prepared = prepare(&source, &reading, &|step| {
        if let Step::Cut { bytes: more } = step {
            bytes.fetch_add(more, Ordering::Relaxed);
        }
    });
    (prepared.unwrap(), bytes.into_inner())
}
