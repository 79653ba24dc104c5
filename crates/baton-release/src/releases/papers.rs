//! What a member keeps of signatures: signed texts, as they came. Each time somebody relies on one it is checked again,
//! so that nothing here says whether they are right.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use baton_core::ids::ReleaseId;

use super::{RecordError, ReleasesDir};
use crate::disk::{self, DiskError, failed};
use crate::signing::APPROVALS_BYTES_MAX;

/// What allows a release to be launched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Papers {
    /// Who has vouched for it: approvals, one after the other.
    pub approvals: String,
    /// The signed deploy that allowed it, if one had to.
    pub warrant: Option<String>,
}

impl ReleasesDir {
    /// The newest signed deploy that this member has accepted.
    pub fn warrant(&self) -> Result<Option<String>, DiskError> {
        read(&self.path.join("warrant"))
    }

    /// Remembers a signed deploy as the newest one. On return it is durable.
    pub fn keep_warrant(&self, text: &str) -> Result<(), DiskError> {
        disk::replace(&self.path.join("warrant"), text.as_bytes())
    }

    /// What allowed a release that is on disk.
    pub fn papers(&self, release: ReleaseId) -> Result<Papers, DiskError> {
        let home = self.home(release);
        Ok(Papers { approvals: approvals_in(&home)?, warrant: read(&home.join("warrant"))? })
    }

    /// Keeps what allows a release, which must be on disk. On return it is durable.
    pub fn keep_papers(&self, release: ReleaseId, papers: &Papers) -> Result<(), RecordError> {
        if !self.has(release) {
            return Err(RecordError::Absent(release));
        }
        let home = self.home(release);
        disk::replace(&home.join("approvals"), papers.approvals.as_bytes())?;
        if let Some(warrant) = &papers.warrant {
            disk::replace(&home.join("warrant"), warrant.as_bytes())?;
        }
        Ok(())
    }
}

/// Who has vouched for the release that is there: approvals, one after the other.
pub(crate) fn approvals_in(home: &Path) -> Result<String, DiskError> {
    Ok(read(&home.join("approvals"))?.unwrap_or_default())
}

/// A text, if it is there; of one that is too long its beginning, which is none that anybody signed.
fn read(path: &Path) -> Result<Option<String>, DiskError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed("open", path))?,
    };
    let mut text = Vec::new();
    file.take(APPROVALS_BYTES_MAX as u64).read_to_end(&mut text).map_err(failed("read", path))?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_signed_is_kept_as_it_came_and_only_for_what_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let releases = ReleasesDir::open(dir.path()).unwrap();
        let release = ReleaseId::from_bytes([7; 32]);
        assert_eq!(
            (releases.warrant().unwrap(), releases.papers(release).unwrap()),
            (None, Papers::default())
        );
        let papers = Papers { approvals: "a\nb\n".to_owned(), warrant: Some("w\n".to_owned()) };
        assert!(matches!(releases.keep_papers(release, &papers), Err(RecordError::Absent(_))));
        fs::create_dir(releases.home(release)).unwrap();
        releases.keep_papers(release, &papers).unwrap();
        releases.keep_warrant("newest\n").unwrap();
        drop(releases);
        let releases = ReleasesDir::open(dir.path()).unwrap();
        assert_eq!(releases.papers(release).unwrap(), papers);
        assert_eq!(releases.warrant().unwrap().as_deref(), Some("newest\n"));
    }
}
