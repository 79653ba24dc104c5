//! What lies in a directory and belongs into a release.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use baton_core::release::{PathFault, TreePath};

use crate::parallel;
use crate::selection::{IGNORE_FILE, Selection, Wanted, Within, is_ignore_file};
use crate::stat_cache::Stat;

/// The mode bit that makes a file executable: its owner's, as git does.
const EXECUTABLE: u32 = 0o100;

/// One thing in a directory.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where it is, relative to the directory.
    pub(crate) path: TreePath,
    /// What it is.
    pub(crate) kind: FoundKind,
    /// What the file system says of it.
    pub(crate) stat: Stat,
}

impl Found {
    pub(crate) fn is_file(&self) -> bool {
        match self.kind {
            FoundKind::File { .. } => true,
            FoundKind::Dir | FoundKind::Link { .. } => false,
        }
    }
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
    /// Something in it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that says what is ignored cannot be read.
    #[error("cannot tell what is ignored")]
    Ignore(#[source] ignore::Error),
    /// A pattern in the settings makes no sense.
    #[error("{setting} has {pattern:?}, which is not a pattern as in .gitignore")]
    Pattern {
        /// The setting.
        setting: &'static str,
        /// The pattern.
        pattern: String,
        /// Why not.
        #[source]
        source: ignore::Error,
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

/// A directory to look into.
struct Dir {
    /// Where it is.
    full: PathBuf,
    /// The same from the directory of the release on.
    path: Option<TreePath>,
    within: Within,
}

/// Everything in a directory that is wanted, sorted by path: without `.git`, and without what `.gitignore` and
/// `.batonignore` files in it exclude. Links are not followed. Only what the directory itself says counts, so that it
/// makes the same release wherever it lies.
pub(crate) fn walk(dir: &Path, wanted: &Wanted) -> Result<Vec<Found>, WalkError> {
    let selection = Selection::new(dir, wanted)?;
    let listings = Mutex::new(Listings::new());
    let top = Dir { full: dir.to_owned(), path: None, within: Within::top(wanted) };
    parallel::for_each_out_of(top, |dir| {
        let name = dir.path.as_ref().map(TreePath::to_string).unwrap_or_default();
        let (found, dirs) = look_into(dir, &selection)?;
        listings.lock().unwrap_or_else(PoisonError::into_inner).insert(name, found);
        Ok::<_, WalkError>(dirs)
    })?;
    let (mut listings, mut all) = (listings.into_inner().unwrap_or_else(PoisonError::into_inner), Vec::new());
    add("", &mut listings, &mut all);
    Ok(all)
}

/// What lies in each directory, sorted.
type Listings = HashMap<String, Vec<Found>>;

/// Adds what lies in a directory and beneath, sorted by path. Sorting all of it anew would take as long as looking.
fn add(dir: &str, listings: &mut Listings, all: &mut Vec<Found>) {
    let mut waiting: Vec<String> = Vec::new();
    for found in listings.remove(dir).unwrap_or_default() {
        // `a-b` and `a.b` come before `a/b`.
        let comes_first = |dir: &mut String| match found.path.as_str().strip_prefix(dir.as_str()) {
            Some(rest) => rest.as_bytes().first() > Some(&b'/'),
            None => true,
        };
        while let Some(dir) = waiting.pop_if(comes_first) {
            add(&dir, listings, all);
        }
        if found.kind == FoundKind::Dir {
            waiting.push(found.path.to_string());
        }
        all.push(found);
    }
    while let Some(dir) = waiting.pop() {
        add(&dir, listings, all);
    }
}

/// What lies in a directory, and which directories to look into next.
fn look_into(dir: Dir, selection: &Selection) -> Result<(Vec<Found>, Vec<Dir>), WalkError> {
    let Dir { full: dir, path: above, within } = dir;
    let read = |source| WalkError::Read { path: dir.clone(), source };
    let named = |entry: io::Result<DirEntry>| entry.map(|entry| (entry.file_name(), entry));
    let entries: Vec<(OsString, DirEntry)> =
        fs::read_dir(&dir).map_err(read)?.map(named).collect::<Result<_, _>>().map_err(read)?;
    let is_file = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| !kind.is_dir());
    let ignore_files = entries.iter().filter(|(name, entry)| is_ignore_file(name.as_ref()) && is_file(entry));
    let ignore_files: Vec<PathBuf> = ignore_files.map(|(name, _)| dir.join(name)).collect();
    let within = within.enter(&dir, &ignore_files)?;

    let (mut found, mut dirs) = (Vec::with_capacity(entries.len()), Vec::new());
    // One for all: most are only looked at.
    let mut full = PathBuf::new();
    for (name, entry) in entries {
        full.clone_from(&dir);
        full.push(&name);
        let kind = entry.file_type().map_err(|source| WalkError::Read { path: full.clone(), source })?;
        // What stays out may have any name.
        let shown = name.to_string_lossy();
        let path = match &above {
            None => shown.to_string(),
            Some(above) => [above.as_str(), "/", &shown].concat(),
        };
        let Some(within) = selection.select(&within, &full, &path, kind.is_dir()) else { continue };
        if name.to_str().is_none() {
            return Err(WalkError::NotText { path: full });
        }
        let path = TreePath::try_from(path).map_err(|fault| WalkError::Path { path: full.clone(), fault })?;
        let this = look(&entry, &full, path)?;
        if this.kind == FoundKind::Dir {
            dirs.push(Dir { full: full.clone(), path: Some(this.path.clone()), within });
        }
        found.push(this);
    }
    found.sort_unstable_by(|a: &Found, b| a.path.cmp(&b.path));
    Ok((found, dirs))
}

fn look(entry: &DirEntry, full: &Path, path: TreePath) -> Result<Found, WalkError> {
    let read = |source| WalkError::Read { path: full.to_owned(), source };
    let found = entry.metadata().map_err(read)?;
    let kind = match found.file_type() {
        kind if kind.is_dir() => FoundKind::Dir,
        kind if kind.is_file() => FoundKind::File { executable: found.mode() & EXECUTABLE != 0 },
        kind if kind.is_symlink() => {
            let target = fs::read_link(full).map_err(read)?;
            let target = target.to_str().ok_or_else(|| WalkError::NotText { path: full.to_owned() })?;
            FoundKind::Link { target: target.to_owned() }
        }
        kind => return Err(WalkError::Special { what: special(kind), path: full.to_owned() }),
    };
    Ok(Found { path, kind, stat: Stat::of(&found) })
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
        paths_of(dir, &Wanted::default())
    }

    fn paths_of(dir: &Path, wanted: &Wanted) -> Vec<String> {
        walk(dir, wanted).unwrap().iter().map(|found| found.path.to_string()).collect()
    }

    fn texts(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|&pattern| pattern.to_owned()).collect()
    }

    fn write(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn ignore_files_and_git_stay_out() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| write(dir.path(), name, text);
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
    fn the_nearest_ignore_file_decides_and_batonignore_before_gitignore() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ".gitignore", "*.log\n/out\n");
        write(dir.path(), ".batonignore", "*.tmp\n");
        write(dir.path(), "a/.gitignore", "!kept.log\n!kept.tmp\nout\n");
        write(dir.path(), "a/b/.batonignore", "!kept.tmp\nno.log\n");
        for name in
            ["a/kept.log", "a/other.log", "a/kept.tmp", "a/b/kept.tmp", "a/b/no.log", "out/x", "b/out/x"]
        {
            write(dir.path(), name, "");
        }
        let files: Vec<String> = paths(dir.path())
            .into_iter()
            .filter(|path| path.contains("kept") || path.ends_with('x'))
            .collect();
        assert_eq!(files, ["a/b/kept.tmp", "a/kept.log", "b/out/x"]);
    }

    #[test]
    fn what_the_settings_name_is_in_or_out_whatever_ignore_files_say() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ".gitignore", "node_modules/\ndist/\nbuild/\n");
        for name in [
            "build/other",
            "build/site/index.html",
            "docs/a.md",
            "node_modules/x/.gitignore",
            "node_modules/x/dist/main.js",
            "node_modules/x/test/t.js",
            "src/dist/a.js",
        ] {
            write(dir.path(), name, "*");
        }
        let wanted = Wanted {
            include: texts(&["node_modules/", "/build/site"]),
            exclude: texts(&["docs", "node_modules/*/test"]),
            ..Wanted::default()
        };
        let expected = [
            ".gitignore",
            "build",
            "build/site",
            "build/site/index.html",
            "node_modules",
            "node_modules/x",
            "node_modules/x/.gitignore",
            "node_modules/x/dist",
            "node_modules/x/dist/main.js",
            "src",
        ];
        assert_eq!(paths_of(dir.path(), &wanted), expected);
        let own = Wanted { own: Some(dir.path().join("docs")), ..Wanted::default() };
        assert_eq!(paths_of(dir.path(), &own), [".gitignore", "src"]);
        let bad = Wanted { exclude: texts(&["a[b"]), ..Wanted::default() };
        assert!(matches!(walk(dir.path(), &bad), Err(WalkError::Pattern { setting: "push.exclude", .. })));
    }

    #[test]
    fn nothing_but_what_is_named_is_in_where_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ".gitignore", "*\n");
        for name in
            ["a.json", "b.txt", "deep/a.json", "src/x/y/a.ts", "src/x/b.js", "p/one/a.json", "p/one/b", "q/z"]
        {
            write(dir.path(), name, "");
        }
        let include = texts(&["/*.json", "/src/**/*.ts", "/p/*/a.json", "/q"]);
        let wanted = Wanted { include, only: true, ..Wanted::default() };
        let files = walk(dir.path(), &wanted).unwrap().into_iter().filter(Found::is_file);
        let files: Vec<String> = files.map(|found| found.path.to_string()).collect();
        assert_eq!(files, ["a.json", "p/one/a.json", "q/z", "src/x/y/a.ts"]);
    }

    #[test]
    fn a_path_can_be_named_literally() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ".gitignore", "*\n");
        for name in ["a*[1]/{x} !#y", "a1/z"] {
            write(dir.path(), name, "");
        }
        let include = vec![crate::selection::literally("a*[1]/{x} !#y")];
        let found = paths_of(dir.path(), &Wanted { include, ..Wanted::default() });
        assert_eq!(found, ["a*[1]", "a*[1]/{x} !#y"]);
    }

    #[test]
    fn what_is_found_is_in_the_order_of_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a", "a-", "a-b", "a-b/a", "a.b", "a/b", "a/b-c", "a/b/c", "a0", "ab", "ä", "a!"];
        let name = |n: usize| names[n % names.len()];
        for n in 0..names.len().pow(2) {
            // Some are directories already: then nothing is written there.
            let path = dir.path().join(name(n)).join(name(n / names.len()));
            if path.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok()) {
                let _ = fs::write(path, "");
            }
        }
        let found = paths(dir.path());
        assert!(found.is_sorted() && found.len() > 80, "{found:?}");
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
        let kinds: Vec<FoundKind> =
            walk(dir.path(), &Wanted::default()).unwrap().into_iter().map(|found| found.kind).collect();
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
            walk(dir.path(), &Wanted::default()).unwrap_err()
        };
        let socket = refused(&|path| drop(UnixListener::bind(path).unwrap()));
        assert!(matches!(socket, WalkError::Special { what: "socket", .. }));
        let escape = refused(&|path| fs::write(path.with_file_name("a\u{1b}"), "").unwrap());
        assert!(matches!(escape, WalkError::Path { fault: PathFault::Control, .. }));
        let missing = walk(Path::new("/does/not/exist"), &Wanted::default()).unwrap_err();
        assert!(matches!(missing, WalkError::Read { .. }));
    }
}
