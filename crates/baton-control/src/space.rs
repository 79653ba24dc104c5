//! The space that is kept on the disk for what stops harm, and whether it is there.
//!
//! Who keeps it takes what there is and goes on without: what is asked for now is done. That it is not there shows here, before
//! somebody needs it.

use std::path::{Path, PathBuf};

use baton_store::reserve::Reserve;

use crate::access;
use crate::server::STATE_FILE;

/// What is kept in a data directory.
#[derive(Debug)]
pub(crate) struct Space {
    data_dir: PathBuf,
    kept: Vec<(Reserve, &'static str)>,
}

impl Space {
    /// That of this directory.
    pub(crate) fn of(data_dir: &Path) -> Self {
        let reserve = |(file, what)| (Reserve::of(&data_dir.join(file)), what);
        let lists = access::FILES.map(|file| (file, "revoking"));
        let kept = [(STATE_FILE, "halting, aborting, locking and going back")].into_iter().chain(lists);
        Self { data_dir: data_dir.to_owned(), kept: kept.map(reserve).collect() }
    }

    /// What there is to say of what is not there.
    pub(crate) fn warning(&self) -> Option<String> {
        let lacking: Vec<_> =
            self.kept.iter().filter_map(|(kept, what)| Some((kept, what, kept.lacking()?))).collect();
        if lacking.is_empty() {
            return None;
        }
        let bytes: u64 = lacking.iter().map(|(.., bytes)| bytes).sum();
        let what: Vec<_> = lacking.iter().map(|(_, what, _)| **what).collect();
        let names: Vec<_> =
            lacking.iter().filter_map(|(kept, ..)| kept.path().file_name()?.to_str()).collect();
        Some(format!(
            "no space is kept for {} on a full disk: {} needs {bytes} bytes in {}: free them there; if they are free, that file \
             system cannot keep any",
            what.join(", and none for "),
            names.join(" and "),
            self.data_dir.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn p29_space_that_is_not_there_is_told_with_how_much_that_is() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::of(dir.path());
        assert_eq!(space.warning(), None, "there is nothing that it would be for");
        let files = [STATE_FILE, access::FILES[1]].map(|file| dir.path().join(file));
        for file in &files {
            fs::write(file, [1; 1000]).unwrap();
        }
        let said = space.warning().unwrap();
        let needs = format!(
            "state.reserve and access.reserve needs {} bytes in {}",
            2 * (1000 + (1 << 20)),
            dir.path().display()
        );
        assert!(
            said.contains("for halting") && said.contains("none for revoking") && said.contains(&needs),
            "{said}"
        );
        Reserve::of(&files[0]).keep();
        let said = space.warning().unwrap();
        assert!(
            !said.contains("halting") && said.contains("for revoking on a full disk: access.reserve"),
            "{said}"
        );
        Reserve::of(&files[1]).keep();
        assert_eq!(space.warning(), None);
    }
}
