//! A directory in which paths of a release are looked up without ever following a link.
//!
//! Whoever swaps a directory for a link while files are being created, or has left one there, cannot lead a write,
//! a read or a change of mode out of it: the kernel resolves the whole path beneath the handle.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use baton_core::release::TreePath;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The mode of directories.
pub(crate) const DIR_MODE: u32 = 0o755;
/// The mode of files.
pub(crate) const FILE_MODE: u32 = 0o644;
/// The mode of executable files.
pub(crate) const EXEC_MODE: u32 = 0o755;
/// The mode while a file is written: nobody else reads half a file.
const NEW_MODE: u32 = 0o600;

/// A handle on a directory.
pub(crate) struct Beneath {
    dir: OwnedFd,
}

impl Beneath {
    /// A handle on this directory, which must not be a link itself.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { dir: rustix::fs::openat(CWD, path, flags, Mode::empty())? })
    }

    /// Creates a directory.
    pub(crate) fn create_dir(&self, path: &TreePath) -> io::Result<()> {
        self.in_parent(path, |parent, name| rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(DIR_MODE)))
    }

    /// Creates an empty file; there must be nothing under that name.
    pub(crate) fn create_file(&self, path: &TreePath) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        self.open_at(path.as_str(), flags, Mode::from_raw_mode(NEW_MODE)).map(drop)
    }

    /// Creates a symbolic link. Nothing in this type follows it.
    pub(crate) fn create_link(&self, path: &TreePath, target: &str) -> io::Result<()> {
        self.in_parent(path, |parent, name| rustix::fs::symlinkat(target, parent, name))
    }

    /// Opens a file for writing.
    pub(crate) fn write(&self, path: &TreePath) -> io::Result<File> {
        self.open_at(path.as_str(), OFlags::WRONLY, Mode::empty()).map(File::from)
    }

    /// Opens a file or directory for reading. Does not wait at a fifo or device that somebody has put there.
    pub(crate) fn read(&self, path: &TreePath) -> io::Result<File> {
        self.open_at(path.as_str(), OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).map(File::from)
    }

    /// What lies at a path: of a link, the link itself.
    pub(crate) fn stat(&self, path: &TreePath) -> io::Result<Stat> {
        self.in_parent(path, |parent, name| rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Where a link points.
    pub(crate) fn link_target(&self, path: &TreePath) -> io::Result<Vec<u8>> {
        let target = self.in_parent(path, |parent, name| rustix::fs::readlinkat(parent, name, Vec::new()))?;
        Ok(target.into_bytes())
    }

    fn in_parent<T>(
        &self,
        path: &TreePath,
        act: impl FnOnce(BorrowedFd<'_>, &str) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let Some(parent) = path.parent() else {
            return Ok(act(self.dir.as_fd(), path.name())?);
        };
        let parent = self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(act(parent.as_fd(), path.name())?)
    }

    fn open_at(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.dir, path, flags, mode, beneath) {
            // Kernels before 5.6 do not know the call, and older container run-times do not let it through.
            Err(Errno::NOSYS | Errno::PERM) => self.open_by_component(path, flags, mode),
            done => Ok(done?),
        }
    }

    /// The same with calls that every kernel has: one directory after the other, none of them a link.
    fn open_by_component(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        while let Some((name, below)) = rest.split_once('/') {
            let dir = at.as_ref().unwrap_or(&self.dir);
            at = Some(rustix::fs::openat(dir, name, step, Mode::empty())?);
            rest = below;
        }
        Ok(rustix::fs::openat(at.as_ref().unwrap_or(&self.dir), rest, flags, mode)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> TreePath {
        text.parse().unwrap()
    }

    #[test]
    fn p26_links_are_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        fs::create_dir_all(inside.join("real")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        symlink("../outside", inside.join("out")).unwrap();
        symlink("real", inside.join("alias")).unwrap();
        symlink("../outside/secret", inside.join("file")).unwrap();

        let beneath = Beneath::open(&inside).unwrap();
        for bad in ["out/new", "alias/new", "file"] {
            assert!(beneath.create_dir(&path(bad)).is_err(), "{bad}");
            assert!(beneath.create_file(&path(bad)).is_err(), "{bad}");
            assert!(beneath.create_link(&path(bad), "x").is_err(), "{bad}");
            assert!(beneath.write(&path(bad)).is_err(), "{bad}");
            assert!(beneath.read(&path(bad)).is_err(), "{bad}");
        }
        for bad in
            ["out/secret", "alias/../../outside/secret", "../outside/secret", "/etc/passwd", "out", "file"]
        {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            assert!(beneath.open_at(bad, flags, Mode::empty()).is_err(), "{bad}");
        }
        assert!(Beneath::open(&inside.join("out")).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read_dir(inside.join("real")).unwrap().count(), 0);
    }

    #[test]
    fn without_openat2_the_answers_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "text").unwrap();
        symlink("a", dir.path().join("alias")).unwrap();
        let beneath = Beneath::open(dir.path()).unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for (text, there) in [
            ("a", true),
            ("a/b/file", true),
            ("a/x", false),
            ("alias", false),
            ("alias/b", false),
            ("alias/b/file", false),
            ("a/b/file/x", false),
        ] {
            let by_component = beneath.open_by_component(text, flags, Mode::empty());
            assert_eq!(by_component.is_ok(), there, "{text}");
            assert_eq!(beneath.open_at(text, flags, Mode::empty()).is_ok(), there, "{text}");
        }
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        assert!(beneath.open_by_component("a/new", create, Mode::from_raw_mode(NEW_MODE)).is_ok());
        assert!(beneath.open_by_component("a/new", create, Mode::from_raw_mode(NEW_MODE)).is_err());
    }
}
