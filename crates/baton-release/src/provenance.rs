//! Where the content of a directory comes from.

use std::path::Path;
use std::process::Command;

use baton_core::release::{Commit, Provenance};

/// A commit, and when it was made, in milliseconds since 1970.
pub(crate) type Committed = (Commit, u64);

/// Where content comes from that was changed last at `newest_change`.
///
/// The time is that of the content, not of this call: the same content makes the same release, however often it is
/// pushed. It is the commit's when nothing was changed since, else `newest_change`.
pub(crate) fn of(committed: Option<Committed>, builder: String, newest_change: u64) -> Provenance {
    let created = match &committed {
        Some((commit, time)) if !commit.dirty => *time,
        Some(_) | None => newest_change,
    };
    Provenance { created, builder, commit: committed.map(|(commit, _)| commit) }
}

/// The commit that a directory has, as far as git knows.
pub(crate) fn commit(dir: &Path) -> Option<Committed> {
    let (hash, time) = head(dir)?;
    // When git cannot say whether anything was changed, nobody should rely on it.
    let dirty = git(dir, &["status", "--porcelain", "--", "."]).is_none_or(|changes| !changes.is_empty());
    Some((Commit { hash, dirty }, time))
}

/// The commit that is checked out, and its time in milliseconds since 1970.
fn head(dir: &Path) -> Option<(String, u64)> {
    let head = git(dir, &["log", "-1", "--format=%H %ct"])?;
    let (hash, seconds) = head.trim().split_once(' ')?;
    Some((hash.to_owned(), seconds.parse::<u64>().ok()?.saturating_mul(1000)))
}

/// What git prints; nothing where there is no git or no repository.
fn git(dir: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(dir).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_its_time_and_changes_since_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let of = || of(commit(dir.path()), "me".to_owned(), 42);
        assert_eq!(of(), Provenance { created: 42, builder: "me".to_owned(), commit: None });

        std::fs::write(dir.path().join("a"), "a").unwrap();
        for arguments in [
            &["init", "--quiet"][..],
            &["add", "."],
            &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "a"],
        ] {
            git(dir.path(), arguments).unwrap();
        }
        let clean = of();
        assert!(!clean.commit.unwrap().dirty);
        assert!(clean.created > 1_600_000_000_000);

        std::fs::write(dir.path().join("b"), "b").unwrap();
        let dirty = of();
        assert!(dirty.commit.unwrap().dirty);
        assert_eq!(dirty.created, 42);
    }
}
