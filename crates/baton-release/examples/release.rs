//! What it costs a member to get a release, on a real tree: `make bench-release`.
//!
//! The store is in memory, so that the times are those of the member: its processor and its disk. Each change is measured
//! several times, each time as a new release on a member that has the one before and a spare tree.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on says so by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use baton_core::ids::{Epoch, ReleaseId};
use baton_core::run::RunSettings;
use baton_release::fetch::{Fetched, fetch};
use baton_release::push::{Source, push};
use baton_release::releases::{Keep, ReleasesDir};
use baton_release::store::memory::MemoryStore;

/// How often each change is measured.
const RUNS: usize = 9;

fn main() {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let tree = arguments.next().unwrap_or_else(|| "target/format/node".into());
    let upgrade = arguments.next().unwrap_or_else(|| "target/format/node-upgraded".into());
    let home = arguments.next().unwrap_or_else(|| "target/release-bench".into());
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    let source = home.join("source");
    run(Command::new("cp").arg("-a").arg(&tree).arg(&source));
    let all = files(&source);
    let bytes: u64 = all.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    println!("{} files, {:.1} MB\n", all.len(), bytes as f64 / 1e6);

    let mut member = Member::new(&home);
    println!("| | ms until it is on disk, median of {RUNS} (least to most) | and checked for the launch |");
    println!("| --- | --- | --- |");
    cold(&home, &source, &member);
    member.get(&source);
    member.settle();
    for (what, count) in [("one file", 1), ("twenty files", 20)] {
        let runs = (0..RUNS).map(|run| {
            edit(&all, count, run);
            let (_, took, checked) = member.get(&source);
            member.settle();
            (took, checked)
        });
        row(what, &runs.collect::<Vec<_>>());
    }
    let runs = (0..RUNS).map(|run| {
        let now = if run % 2 == 0 { &upgrade } else { &tree };
        run_copy(&now.join("node_modules/lodash"), &source.join("node_modules/"));
        let (_, took, checked) = member.get(&source);
        member.settle();
        (took, checked)
    });
    row("one dependency", &runs.collect::<Vec<_>>());
    println!("\nmost memory of this process, with the store: {} MiB", peak_mib());
    let _ = fs::remove_dir_all(&home);
}

/// A member with its store.
struct Member {
    store: MemoryStore,
    releases: ReleasesDir,
    epoch: u64,
}

impl Member {
    fn new(home: &Path) -> Self {
        let releases = ReleasesDir::open(&home.join("state")).unwrap();
        Self { store: MemoryStore::new(), releases, epoch: 0 }
    }

    /// Pushes, and measures the fetch and the check before the launch.
    fn get(&mut self, source: &Path) -> (Fetched, Duration, Duration) {
        let id = pushed(source, &self.store);
        let start = Instant::now();
        let fetched = fetch(id, &self.store, &self.releases, &|_| {}).unwrap();
        let took = start.elapsed();
        let start = Instant::now();
        self.releases.verify(id).unwrap();
        let checked = start.elapsed();
        self.epoch += 1;
        self.releases.commit(id, Epoch(self.epoch)).unwrap();
        (fetched, took, checked)
    }

    /// What a member does when nothing is urgent.
    fn settle(&self) {
        let held = self.releases.committed().unwrap().map(|committed| committed.release);
        self.releases.keep(Keep { held: held.into_iter().collect(), proven: 1 });
        self.releases.upkeep().unwrap();
        rustix::fs::sync();
    }
}

fn pushed(source: &Path, store: &MemoryStore) -> ReleaseId {
    let source = Source {
        dir: source.to_owned(),
        service: "web".parse().unwrap(),
        run: RunSettings::for_command(vec!["true".to_owned()]),
        builder: "bench".to_owned(),
    };
    push(&source, store, &|_| {}).unwrap().id
}

/// A member that has nothing, beside `tar` of the same tree, one after the other.
fn cold(home: &Path, source: &Path, member: &Member) {
    let id = pushed(source, &member.store);
    let archive = home.join("tree.tar.zst");
    run(Command::new("tar").arg("-C").arg(source).arg("-cf").arg(&archive).args(["-I", "zstd -3", "."]));
    let (mut ours, mut theirs, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let (state, out) = (home.join("cold"), home.join("out"));
        let releases = ReleasesDir::open(&state).unwrap();
        rustix::fs::sync();
        let start = Instant::now();
        fetch(id, &member.store, &releases, &|_| {}).unwrap();
        let took = start.elapsed();
        let start = Instant::now();
        releases.verify(id).unwrap();
        ours.push((took, start.elapsed()));
        drop(releases);
        fs::create_dir(&out).unwrap();
        rustix::fs::sync();
        let start = Instant::now();
        let script = format!("zstd -dc {} | tar -x -C {}", archive.display(), out.display());
        run(Command::new("sh").args(["-c", &script]));
        let unpacked = start.elapsed();
        rustix::fs::sync();
        theirs.push((unpacked, start.elapsed()));
        let start = Instant::now();
        run(Command::new("cp").arg("-al").arg(&out).arg(home.join("links")));
        links.push((start.elapsed(), start.elapsed()));
        [state, out, home.join("links")].iter().for_each(|dir| fs::remove_dir_all(dir).unwrap());
    }
    row("all of it", &ours);
    row("`zstd -dc \\| tar -x`; and `sync`", &theirs);
    row("`cp -al`", &links);
}

fn row(what: &str, runs: &[(Duration, Duration)]) {
    let told = |pick: fn(&(Duration, Duration)) -> Duration| {
        let mut sorted: Vec<f64> = runs.iter().map(|run| pick(run).as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        format!("{:.1} ({:.1} to {:.1})", sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
    };
    println!("| {what} | {} | {} |", told(|run| run.0), told(|run| run.1));
}

/// Adds a line in the middle of files that are far apart.
fn edit(all: &[PathBuf], count: usize, run: usize) {
    let texts: Vec<&PathBuf> = all
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "js"))
        .filter(|path| (2_000..20_000).contains(&fs::metadata(path).unwrap().len()))
        .collect();
    for path in texts.iter().skip(run).step_by(texts.len() / count).take(count) {
        let mut content = fs::read(path).unwrap();
        let middle = content.len() / 2;
        content.splice(middle..middle, format!("\n// line {run}\n").into_bytes());
        fs::write(path, content).unwrap();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => dirs.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn run_copy(from: &Path, into: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(into));
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}
