//! What tells without reading whether a file was touched.

use std::sync::Mutex;

use baton_core::ids::ReleaseId;
use baton_core::release::{Entry, EntryKind, File, Manifest};
use rustix::fs::{FileType, Stat};

use super::VerifyError;
use crate::beneath::{Beneath, Cursor, DIR_MODE, EXEC_MODE, FILE_MODE};
use crate::parallel;

/// What a record of stamps begins with.
const MAGIC: &[u8] = b"baton-laid-out 2\n";
/// How many entries one thread looks at in a row.
const RANGE: usize = 512;

/// Which file it is, and when it was last changed. Zeros for what is no file: programs may add to directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    inode: u64,
    /// The last change of the content, in nanoseconds since 1970.
    modified: i64,
    /// The last change of anything about it. Nobody can set it to another time.
    changed: i64,
}

impl Stamp {
    const BYTES: usize = 24;

    /// The stamp of a file.
    pub(crate) fn of(found: &Stat) -> Self {
        let nanoseconds =
            |seconds: i64, nanos| seconds.saturating_mul(1_000_000_000).saturating_add(nanos as i64);
        Self {
            inode: found.st_ino,
            modified: nanoseconds(found.st_mtime, found.st_mtime_nsec),
            changed: nanoseconds(found.st_ctime, found.st_ctime_nsec),
        }
    }

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.modified.to_le_bytes());
        bytes[16..].copy_from_slice(&self.changed.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let part = |at: usize| core::array::from_fn(|index| bytes[at + index]);
        Self {
            inode: u64::from_le_bytes(part(0)),
            modified: i64::from_le_bytes(part(8)),
            changed: i64::from_le_bytes(part(16)),
        }
    }
}

/// What the stamps of a tree are known by; no other ones have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum([u8; 32]);

/// The stamps of a tree: one for each entry of its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamps(pub(crate) Vec<Stamp>);

impl Stamps {
    /// As they are written down.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.reserve(self.0.len() * Stamp::BYTES);
        self.0.iter().for_each(|stamp| bytes.extend(stamp.to_bytes()));
        bytes
    }

    /// What they are known by.
    pub(crate) fn sum(&self) -> Sum {
        Sum(*blake3::hash(&self.to_bytes()).as_bytes())
    }

    /// As they were written down for so many entries; nothing, when it is anything else.
    pub(crate) fn from_bytes(bytes: &[u8], entries: usize) -> Option<Self> {
        let (stamps, rest) = bytes.strip_prefix(MAGIC)?.as_chunks();
        (stamps.len() == entries && rest.is_empty())
            .then(|| Self(stamps.iter().map(Stamp::from_bytes).collect()))
    }

    /// The stamps that a tree has now, if everything in it has the kind, mode and size of the manifest.
    pub(crate) fn look(id: ReleaseId, tree: &Beneath, manifest: &Manifest) -> Result<Self, VerifyError> {
        let entries = manifest.tree.entries();
        let stamps = Mutex::new(vec![Stamp::default(); entries.len()]);
        let starts: Vec<usize> = (0..entries.len()).step_by(RANGE).collect();
        parallel::for_each(&starts, |start| {
            let range = &entries[*start..entries.len().min(start + RANGE)];
            let mut cursor = tree.cursor();
            let found = range.iter().map(|entry| stamp(id, &mut cursor, entry));
            let found = found.collect::<Result<Vec<Stamp>, VerifyError>>()?;
            let mut stamps = stamps.lock().unwrap_or_else(|held| held.into_inner());
            stamps[*start..start + found.len()].copy_from_slice(&found);
            Ok::<(), VerifyError>(())
        })?;
        Ok(Self(stamps.into_inner().unwrap_or_else(|held| held.into_inner())))
    }
}

fn stamp<'a>(
    id: ReleaseId,
    cursor: &mut Cursor<'a>,
    Entry { path, kind }: &'a Entry,
) -> Result<Stamp, VerifyError> {
    let altered = |what| Err(VerifyError::Altered { id, path: path.clone(), what });
    let Ok(found) = cursor.stat(path) else { return altered("is missing") };
    let (what, mode) = match kind {
        EntryKind::Dir => (FileType::Directory, Some(DIR_MODE)),
        EntryKind::Link { .. } => (FileType::Symlink, None),
        EntryKind::File(file) => (FileType::RegularFile, Some(mode_of(file))),
    };
    if FileType::from_raw_mode(found.st_mode) != what {
        return altered("is something else");
    }
    if mode.is_some_and(|mode| found.st_mode & 0o7777 != mode) {
        return altered("has another mode");
    }
    match kind {
        EntryKind::Dir => Ok(Stamp::default()),
        EntryKind::Link { target } => match cursor.link_target(path) {
            Ok(found) if found == target.as_bytes() => Ok(Stamp::default()),
            Ok(_) | Err(_) => altered("points elsewhere"),
        },
        EntryKind::File(file) if found.st_size as u64 != file.bytes() => altered("has another size"),
        EntryKind::File(_) => Ok(Stamp::of(&found)),
    }
}

/// The mode that a file is laid out with.
pub(crate) fn mode_of(file: &File) -> u32 {
    if file.executable { EXEC_MODE } else { FILE_MODE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_back_and_nothing_else() {
        let stamp = |inode| Stamp { inode, modified: -1, changed: i64::MAX };
        let stamps = Stamps(vec![stamp(1), Stamp::default(), stamp(u64::MAX)]);
        let bytes = stamps.to_bytes();
        assert_eq!(Stamps::from_bytes(&bytes, 3), Some(stamps));
        assert_eq!(Stamps::from_bytes(&bytes, 2), None);
        assert_eq!(Stamps::from_bytes(&bytes[..bytes.len() - 1], 3), None);
        assert_eq!(Stamps::from_bytes(&[&bytes[..], b"x"].concat(), 3), None);
        assert_eq!(Stamps::from_bytes(b"baton-laid-out 1\n", 0), None);
    }
}
