//! Where things are kept that are only there to be faster next time.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// Names of files are nobody else's business.
const MODE: u32 = 0o700;

/// That of the user: `$XDG_CACHE_HOME/baton`, or `~/.cache/baton`; nothing where there is no place for it. It is there on
/// return.
pub fn home() -> Option<PathBuf> {
    // As the specification of these variables has it, a path that is not absolute is none.
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?.join("baton");
    create(home)
}

/// A folder in there.
pub fn folder(name: &str) -> Option<PathBuf> {
    create(home()?.join(name))
}

fn create(folder: PathBuf) -> Option<PathBuf> {
    DirBuilder::new().recursive(true).mode(MODE).create(&folder).ok()?;
    Some(folder)
}
