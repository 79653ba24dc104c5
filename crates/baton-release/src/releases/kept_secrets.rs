//! What a member keeps of a release's secrets, where its settings say so: one file with the release, which goes with it.

use std::fs::File;
use std::io::{self, Read};

use baton_core::ids::ReleaseId;
use baton_core::run::secrets::Secret;

use super::{RecordError, ReleasesDir};
use crate::disk::{self, DiskError, failed};

const NAME: &str = "secrets";
/// More than the values of any release are in JSON. Of a longer file the beginning is read, which is nothing that was kept.
const BYTES_MAX: u64 = 8 << 20;

impl ReleasesDir {
    /// What [`ReleasesDir::keep_secrets`] has kept, if it has.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn kept_secrets(&self, release: ReleaseId) -> Result<Option<Secret>, DiskError> {
        let path = self.home(release).join(NAME);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed("open", &path))?,
        };
        let mut text = String::new();
        file.take(BYTES_MAX).read_to_string(&mut text).map_err(failed("read", &path))?;
        Ok(Some(Secret::new(text)))
    }

    /// Whether there is something that [`ReleasesDir::keep_secrets`] has kept.
    pub fn has_kept_secrets(&self, release: ReleaseId) -> bool {
        self.home(release).join(NAME).exists()
    }

    /// Keeps the secrets of a release, which must be on disk, in a file that its owner alone may read. On return it is
    /// durable.
    ///
    /// # Errors
    /// The release is not there, or the disk refuses.
    pub fn keep_secrets(&self, release: ReleaseId, text: &Secret) -> Result<(), RecordError> {
        if !self.has(release) {
            return Err(RecordError::Absent(release));
        }
        Ok(disk::replace_private(&self.home(release).join(NAME), text.reveal().as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn p43_what_is_kept_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let releases = ReleasesDir::open(dir.path()).unwrap();
        let release = ReleaseId::from_bytes([7; 32]);
        let secret = Secret::new("hunter2".to_owned());
        assert!(matches!(releases.keep_secrets(release, &secret), Err(RecordError::Absent(_))));
        fs::create_dir(releases.home(release)).unwrap();
        assert_eq!(releases.kept_secrets(release).unwrap(), None);
        releases.keep_secrets(release, &secret).unwrap();
        assert_eq!(releases.kept_secrets(release).unwrap(), Some(secret));
        let mode = fs::metadata(releases.home(release).join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
