//! What makes a server who it is, and whether a data directory still has all of it.
//!
//! The list of tokens and the authority are made at the first start and never again: a new list knows nobody, and nobody believes
//! a new authority. So a directory of which a part was lost, or was not copied back, must not be taken for a new one. A file
//! there says what it has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use baton_release::disk::{DiskError, failed, replace};

/// The file.
const FILE: &str = "identity";
/// What it begins with, for who finds it.
const HEAD: &str = "\
# What makes this server who it is, and cannot be made again. It does not start without what is named here: put that back
# from a copy. Only where there is none, take its line out, and the server begins anew without it.
";
/// What is left where a server has run: such a directory without the file above may not be whole.
const SIGNS: [&str; 6] = ["state.redb", "access.json", "access.reserve", "ca.key", "ca.pem", "audit.log"];

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Who may do what.
    Tokens,
    /// Who vouches for the server.
    Authority,
}

/// Something is not there that was, or may have been.
#[derive(Debug, thiserror::Error)]
#[error(
    "{missing} is missing in {dir}, where a server has run: put it back from a copy; if there is none, take the line {line} out of \
     {dir}/{FILE} {then}",
    dir = data_dir.display(),
    line = part.files()[0],
    then = part.anew()
)]
pub struct Missing {
    missing: &'static str,
    part: Part,
    data_dir: PathBuf,
}

/// What a data directory has of it.
#[derive(Debug)]
pub(crate) struct Identity {
    data_dir: PathBuf,
    has: Vec<Part>,
}

impl Part {
    const ALL: [Self; 2] = [Self::Tokens, Self::Authority];

    /// Its files; the first one is the one that is made last.
    const fn files(self) -> &'static [&'static str] {
        match self {
            Self::Tokens => &["access.json"],
            Self::Authority => &["ca.key", "ca.pem"],
        }
    }

    /// What follows if there is no copy.
    const fn anew(self) -> &'static str {
        match self {
            Self::Tokens => "to begin another list, with which all tokens and members have to come anew",
            Self::Authority => {
                "and move away what there is of ca.key and ca.pem, to begin with another authority, which nobody believes yet"
            }
        }
    }
}

impl Identity {
    /// That of a data directory. One in which nobody has kept anything yet has none. This comes before anything is kept there.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, DiskError> {
        let path = data_dir.join(FILE);
        let found = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let was_used = SIGNS.iter().any(|sign| data_dir.join(sign).exists());
        let identity = Self { data_dir: data_dir.to_owned(), has: known(found.as_deref(), was_used) };
        if found.is_none() {
            identity.write()?;
        }
        Ok(identity)
    }

    /// Whether a part is there, or may begin anew.
    ///
    /// # Errors
    /// It was there, and is not, or not all of it.
    pub(crate) fn check(&self, part: Part) -> Result<(), Missing> {
        let missing = part.files().iter().find(|file| !self.data_dir.join(file).exists());
        match missing.filter(|_| self.has.contains(&part)) {
            None => Ok(()),
            Some(missing) => Err(Missing { missing, part, data_dir: self.data_dir.clone() }),
        }
    }

    /// Keeps what is there now.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn keep(self) -> Result<(), DiskError> {
        let is_there = |part: &Part| self.data_dir.join(part.files()[0]).exists();
        let has: Vec<Part> = Part::ALL.into_iter().filter(is_there).collect();
        match has == self.has {
            // What is so already takes no space, so that a server starts on a disk that is full.
            true => Ok(()),
            false => Self { has, ..self }.write(),
        }
    }

    fn write(&self) -> Result<(), DiskError> {
        let lines = self.has.iter().map(|part| format!("{}\n", part.files()[0]));
        replace(&self.data_dir.join(FILE), format!("{HEAD}{}", lines.collect::<String>()).as_bytes())
    }
}

/// What a directory has, by what its file says. Without one, everything may have been there where somebody has run a server.
fn known(found: Option<&str>, was_used: bool) -> Vec<Part> {
    let is_named = |part: &Part| match found {
        Some(text) => text.lines().any(|line| line.trim() == part.files()[0]),
        None => was_used,
    };
    Part::ALL.into_iter().filter(is_named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_directory_has_is_what_its_file_names_or_else_all_that_it_may_have_had() {
        use Part::{Authority, Tokens};
        for (found, was_used, expected) in [
            (None, false, &[][..]),
            (None, true, &[Tokens, Authority]),
            (Some(""), true, &[]),
            (Some(HEAD), true, &[]),
            (Some("access.json\n"), true, &[Tokens]),
            (Some("# access.json\nca.key"), false, &[Authority]),
            (Some(" ca.key \r\naccess.json\n"), false, &[Tokens, Authority]),
        ] {
            assert_eq!(known(found, was_used), expected, "{found:?} {was_used}");
        }
    }

    #[test]
    fn what_was_kept_is_missed_until_its_line_is_taken_out() {
        let dir = tempfile::tempdir().unwrap();
        let (file, key) = (dir.path().join(FILE), dir.path().join("ca.key"));
        let identity = Identity::open(dir.path()).unwrap();
        assert!(Part::ALL.iter().all(|part| identity.check(*part).is_ok()), "it is new");
        for made in ["ca.pem", "ca.key"] {
            fs::write(dir.path().join(made), "x").unwrap();
        }
        // A first start that was cut off begins once more.
        let identity = Identity::open(dir.path()).unwrap();
        assert!(identity.check(Part::Tokens).is_ok());
        identity.keep().unwrap();
        assert!(Identity::open(dir.path()).unwrap().check(Part::Authority).is_ok());

        fs::remove_file(&key).unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        let missing = identity.check(Part::Authority).unwrap_err().to_string();
        let place = file.display().to_string();
        assert!(missing.starts_with("ca.key is missing in ") && missing.contains(&place), "{missing}");
        assert!(identity.check(Part::Tokens).is_ok(), "it never had any");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("\nca.key\n", "\n")).unwrap();
        assert!(Identity::open(dir.path()).unwrap().check(Part::Authority).is_ok());
    }
}
