//! What stands behind `baton deploy`: a release, or a directory that is pushed first.

use std::path::{Path, PathBuf};

use baton_core::history::TagName;

use crate::failure::Failure;
use crate::project::FILE;

/// The fewest digits by which control knows a release.
const DIGITS_MIN: usize = 4;
/// All digits of a release's id.
const DIGITS_MAX: usize = 64;

/// What is to be deployed.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    /// A directory, or a flavor of one.
    Directory(PathBuf),
    /// A release that was pushed, or the tag of one.
    Release(String),
}

impl Named {
    /// What this text names; `here` is the current directory. What could be a release is one, whatever stands here: so a
    /// script that deploys releases never pushes a directory.
    ///
    /// # Errors
    /// It is neither.
    pub fn of(text: &str, here: &Path) -> Result<Self, Failure> {
        let is_path = text.contains('/') || matches!(text, "." | "..");
        // No release has that in its id: it is a flavor of a directory.
        if is_path || text.contains('@') {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        if is_release(text) {
            return Ok(Self::Release(text.to_owned()));
        }
        if here.join(text).join(FILE).exists() {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        // Control knows whether there is one.
        if text.parse::<TagName>().is_ok() {
            return Ok(Self::Release(text.to_owned()));
        }
        Err(Failure::Usage(format!(
            "{text:?} is no release and no directory with a {FILE}: write a release's id, or at least the first {DIGITS_MIN} \
             lowercase digits of it (see `baton releases`), a tag, or the path of a directory"
        )))
    }
}

/// Whether a text can be the id of a release, or the first digits of one.
fn is_release(text: &str) -> bool {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    digits && (DIGITS_MIN..=DIGITS_MAX).contains(&text.len())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_could_be_a_release_is_one_and_every_path_is_a_directory() {
        let here = tempfile::tempdir().unwrap();
        for dir in ["shop", "cafe", "empty"] {
            fs::create_dir(here.path().join(dir)).unwrap();
            if dir != "empty" {
                fs::write(here.path().join(dir).join(FILE), "").unwrap();
            }
        }
        let whole = "9f".repeat(32);
        for (text, is_directory) in [
            (".", true),
            ("..", true),
            ("./shop", true),
            ("shop/", true),
            ("/nowhere", true),
            ("@beat", true),
            ("shop@beat", true),
            ("shop", true),
            ("./cafe", true),
            ("cafe", false),
            ("9f3a", false),
            (whole.as_str(), false),
            ("empty", false),
            ("master.5", false),
            ("9F3A", false),
        ] {
            let expected = match is_directory {
                true => Named::Directory(PathBuf::from(text)),
                false => Named::Release(text.to_owned()),
            };
            assert_eq!(Named::of(text, here.path()).unwrap(), expected, "{text}");
        }
        for text in ["9f3", "a b", "", &format!("{whole}0")] {
            let refused = Named::of(text, here.path()).unwrap_err().message();
            assert!(refused.contains("no release and no directory with a baton.toml"), "{text}: {refused}");
        }
    }
}
