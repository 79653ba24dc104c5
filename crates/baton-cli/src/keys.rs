//! Private keys: read from a file that nobody else may read, or from the environment of a build.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use baton_release::signing::{InvalidPrivateKey, PrivateKey};

use crate::args::Keys;
use crate::failure::Failure;

/// The variable with the text of a private key, for builds that have no files that are secret.
const VARIABLE: &str = "BATON_KEY";
/// Longest file that is read: a private key has a tenth of it.
const BYTES_MAX: u64 = 1024;
/// Who but its owner may do anything with a file.
const OTHERS: u32 = 0o077;

/// Why a private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// Others can read it.
    #[error(
        "others may read or change it: run `chmod 600` on it, and make a new key if somebody may have read it"
    )]
    Open,
    /// It is something else.
    #[error(transparent)]
    Text(#[from] InvalidPrivateKey),
}

/// The keys that sign: those of the files that were named, else that of the environment; none where nothing was said.
///
/// # Errors
/// One of them cannot be used.
pub fn read(named: &Keys) -> Result<Vec<PrivateKey>, Failure> {
    let failure = |path: &Path| {
        let path = path.to_owned();
        move |source| Failure::PrivateKey { path, source }
    };
    if named.files.is_empty() {
        let text = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
        let key = text.map(|text| PrivateKey::parse(&text)).transpose();
        return Ok(key.map_err(|fault| failure(Path::new(VARIABLE))(fault.into()))?.into_iter().collect());
    }
    named.files.iter().map(|path| read_file(path).map_err(failure(path))).collect()
}

fn read_file(path: &Path) -> Result<PrivateKey, KeyFault> {
    let file = File::open(path)?;
    if file.metadata()?.mode() & OTHERS != 0 {
        return Err(KeyFault::Open);
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(PrivateKey::parse(&text)?)
}

/// Makes a private key, in a new file that nobody else may read.
///
/// # Errors
/// The file is there already or cannot be written, or the machine has no random numbers.
pub fn generate(path: &Path) -> Result<PrivateKey, Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::System { what: "get random numbers", source: error.into() })?;
    let key = PrivateKey::from_random(&random);
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(key.to_text().as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
            // Half a key is of no use to anybody.
            let _ = fs::remove_file(path);
        })
    });
    written.map_err(|source| Failure::Write { path: path.to_owned(), source })?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn p43_a_private_key_that_others_may_read_is_refused_and_none_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ada.key");
        let key = generate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_file(&path).unwrap().id(), key.id());
        assert!(matches!(generate(&path), Err(Failure::Write { .. })));
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_file(&path), Err(KeyFault::Open)));
        let named = Keys { files: vec![path, dir.path().join("none")] };
        assert!(read(&named).unwrap_err().message().contains("chmod 600"));
    }
}
