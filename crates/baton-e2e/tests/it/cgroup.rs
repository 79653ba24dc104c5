//! Control groups, which limit what a container may use. They need root, and a kernel that has them (version 1).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A group of one controller. It goes with the value, when everybody in it has ended.
pub struct Group(PathBuf);

impl Group {
    /// A new one; none, and a word about it, where none can be made.
    pub fn of(controller: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("baton-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = PathBuf::from("/sys/fs/cgroup").join(controller).join(name);
        match fs::create_dir(&folder) {
            Ok(()) => Some(Self(folder)),
            Err(error) => {
                eprintln!("not run: no {controller} group can be made here: {error}");
                None
            }
        }
    }

    pub fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap();
    }

    pub fn get(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap().trim().to_owned()
    }

    /// A program in this folder that joins the group and becomes another one.
    pub fn joined_by(&self, folder: &Path, program: &Path) -> PathBuf {
        let (path, group) = (folder.join("joined"), self.0.join("cgroup.procs"));
        let (group, program) = (group.display(), program.display());
        fs::write(&path, format!("#!/bin/sh\necho $$ > {group} && exec {program} \"$@\"\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A command that joins the group and becomes what follows it.
    pub fn joined(&self) -> [String; 4] {
        let join = "echo $$ > \"$0\" && exec \"$@\"";
        ["sh".into(), "-c".into(), join.into(), self.0.join("cgroup.procs").to_str().unwrap().into()]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
