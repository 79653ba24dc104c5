//! Control groups, which limit what a container may use. They need root, and a kernel that has them (version 1).

use std::fs;
use std::path::PathBuf;
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
