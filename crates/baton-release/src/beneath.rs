//! A directory in which paths of a release are looked up without ever following a link.
//!
//! Whoever swaps a directory for a link while files are being created, or has left one there, cannot lead a write,
//! a read or a change of mode out of it: the kernel resolves the whole path beneath the handle. What is mounted in it is not
//! part of it either.

use std::ffi::{CStr, CString};
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

    /// Looks up paths one after the other, fast where they are in the same directory.
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor { beneath: self, at: None }
    }

    /// A handle on a directory in it.
    pub(crate) fn below(&self, path: &str) -> io::Result<Self> {
        let dir = self.open_at(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        Ok(Self { dir })
    }

    /// The names in the directory itself.
    pub(crate) fn names(&self) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Moves something of the directory itself, whatever it is, to another directory, under a name that is free there.
    pub(crate) fn move_out(&self, name: &CStr, dir: &Self, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.dir, name, &dir.dir, to)?)
    }

    /// The directory itself, to be made durable.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Creates an empty file; there must be nothing under that name.
    pub(crate) fn create_file(&self, path: &TreePath) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        self.open_at(path.as_str(), flags, Mode::from_raw_mode(NEW_MODE)).map(File::from)
    }

    /// Opens a file for writing.
    pub(crate) fn write(&self, path: &TreePath) -> io::Result<File> {
        self.open_at(path.as_str(), OFlags::WRONLY, Mode::empty()).map(File::from)
    }

    /// Opens a file or directory for reading. Does not wait at a fifo or device that somebody has put there.
    pub(crate) fn read(&self, path: &TreePath) -> io::Result<File> {
        self.open_at(path.as_str(), OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).map(File::from)
    }

    fn open_at(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
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

/// Looks up paths one after the other: the directory of the last one stays open.
pub(crate) struct Cursor<'a> {
    beneath: &'a Beneath,
    at: Option<(&'a str, OwnedFd)>,
}

impl<'a> Cursor<'a> {
    /// Creates a directory.
    pub(crate) fn create_dir(&mut self, path: &'a TreePath) -> io::Result<()> {
        let parent = self.parent(path)?;
        Ok(rustix::fs::mkdirat(parent, path.name(), Mode::from_raw_mode(DIR_MODE))?)
    }

    /// Creates a symbolic link. Nothing in this module follows it.
    pub(crate) fn create_link(&mut self, path: &'a TreePath, target: &str) -> io::Result<()> {
        let parent = self.parent(path)?;
        Ok(rustix::fs::symlinkat(target, parent, path.name())?)
    }

    /// What lies at a path: of a link, the link itself.
    pub(crate) fn stat(&mut self, path: &'a TreePath) -> io::Result<Stat> {
        let parent = self.parent(path)?;
        Ok(rustix::fs::statat(parent, path.name(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Where a link points.
    pub(crate) fn link_target(&mut self, path: &'a TreePath) -> io::Result<Vec<u8>> {
        let parent = self.parent(path)?;
        Ok(rustix::fs::readlinkat(parent, path.name(), Vec::new())?.into_bytes())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&mut self, path: &'a TreePath) -> io::Result<()> {
        // A handle on it would be one on nothing.
        self.at.take_if(|(at, _)| *at == path.as_str());
        let parent = self.parent(path)?;
        Ok(rustix::fs::unlinkat(parent, path.name(), AtFlags::REMOVEDIR)?)
    }

    /// Gives a file or link another name, in another directory; there must be nothing under that name.
    pub(crate) fn move_to(&mut self, path: &'a TreePath, dir: &Beneath, name: &str) -> io::Result<()> {
        let parent = self.parent(path)?;
        Ok(rustix::fs::renameat(parent, path.name(), &dir.dir, name)?)
    }

    fn parent(&mut self, path: &'a TreePath) -> io::Result<BorrowedFd<'_>> {
        let Some(parent) = path.parent() else { return Ok(self.beneath.dir.as_fd()) };
        let at = match self.at.take() {
            Some(at) if at.0 == parent => at,
            Some(_) | None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                (parent, self.beneath.open_at(parent, flags, Mode::empty())?)
            }
        };
        Ok(self.at.insert(at).1.as_fd())
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
            assert!(beneath.cursor().create_dir(&path(bad)).is_err(), "{bad}");
            assert!(beneath.create_file(&path(bad)).is_err(), "{bad}");
            assert!(beneath.cursor().create_link(&path(bad), "x").is_err(), "{bad}");
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
