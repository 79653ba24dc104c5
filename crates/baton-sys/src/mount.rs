//! A program's working directory at another path, which nobody else sees, and write-protected.
//!
//! The program gets a mount namespace of its own (`mount_namespaces(7)`), which takes `CAP_SYS_ADMIN` in the user
//! namespace that this process is in.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where a program finds its working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The absolute path, at which there is a folder.
    pub at: PathBuf,
    /// What it may write to nevertheless, should that be in its working directory.
    pub writable: Option<PathBuf>,
}

impl Mount {
    /// Where a path will be for the program that is here beneath `folder`, its working directory.
    pub(crate) fn inside(&self, folder: &Path, path: &Path) -> PathBuf {
        moved(path, folder, &self.at)
    }

    /// Where a path is here that will be beneath the program's working directory.
    pub(crate) fn outside(&self, folder: &Path, path: &Path) -> PathBuf {
        moved(path, &self.at, folder)
    }
}

fn moved(path: &Path, from: &Path, to: &Path) -> PathBuf {
    match path.strip_prefix(from) {
        Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
        Ok(rest) => to.join(rest),
        Err(_) => path.to_owned(),
    }
}

/// The steps of [`Mounting::enter`] as they are named in errors, in order.
pub(crate) const STEPS: [&str; 4] =
    ["unshare(CLONE_NEWNS)", "mount(MS_SLAVE)", "mount(MS_BIND)", "mount_setattr(MOUNT_ATTR_RDONLY)"];

/// The same in the form in which the kernel wants it.
#[derive(Debug)]
pub(crate) struct Mounting {
    folder: CString,
    at: CString,
    writable: Option<CString>,
}

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;

impl Mounting {
    /// Prepares it before there is a child; nothing, when a path has a NUL character.
    pub fn prepare(mount: &Mount, folder: &Path) -> Option<Self> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).ok();
        let writable = mount.writable.as_ref().filter(|writable| writable.starts_with(folder));
        let writable = match writable {
            Some(writable) => Some(text(writable)?),
            None => None,
        };
        Some(Self { folder: text(folder)?, at: text(&mount.at)?, writable })
    }

    /// Where the program finds itself.
    pub fn at(&self) -> &std::ffi::CStr {
        &self.at
    }

    /// Moves this process to a mount namespace where it is so, and tells which step failed; `errno` tells why.
    ///
    /// # Safety
    /// Only in the child that is to become the program. Allocates nothing and makes only system calls.
    pub unsafe fn enter(&self) -> Result<(), u8> {
        // SAFETY: plain system calls on texts that are alive.
        unsafe {
            if libc::unshare(libc::CLONE_NEWNS) < 0 {
                return Err(0);
            }
            // What is mounted out there later is seen here, and nothing the other way round.
            let slave = libc::MS_REC | libc::MS_SLAVE;
            if libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), slave, std::ptr::null()) < 0 {
                return Err(1);
            }
            // A mount of its own is what stays writable in one that is not.
            let writable = self.writable.as_deref().is_none_or(|path| bind(path, path));
            // At its own place too: whoever knows that shall not write there either.
            if !writable || !bind(&self.folder, &self.folder) {
                return Err(2);
            }
            // Not by MS_REMOUNT, which in a user namespace must name every flag that is locked.
            let attributes =
                MountAttributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
            let (folder, size) = (self.folder.as_ptr(), size_of::<MountAttributes>());
            let attributes = &raw const attributes;
            if libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, folder, 0, attributes, size) < 0 {
                return Err(3);
            }
            if self.folder != self.at && !bind(&self.folder, &self.at) {
                return Err(2);
            }
            Ok(())
        }
    }
}

/// Shows at `to` what is at `from`, and what is mounted beneath it.
///
/// # Safety
/// Only in a mount namespace that is this process's own.
unsafe fn bind(from: &std::ffi::CStr, to: &std::ffi::CStr) -> bool {
    let flags = libc::MS_BIND | libc::MS_REC;
    // SAFETY: a plain system call on texts that are alive.
    unsafe { libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), flags, std::ptr::null()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_for_the_side_that_they_are_used_on() {
        let mount = Mount { at: "/app".into(), writable: None };
        let folder = Path::new("/state/tree");
        for (outside, inside) in [
            ("/state/tree", "/app"),
            ("/state/tree/./bin/server", "/app/bin/server"),
            ("/usr/bin/python3", "/usr/bin/python3"),
        ] {
            assert_eq!(mount.inside(folder, Path::new(outside)), Path::new(inside));
            assert_eq!(mount.outside(folder, Path::new(inside)), Path::new(outside));
        }
        assert_eq!(mount.outside(folder, Path::new("/application")), Path::new("/application"));
    }
}
