//! The power goes at a system call: what is on the disk then is all that there is.
//!
//! The member's directory is an ext4 file system in a file. When the member is killed, the file is copied before anything
//! else is written to it: what the kernel had only in memory is lost, as with the power.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use baton_release::fetch::fetch;
use baton_release::store::memory::MemoryStore;

use super::scene::{Course, Scene};
use super::{each_point, least};
use crate::sample::{Node, chain, nodes, open, push_nodes};

/// How long others may keep a file system busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// An ext4 file system in a file, mounted until this is dropped.
struct Disk {
    mounted: PathBuf,
}

impl Disk {
    fn mount(image: &Path, at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at));
        Self { mounted: at.to_owned() }
    }

    fn state(&self) -> PathBuf {
        self.mounted.join("state")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The loop device goes with its mount. A child that another test is about to start may have our files open until
        // it is another program.
        let until = Instant::now() + PATIENCE;
        let unmount = || Command::new("umount").arg(&self.mounted).output();
        while !unmount().is_ok_and(|output| output.status.success()) && Instant::now() < until {}
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("--sparse=always").arg(from).arg(to));
}

/// Whether this machine lets us mount a file.
fn can_mount() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image);
    let at = dir.path().join("at");
    std::fs::create_dir(&at).unwrap();
    let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at).output();
    let can = mounted.is_ok_and(|output| output.status.success());
    if can {
        run(Command::new("umount").arg(&at));
    }
    can
}

fn format(image: &Path) {
    std::fs::File::create_new(image).unwrap().set_len(64 << 20).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image));
}

#[test]
fn f43_a_bit_that_flips_beneath_the_file_system_is_found_before_the_launch() {
    if !rustix::process::geteuid().is_root() || !can_mount() {
        println!("not run: who mounts a file system must be root, and there must be a loop device");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, at) = (dir.path().join("image"), dir.path().join("at"));
    format(&image);
    let (store, tree) = (MemoryStore::new(), nodes(1));
    let id = push_nodes(&tree, &store).id;
    {
        let disk = Disk::mount(&image, &at);
        fetch(id, &store, &open(&disk.state()), &|_| {}).unwrap();
    }
    let Node::File { content, .. } = &tree["lib/data"] else { panic!("it is a file") };
    let mut disk = std::fs::read(&image).unwrap();
    // The first block of it lies in one piece.
    let (block, _) = content.split_at(4096);
    let offset = place_of(&disk, block).unwrap();
    disk[offset + 100] ^= 1;
    std::fs::write(&image, disk).unwrap();

    let disk = Disk::mount(&image, &at);
    let releases = open(&disk.state());
    releases.verify_quick(id).unwrap();
    let found = releases.verify(id).unwrap_err();
    assert!(chain(&found).contains("lib/data has another content"), "{}", chain(&found));
    fetch(id, &store, &releases, &|_| {}).unwrap();
    releases.verify(id).unwrap();
}

/// Where these bytes are, which begin a block.
fn place_of(disk: &[u8], block: &[u8]) -> Option<usize> {
    (0..disk.len()).step_by(1024).find(|at| disk[*at..].starts_with(block))
}

#[test]
fn f42_without_power_at_any_call_a_member_has_the_old_releases_or_the_new_one_too() {
    if !rustix::process::geteuid().is_root() || !can_mount() {
        println!("not run: who mounts a file system must be root, and there must be a loop device");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ready = |course: Course| dir.path().join(format!("{course:?}"));
    for course in Course::ALL {
        format(&ready(course));
        let disk = Disk::mount(&ready(course), &dir.path().join("disk"));
        Scene::prepare(course, &disk.state());
        rustix::fs::syncfs(std::fs::File::open(&disk.mounted).unwrap()).unwrap();
    }
    let (mut before, mut after) = (0, 0);
    let (running, cut) = (dir.path().join("running"), dir.path().join("cut"));
    let tried = each_point(|course, calls, n| {
        copy(&ready(course), &running);
        let hit = {
            let disk = Disk::mount(&running, &dir.path().join("disk"));
            let (ended, hit) = Scene::at(course, &disk.state()).run(calls, "signal=KILL", n);
            assert!(hit || ended.success(), "{course:?} {calls} {n}: {ended:?}");
            copy(&running, &cut);
            hit
        };
        let disk = Disk::mount(&cut, &dir.path().join("after"));
        match Scene::at(course, &disk.state()).check().arrived {
            true => after += 1,
            false => before += 1,
        }
        hit
    });
    println!("power cut at {tried} points");
    assert!(
        before > 0 && after > 0 && tried >= least(10),
        "{tried} points, {before} before the release was there"
    );
}
