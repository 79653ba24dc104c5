//! Control groups, which limit what a container may use: of version 2, or of version 1 where the controller is there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::wait::wait_for;

/// Where they are mounted, and where the bootloader looks for its own.
const ALL: &str = "/sys/fs/cgroup";
/// In microseconds: of how much time a processor's share is one.
const PERIOD: u32 = 100_000;

/// A group of one controller. It goes with the value, when everybody in it has ended.
pub struct Group {
    folder: PathBuf,
    /// Which words its files are written in.
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A mounted hierarchy; where it had to be mounted, until it is dropped.
struct Freezer(tempfile::TempDir);

impl Group {
    /// A new one. A test that needs it fails without: it would show nothing.
    fn of(controller: &str) -> Self {
        let (folder, version) = hierarchy(controller);
        Self::beneath(&folder, version).unwrap_or_else(|error| {
            panic!(
                "cannot make a {controller} group beneath {}: {error}; run the tests as root where control groups may be \
                 made (in a container: with --privileged)",
                folder.display()
            )
        })
    }

    fn beneath(folder: &Path, version: Version) -> std::io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("baton-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = folder.join(name);
        fs::create_dir(&folder)?;
        Ok(Self { folder, version })
    }

    /// One that may use so much memory.
    pub fn of_memory(bytes: u64) -> Self {
        let group = Self::of("memory");
        group.limit_memory(bytes);
        group
    }

    /// From now on it may use so much memory.
    pub fn limit_memory(&self, bytes: u64) {
        self.set(self.word("memory.limit_in_bytes", "memory.max"), &bytes.to_string());
    }

    /// How much memory it uses.
    pub fn memory(&self) -> u64 {
        self.get(self.word("memory.usage_in_bytes", "memory.current")).parse().unwrap()
    }

    /// One whose share of a processor can be limited.
    pub fn of_processors() -> Self {
        Self::of("cpu")
    }

    /// From now on it gets so many microseconds in each tenth of a second; all there is, where nothing is said.
    pub fn limit_processors(&self, share: Option<u32>) {
        match self.version {
            Version::One => {
                self.set("cpu.cfs_period_us", &PERIOD.to_string());
                self.set("cpu.cfs_quota_us", &share.map_or("-1".to_owned(), |share| share.to_string()));
            }
            Version::Two => {
                let share = share.map_or("max".to_owned(), |share| share.to_string());
                self.set("cpu.max", &format!("{share} {PERIOD}"));
            }
        }
    }

    /// One whose processes and threads can be counted.
    pub fn of_processes() -> Self {
        Self::of("pids")
    }

    /// From now on it may have so many processes and threads; any number, where nothing is said.
    pub fn limit_processes(&self, most: Option<u32>) {
        self.set("pids.max", &most.map_or("max".to_owned(), |most| most.to_string()));
    }

    /// Whether somebody met the limit of processes.
    pub fn had_too_many_processes(&self) -> bool {
        self.get("pids.events") != "max 0"
    }

    fn word(&self, first: &'static str, second: &'static str) -> &'static str {
        if self.version == Version::One { first } else { second }
    }

    fn set(&self, file: &str, value: &str) {
        let path = self.folder.join(file);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn get(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap().trim().to_owned()
    }

    /// A program in this folder that joins the group and becomes another one.
    pub fn joined_by(&self, folder: &Path, program: &Path) -> PathBuf {
        let (path, group) = (folder.join("joined"), self.folder.join("cgroup.procs"));
        let (group, program) = (group.display(), program.display());
        fs::write(&path, format!("#!/bin/sh\necho $$ > {group} && exec {program} \"$@\"\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A command that joins the group and becomes what follows it.
    pub fn joined(&self) -> [String; 4] {
        let join = "echo $$ > \"$0\" && exec \"$@\"";
        ["sh".into(), "-c".into(), join.into(), self.folder.join("cgroup.procs").to_str().unwrap().into()]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Where groups of a controller are made.
fn hierarchy(controller: &str) -> (PathBuf, Version) {
    let all = Path::new(ALL);
    let first = all.join(controller);
    if first.join("cgroup.procs").exists() {
        return (first, Version::One);
    }
    let has = |file: &str| {
        let there = fs::read_to_string(all.join(file)).unwrap_or_default();
        there.split_ascii_whitespace().any(|one| one == controller)
    };
    assert!(
        has("cgroup.controllers"),
        "there is no {controller} controller at {ALL}, neither of version 2 nor of version 1: as root, \
         `scripts/setup test` mounts version 2 where nothing is mounted; else `mount -t cgroup -o {controller} \
         {controller} {ALL}/{controller}`"
    );
    if !has("cgroup.subtree_control") {
        let file = all.join("cgroup.subtree_control");
        fs::write(&file, format!("+{controller}")).unwrap_or_else(|error| {
            panic!(
                "cannot let groups have {controller}: {}: {error}; run the tests as root, on the machine itself",
                file.display()
            )
        });
    }
    (all.to_owned(), Version::Two)
}

/// A process that takes no signal, not even KILL, until the value is dropped. Only version 1 can do that; its freezer
/// can be mounted beside version 2.
pub struct Frozen {
    group: Group,
    _hierarchy: Option<Freezer>,
}

impl Frozen {
    /// Freezes a process.
    pub fn freeze(pid: i32) -> Self {
        let usual = Path::new(ALL).join("freezer");
        let mounted = (!usual.join("cgroup.procs").exists()).then(Freezer::mount);
        let folder = mounted.as_ref().map_or(usual, |freezer| freezer.0.path().to_owned());
        let group = Group::beneath(&folder, Version::One).unwrap_or_else(|error| {
            panic!("cannot make a freezer group beneath {}: {error}; run the tests as root", folder.display())
        });
        group.set("cgroup.procs", &pid.to_string());
        group.set("freezer.state", "FROZEN");
        wait_for("the frost", || (group.get("freezer.state") == "FROZEN").then_some(()));
        Self { group, _hierarchy: mounted }
    }

    /// It goes on, and hears what it was told meanwhile.
    pub fn thaw(&self) {
        self.group.set("freezer.state", "THAWED");
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Also after a failure: or it would stay.
        let _ = fs::write(self.group.folder.join("freezer.state"), "THAWED");
    }
}

impl Freezer {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let mounted =
            mount.args(["-t", "cgroup", "-o", "freezer", "freezer"]).arg(folder.path()).output().unwrap();
        assert!(
            mounted.status.success(),
            "cannot mount the freezer, with which a process is made unkillable: {}; run the tests as root, on a kernel \
             with CONFIG_CGROUP_FREEZER",
            String::from_utf8_lossy(&mounted.stderr).trim()
        );
        Self(folder)
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
