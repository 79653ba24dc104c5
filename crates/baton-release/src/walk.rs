//! What lies in a directory and belongs into a release.

use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use baton_core::release::{PathFault, TreePath};
use ignore::{DirEntry, WalkBuilder};

/// Names what does not belong into a release, in the syntax of `.gitignore`; it has the last word over those.
const IGNORE_FILE: &str = ".batonignore";
/// The mode bit that makes a file executable: its owner's, as git does.
const EXECUTABLE: u32 = 0o100;

/// One thing in a directory.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where it is, relative to the directory.
    pub(crate) path: TreePath,
    /// Where it is.
    pub(crate) full: PathBuf,
    /// What it is.
    pub(crate) kind: FoundKind,
    /// When it was last modified, in milliseconds since 1970.
    pub(crate) modified: u64,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FoundKind {
    Dir,
    File { executable: bool },
    Link { target: String },
}

/// Why a directory cannot become a release.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// It cannot be read.
    #[error("cannot read the directory")]
    Walk(#[source] ignore::Error),
    /// Something in it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name that is no text.
    #[error("{} or where it points is not UTF-8; rename it, or name it in {IGNORE_FILE}", path.display())]
    NotText {
        /// What.
        path: PathBuf,
    },
    /// A name that releases cannot have.
    #[error("{} cannot be in a release; rename it, or name it in {IGNORE_FILE}", path.display())]
    Path {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        fault: PathFault,
    },
    /// Neither file nor directory nor link.
    #[error("{} is a {what}, which cannot be in a release; remove it, or name it in {IGNORE_FILE}", path.display())]
    Special {
        /// What.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
}

/// Everything in a directory, sorted by path: without `.git`, and without what `.gitignore` and `.batonignore`
/// files in it exclude. Links are not followed.
pub(crate) fn walk(dir: &Path) -> Result<Vec<Found>, WalkError> {
    let walk = WalkBuilder::new(dir)
        // Only what the directory itself says, so that it makes the same release wherever it lies.
        .standard_filters(false)
        .git_ignore(true)
        .require_git(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    let mut all = Vec::new();
    for entry in walk {
        let entry = entry.map_err(WalkError::Walk)?;
        if entry.depth() > 0 {
            all.push(look(dir, &entry)?);
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

fn look(dir: &Path, entry: &DirEntry) -> Result<Found, WalkError> {
    let full = entry.path().to_owned();
    let not_text = || WalkError::NotText { path: full.clone() };
    let read = |source| WalkError::Read { path: full.clone(), source };
    let path = full.strip_prefix(dir).unwrap_or(&full).to_str().ok_or_else(not_text)?;
    let path = path.parse().map_err(|fault| WalkError::Path { path: full.clone(), fault })?;
    let found: Metadata = fs::symlink_metadata(&full).map_err(read)?;
    let kind = match found.file_type() {
        kind if kind.is_dir() => FoundKind::Dir,
        kind if kind.is_file() => FoundKind::File { executable: found.mode() & EXECUTABLE != 0 },
        kind if kind.is_symlink() => {
            let target = fs::read_link(&full).map_err(read)?;
            FoundKind::Link { target: target.to_str().ok_or_else(not_text)?.to_owned() }
        }
        kind => return Err(WalkError::Special { what: special(kind), path: full }),
    };
    let modified = found.mtime().saturating_mul(1000).saturating_add(found.mtime_nsec() / 1_000_000);
    Ok(Found { path, full, kind, modified: u64::try_from(modified).unwrap_or(0) })
}

fn special(kind: FileType) -> &'static str {
    if kind.is_fifo() {
        "named pipe"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn paths(dir: &Path) -> Vec<String> {
        walk(dir).unwrap().iter().map(|found| found.path.to_string()).collect()
    }

    #[test]
    fn ignore_files_and_git_stay_out() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(".gitignore", "*.log\nnode_modules/\ndist/\n");
        write(".batonignore", "!dist/\ntests/\n");
        write("sub/.gitignore", "local\n");
        for name in [
            ".git/config",
            ".env",
            "a.log",
            "a-b",
            "a/b",
            "dist/app.js",
            "node_modules/x/y",
            "tests/t",
            "sub/local",
            "sub/kept",
        ] {
            write(name, "");
        }
        let expected = [
            ".batonignore",
            ".env",
            ".gitignore",
            "a",
            "a-b",
            "a/b",
            "dist",
            "dist/app.js",
            "sub",
            "sub/.gitignore",
            "sub/kept",
        ];
        assert_eq!(paths(dir.path()), expected);
    }

    #[test]
    fn kinds_and_executable_bits_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        for (name, mode) in [("plain", 0o640), ("run", 0o4755)] {
            fs::write(dir.path().join(name), "").unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("plain", dir.path().join("link")).unwrap();
        let kinds: Vec<FoundKind> = walk(dir.path()).unwrap().into_iter().map(|found| found.kind).collect();
        let expected = [
            FoundKind::Dir,
            FoundKind::Link { target: "plain".to_owned() },
            FoundKind::File { executable: false },
            FoundKind::File { executable: true },
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn what_cannot_be_in_a_release_is_named() {
        let refused = |make: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            make(&dir.path().join("bad"));
            walk(dir.path()).unwrap_err()
        };
        let socket = refused(&|path| drop(UnixListener::bind(path).unwrap()));
        assert!(matches!(socket, WalkError::Special { what: "socket", .. }));
        let escape = refused(&|path| fs::write(path.with_file_name("a\u{1b}"), "").unwrap());
        assert!(matches!(escape, WalkError::Path { fault: PathFault::Control, .. }));
        let missing = walk(Path::new("/does/not/exist")).unwrap_err();
        assert!(matches!(missing, WalkError::Walk(_)));
    }
}
