//! Where things are kept that are only there to be faster next time.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// Names of files are nobody else's business.
const MODE: u32 = 0o700;

/// The folder of this name in that of the user: `$XDG_CACHE_HOME/baton`, or `~/.cache/baton`. It is there on return; nothing
/// where there is no place for it.
pub fn folder(name: &str) -> Option<PathBuf> {
    // As the specification of these variables has it, a path that is not absolute is none.
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    let folder = caches.join("baton").join(name);
    DirBuilder::new().recursive(true).mode(MODE).create(&folder).ok()?;
    Some(folder)
}
