//! What of its process a program is given: its user, its limits, its priority.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Attributes of a process. What is not set stays as it is in this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Who it runs as.
    pub user: Option<User>,
    /// The permissions that new files do not get (`man 2 umask`).
    pub umask: Option<u32>,
    /// -20 to 19, the more the later it gets its turn (`man 2 setpriority`).
    pub nice: Option<i32>,
    /// How soon the kernel ends it when memory runs out, -1000 to 1000 (`man 5 proc`). What cannot be had, a value
    /// below that of a privileged process above us, is not.
    pub oom_score_adj: Option<i16>,
    /// Limits, hard and soft alike (`man 2 setrlimit`).
    pub limits: Vec<(Limit, u64)>,
}

/// A limited resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Open files.
    Files,
    /// Processes of the user.
    Processes,
    /// Bytes of a core dump.
    CoreDump,
    /// Bytes of memory that is locked.
    LockedMemory,
    /// Bytes of the main thread's stack.
    Stack,
}

/// No limit at all (`RLIM_INFINITY`).
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

/// A user by its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Other groups that it is in.
    pub groups: Vec<u32>,
    /// What it is called and where it is at home, if the system knows it.
    pub known_as: Option<(OsString, PathBuf)>,
}

/// The steps that can fail, as they are named in errors.
pub(crate) const STEPS: [&str; 5] = ["setrlimit", "setpriority", "setgroups", "setgid", "setuid"];

impl Attributes {
    /// Gives them to this process, and tells which step failed; `errno` tells why.
    ///
    /// # Safety
    /// Only in the child that is to become the program. Allocates nothing and makes only system calls: those for ids
    /// are made directly, since the C library's would change the parent's threads as well.
    pub(crate) unsafe fn apply(&self) -> Result<(), u8> {
        // SAFETY: plain system calls on values that are alive.
        unsafe {
            for (limit, value) in &self.limits {
                let value = libc::rlimit { rlim_cur: *value, rlim_max: *value };
                if libc::setrlimit(limit.resource(), &raw const value) < 0 {
                    return Err(0);
                }
            }
            if let Some(nice) = self.nice
                && libc::setpriority(libc::PRIO_PROCESS, 0, nice) < 0
            {
                return Err(1);
            }
            if let Some(score) = self.oom_score_adj {
                set_oom_score_adj(score);
            }
            if let Some(umask) = self.umask {
                libc::umask(umask);
            }
            let Some(user) = &self.user else { return Ok(()) };
            if libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) < 0 {
                return Err(2);
            }
            if libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid) < 0 {
                return Err(3);
            }
            if libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid) < 0 {
                return Err(4);
            }
            Ok(())
        }
    }
}

/// Sets it for this process, without allocating.
///
/// # Safety
/// Any time: plain system calls on values of its own.
unsafe fn set_oom_score_adj(score: i16) {
    let mut text = [0u8; 6];
    let mut start = text.len();
    let mut rest = score.unsigned_abs();
    while rest > 0 || start == text.len() {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    if score < 0 {
        start -= 1;
        text[start] = b'-';
    }
    let text = &text[start..];
    // SAFETY: the path ends with a zero byte, and the text is alive.
    unsafe {
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, text.as_ptr().cast(), text.len());
            libc::close(file);
        }
    }
}

impl Limit {
    // The type of a resource is another one in each C library.
    #[cfg(target_env = "gnu")]
    fn resource(self) -> libc::__rlimit_resource_t {
        self.number() as libc::__rlimit_resource_t
    }

    #[cfg(not(target_env = "gnu"))]
    fn resource(self) -> libc::c_int {
        self.number()
    }

    fn number(self) -> libc::c_int {
        let number = match self {
            Self::Files => libc::RLIMIT_NOFILE,
            Self::Processes => libc::RLIMIT_NPROC,
            Self::CoreDump => libc::RLIMIT_CORE,
            Self::LockedMemory => libc::RLIMIT_MEMLOCK,
            Self::Stack => libc::RLIMIT_STACK,
        };
        number as libc::c_int
    }
}

/// Why a user cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Nobody is called that.
    #[error("there is no user {0:?} on this system; write its number, or add it to /etc/passwd")]
    NoUser(String),
    /// No group is called that.
    #[error("there is no group {0:?} on this system; write its number, or add it to /etc/group")]
    NoGroup(String),
    /// The system's lists cannot be read.
    #[error("cannot look up {0:?}")]
    Lookup(String, #[source] io::Error),
}

impl User {
    /// The user with this name or number and, where one is given, this group instead of its own. A number that
    /// the system does not know has the group with the same number, and no others.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, UserError> {
        let known = known_user(user)?;
        let number = user.parse::<u32>().ok();
        let (uid, own) = match (&known, number) {
            (Some(known), _) => (known.uid, known.gid),
            (None, Some(uid)) => (uid, uid),
            (None, None) => return Err(UserError::NoUser(user.to_owned())),
        };
        let gid = group.map_or(Ok(own), find_group)?;
        let groups = known.as_ref().map_or_else(|| vec![gid], |known| groups_of(&known.name, gid));
        let known_as = known.map(|known| (OsStr::from_bytes(known.name.as_bytes()).to_owned(), known.home));
        Ok(Self { uid, gid, groups, known_as })
    }

    /// Whether this process is that user already: then nothing has to be changed, which only root could.
    pub fn is_us(&self) -> bool {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        !uid.is_root() && uid.as_raw() == self.uid && gid.as_raw() == self.gid
    }
}

/// A user as the system's list has it.
struct Known {
    uid: u32,
    gid: u32,
    name: CString,
    home: PathBuf,
}

/// How large the text of one entry may be: a group of a few thousand members.
const ENTRY_BYTES: usize = 64 * 1024;
/// How many groups a user may be in (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

fn text(name: &str) -> Result<CString, UserError> {
    CString::new(name).map_err(|error| UserError::Lookup(name.to_owned(), error.into()))
}

fn known_user(user: &str) -> Result<Option<Known>, UserError> {
    let name = text(user)?;
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut buffer = vec![0; ENTRY_BYTES];
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to values that are alive, and the buffer has the size that is told. What `found`
    // points to is read before any of them goes.
    unsafe {
        let (entry, room) = (entry.as_mut_ptr(), buffer.as_mut_ptr());
        let failed = match user.parse::<u32>() {
            Ok(uid) => libc::getpwuid_r(uid, entry, room, ENTRY_BYTES, &raw mut found),
            Err(_) => libc::getpwnam_r(name.as_ptr(), entry, room, ENTRY_BYTES, &raw mut found),
        };
        match (failed, found.as_ref()) {
            (_, Some(entry)) => Ok(Some(Known {
                uid: entry.pw_uid,
                gid: entry.pw_gid,
                name: CStr::from_ptr(entry.pw_name).to_owned(),
                home: OsStr::from_bytes(CStr::from_ptr(entry.pw_dir).to_bytes()).into(),
            })),
            // Not found: 0, or one of several others (`man 3 getpwnam`); an image may have no such file at all.
            (0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM, None) => Ok(None),
            (errno, None) => Err(UserError::Lookup(user.to_owned(), io::Error::from_raw_os_error(errno))),
        }
    }
}

fn find_group(group: &str) -> Result<u32, UserError> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let name = text(group)?;
    let mut entry = MaybeUninit::<libc::group>::uninit();
    let mut buffer = vec![0; ENTRY_BYTES];
    let mut found = std::ptr::null_mut();
    // SAFETY: as in `known_user`.
    unsafe {
        let (entry, room) = (entry.as_mut_ptr(), buffer.as_mut_ptr());
        libc::getgrnam_r(name.as_ptr(), entry, room, ENTRY_BYTES, &raw mut found);
        found.as_ref().map(|entry| entry.gr_gid).ok_or_else(|| UserError::NoGroup(group.to_owned()))
    }
}

fn groups_of(name: &CStr, gid: u32) -> Vec<u32> {
    let mut groups = vec![0; GROUPS_MAX];
    let mut count = GROUPS_MAX as libc::c_int;
    // SAFETY: the array has room for as many as are told.
    let found = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
    groups.truncate(usize::try_from(if found < 0 { 0 } else { count }).unwrap_or(0));
    if groups.is_empty() { vec![gid] } else { groups }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let root = User::find("root", None).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        assert_eq!(root.known_as, Some(("root".into(), "/root".into())));
        assert_eq!(User::find("0", None).unwrap(), root);
        let unknown = User::find("654321", None).unwrap();
        let expected = User { uid: 654_321, gid: 654_321, groups: vec![654_321], known_as: None };
        assert_eq!(unknown, expected);
        assert_eq!(User::find("654321", Some("root")).unwrap().gid, 0);
        assert_eq!(User::find("root", Some("7")).unwrap().gid, 7);
        assert!(matches!(User::find("no-such-user", None), Err(UserError::NoUser(_))));
        assert!(matches!(User::find("root", Some("no-such-group")), Err(UserError::NoGroup(_))));
    }
}
