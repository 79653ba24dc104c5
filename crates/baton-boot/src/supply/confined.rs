//! The thread that brings a release to disk, kept by the kernel from writing anywhere else.
//!
//! The paths of a release are checked, and resolved beneath a directory handle. This is for the mistake in that which nobody has
//! found yet: by [Landlock](https://docs.kernel.org/userspace-api/landlock.html) that thread and those that it starts can create,
//! change, rename and remove nothing outside of the directories that are for it, can make no devices, and run nothing. They share
//! the memory of the bootloader, so it is no wall against code that was taken over.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, path_beneath_rules,
};

use crate::log;

/// The newest rights that are taken away where the kernel knows them; an older one takes away what it knows.
const KNOWN: ABI = ABI::V5;

/// Where a release may be laid out.
pub(super) struct Confinement {
    writable: Vec<PathBuf>,
    /// It was told that there is none.
    told: AtomicBool,
}

impl Confinement {
    /// To these directories.
    pub(super) fn to(writable: impl Iterator<Item = PathBuf>) -> Self {
        Self { writable: writable.collect(), told: AtomicBool::new(false) }
    }

    /// Does this on a thread that can write nowhere else, as far as the kernel can see to that.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let confined = || {
            let without = match self.enter() {
                Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => None,
                Ok(RulesetStatus::NotEnforced) => {
                    Some("the kernel has none, or one older than Linux 5.19".to_owned())
                }
                Err(error) => Some(log::chain(&error)),
            };
            if let Some(why) = without
                && !self.told.swap(true, Ordering::Relaxed)
            {
                log::say(format_args!("releases are laid out without Landlock: {why}"));
            }
            work()
        };
        // A thread never gets its rights back, so it is for this only.
        thread::scope(|scope| match scope.spawn(confined).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Gives up for this thread what is not needed.
    fn enter(&self) -> Result<RulesetStatus, RulesetError> {
        // A kernel that cannot allow a move to another directory (before Linux 5.19) allows none to whoever is confined. But
        // that is how a release is laid out, so nothing is confined there.
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::SoftRequirement)
            .handle_access(AccessFs::Refer)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))?
            .create()?;
        let rules = rules
            .add_rules(path_beneath_rules(["/"], AccessFs::from_read(KNOWN) & !AccessFs::Execute))?
            .add_rules(path_beneath_rules(&self.writable, needed()))?;
        Ok(rules.restrict_self()?.ruleset)
    }
}

/// What laying out takes: files, directories and links are created, moved and removed.
fn needed() -> BitFlags<AccessFs> {
    let never = AccessFs::Execute
        | AccessFs::MakeChar
        | AccessFs::MakeBlock
        | AccessFs::MakeFifo
        | AccessFs::MakeSock
        | AccessFs::IoctlDev;
    AccessFs::from_all(KNOWN) & !never
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::ErrorKind;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "nothing is started, and that is what is tested")]
    fn p26_what_lays_out_can_write_nowhere_else_and_others_can() {
        let dir = tempfile::tempdir().unwrap();
        let [inside, other, outside] = ["inside", "other", "outside"].map(|name| dir.path().join(name));
        [&inside, &other, &outside].iter().for_each(|path| fs::create_dir(path).unwrap());
        fs::write(outside.join("there"), "x").unwrap();
        let confinement = Confinement::to([inside.clone(), other.clone()].into_iter());
        let enforced = thread::scope(|scope| scope.spawn(|| confinement.enter().unwrap()).join().unwrap());
        assert_ne!(enforced, RulesetStatus::NotEnforced, "this kernel has no Landlock");
        confinement.run(|| {
            let denied = |done: std::io::Result<()>| {
                assert_eq!(done.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            fs::write(inside.join("new"), "x").unwrap();
            fs::rename(inside.join("new"), other.join("moved")).unwrap();
            std::os::unix::fs::symlink("moved", other.join("link")).unwrap();
            assert_eq!(fs::read(outside.join("there")).unwrap(), b"x");
            denied(fs::write(outside.join("new"), "x"));
            denied(fs::write(outside.join("there"), "y"));
            denied(fs::remove_file(outside.join("there")));
            denied(fs::create_dir(outside.join("dir")));
            std::os::unix::fs::symlink(&outside, inside.join("out")).unwrap();
            denied(fs::write(inside.join("out/new"), "x"));
            denied(std::process::Command::new("/bin/true").status().map(drop));
            // And so are those that it starts.
            thread::scope(|scope| {
                scope.spawn(|| denied(fs::write(outside.join("new"), "x"))).join().unwrap();
            });
        });
        fs::write(outside.join("new"), "x").unwrap();
    }
}
