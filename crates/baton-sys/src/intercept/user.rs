//! Reading another user's process without `CAP_SYS_PTRACE`, which containers rarely have: with that user's file
//! system ids, which is what `/proc` asks for (`CAP_SETUID` and `CAP_SETGID`, which containers mostly have).
//!
//! Only these two ids change, and only those of the calling thread. The real and effective ones stay, so the
//! program can neither signal nor trace this process meanwhile.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};

use super::told::Ids;

/// The kernel makes the *process* undumpable when a thread changes its ids. Two threads that put that right at
/// the same time would each take the other's value for the first one.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// While it lives, this thread opens files as somebody else.
#[derive(Debug)]
pub(super) struct AsUser {
    before: Ids,
    dumpable: io::Result<DumpableBehavior>,
    _alone: MutexGuard<'static, ()>,
}

impl AsUser {
    /// Becomes this user.
    ///
    /// # Errors
    /// `PermissionDenied` if this process may not.
    pub(super) fn become_user(ids: Ids) -> io::Result<Self> {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dumpable = dumpable_behavior().map_err(Into::into);
        // The group first: as another user it could not be changed any more.
        let group = set(libc::SYS_setfsgid, ids.group);
        let user = set(libc::SYS_setfsuid, ids.user);
        let become_it = Self { before: Ids { user, group }, dumpable, _alone: alone };
        // The calls tell no errors, only what was set before.
        let now = Ids { user: get(libc::SYS_setfsuid), group: get(libc::SYS_setfsgid) };
        if now == ids { Ok(become_it) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        set(libc::SYS_setfsuid, self.before.user);
        set(libc::SYS_setfsgid, self.before.group);
        if let Ok(dumpable) = self.dumpable {
            // Fails for the one value that only the kernel sets: that is what it is now.
            let _ = set_dumpable_behavior(dumpable);
        }
    }
}

/// Sets an id for this thread alone, and returns the one before. Not by the C library, whose idea of ids is that
/// of the whole process.
fn set(call: libc::c_long, id: u32) -> u32 {
    // SAFETY: a system call that takes a number and touches no memory.
    unsafe { libc::syscall(call, id) as u32 }
}

/// The id now: nobody can have the one that is asked for.
fn get(call: libc::c_long) -> u32 {
    set(call, u32::MAX)
}
