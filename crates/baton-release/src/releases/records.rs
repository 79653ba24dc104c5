//! What a member must not forget: which release it has committed to, and the newest deploy it has heard of.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use baton_core::ids::{DeployId, Epoch, ReleaseId};
use baton_core::units::Bytes;

use super::ReleasesDir;
use crate::disk::{self, DiskError, failed};

/// The release that a member starts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The release.
    pub release: ReleaseId,
    /// The epoch of the deploy that brought it.
    pub epoch: Epoch,
}

/// The newest deploy that a member has heard of. It never obeys an older one, nor another of the same epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its id.
    pub deploy: DeployId,
}

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The disk fails.
    #[error("a record of this member fails")]
    Disk(#[from] DiskError),
    /// The file was altered or damaged.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A release must be on disk before a member commits to it.
    #[error("release {0} is not on disk")]
    Absent(ReleaseId),
    /// A deploy that must not be obeyed.
    #[error("deploy {} of epoch {} is refused: this member has seen {} of epoch {}",
        refused.deploy, refused.epoch, seen.deploy, seen.epoch)]
    Stale {
        /// The deploy that was offered.
        refused: Seen,
        /// The newest one.
        seen: Seen,
    },
}

impl ReleasesDir {
    /// The release that this member has committed to, if there is one.
    pub fn committed(&self) -> Result<Option<Committed>, RecordError> {
        self.read("committed", |[release, epoch]| {
            Some(Committed {
                release: release.strip_prefix("release ")?.parse().ok()?,
                epoch: Epoch(epoch.strip_prefix("epoch ")?.parse().ok()?),
            })
        })
    }

    /// Commits to a release, which must be on disk, and which has proven itself. On return it is durable.
    pub fn commit(&self, release: ReleaseId, epoch: Epoch) -> Result<(), RecordError> {
        if !self.has(release) {
            return Err(RecordError::Absent(release));
        }
        if self.proven(release) != Some(epoch) {
            let lines = [format!("release {release}"), format!("epoch {epoch}")];
            write_in(&self.home(release), "proven", &lines)?;
        }
        self.write("committed", &[format!("release {release}"), format!("epoch {epoch}")])
    }

    /// The newest deploy that this member has heard of, if it has of any.
    pub fn seen(&self) -> Result<Option<Seen>, RecordError> {
        self.read("seen", |[epoch, deploy]| {
            Some(Seen {
                epoch: Epoch(epoch.strip_prefix("epoch ")?.parse().ok()?),
                deploy: deploy.strip_prefix("deploy ")?.parse().ok()?,
            })
        })
    }

    /// Remembers a deploy as the newest one, unless it is older than what was seen, or another one of the same
    /// epoch. On return it is durable, and may be obeyed; seeing the same one again is fine. A record that is damaged says
    /// nothing, and is replaced: whether this one may be older is known by what else there is.
    pub fn see(&self, new: Seen) -> Result<(), RecordError> {
        match self.seen() {
            Ok(Some(seen)) if seen == new => Ok(()),
            Ok(Some(seen)) if seen.epoch >= new.epoch => Err(RecordError::Stale { refused: new, seen }),
            Err(error @ (RecordError::Disk(_) | RecordError::Absent(_) | RecordError::Stale { .. })) => {
                Err(error)
            }
            Ok(Some(_) | None) | Err(RecordError::Damaged { .. }) => {
                self.write("seen", &[format!("epoch {}", new.epoch), format!("deploy {}", new.deploy)])
            }
        }
    }

    /// The epoch in which a release was last proven here, if it ever was. What is damaged, or cannot be read, is as good as what
    /// was never written.
    pub fn proven(&self, release: ReleaseId) -> Option<Epoch> {
        self.read_proven(release).ok().flatten()
    }

    /// The same, where what cannot be read is no reason to take a release for one that was never proven.
    pub(super) fn read_proven(&self, release: ReleaseId) -> Result<Option<Epoch>, DiskError> {
        let record = read_in(&self.home(release), "proven", |[of, epoch]| {
            let of: ReleaseId = of.strip_prefix("release ")?.parse().ok()?;
            Some((of, Epoch(epoch.strip_prefix("epoch ")?.parse().ok()?)))
        });
        match record {
            Ok(record) => Ok(record.filter(|(of, _)| *of == release).map(|(_, epoch)| epoch)),
            Err(RecordError::Disk(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// How much memory a release has used here at the most until it was proven. What is damaged is as good as what was
    /// never written.
    pub fn peak(&self, release: ReleaseId) -> Option<Bytes> {
        let record = read_in(&self.home(release), "peak", |[of, memory]| {
            let of: ReleaseId = of.strip_prefix("release ")?.parse().ok()?;
            Some((of, Bytes(memory.strip_prefix("memory ")?.parse().ok()?)))
        });
        record.ok().flatten().filter(|(of, _)| *of == release).map(|(_, memory)| memory)
    }

    /// Remembers how much memory a release has used here until it was proven, if that is more than ever before. It must
    /// be on disk.
    pub fn remember_peak(&self, release: ReleaseId, peak: Bytes) -> Result<(), RecordError> {
        if !self.has(release) {
            return Err(RecordError::Absent(release));
        }
        if self.peak(release).is_some_and(|known| known >= peak) {
            return Ok(());
        }
        let lines = [format!("release {release}"), format!("memory {}", peak.0)];
        write_in(&self.home(release), "peak", &lines)
    }

    fn write(&self, name: &str, lines: &[String; 2]) -> Result<(), RecordError> {
        write_in(&self.path, name, lines)
    }

    fn read<T>(&self, name: &str, parse: impl Fn([&str; 2]) -> Option<T>) -> Result<Option<T>, RecordError> {
        read_in(&self.path, name, parse)
    }
}

fn write_in(dir: &Path, name: &str, lines: &[String; 2]) -> Result<(), RecordError> {
    Ok(disk::replace(&dir.join(name), text(name, lines).as_bytes())?)
}

/// Reads a record of two lines. What `parse` makes of them must be all that the file says.
fn read_in<T>(
    dir: &Path,
    name: &str,
    parse: impl Fn([&str; 2]) -> Option<T>,
) -> Result<Option<T>, RecordError> {
    let path = dir.join(name);
    let found = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed("read", &path))?,
    };
    let found = String::from_utf8_lossy(&found);
    let mut lines = found.lines().skip(1);
    let record = lines.next().zip(lines.next()).filter(|(first, second)| {
        // The sum guards against flipped bits, and that nothing follows.
        text(name, &[(*first).to_owned(), (*second).to_owned()]) == found
    });
    match record.and_then(|(first, second)| parse([first, second])) {
        Some(record) => Ok(Some(record)),
        None => Err(RecordError::Damaged { path }),
    }
}

/// The content of a record: a head, two lines, and the hash of all that.
fn text(name: &str, lines: &[String; 2]) -> String {
    let mut text = format!("baton-{name} 1\n{}\n{}\n", lines[0], lines[1]);
    let sum = blake3::hash(text.as_bytes()).to_hex();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "sum {sum}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(epoch: u64, deploy: u8) -> Seen {
        Seen { epoch: Epoch(epoch), deploy: DeployId::from_bytes([deploy; 16]) }
    }

    #[test]
    fn p12_a_member_never_goes_back_to_an_older_deploy_not_even_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let releases = ReleasesDir::open(dir.path()).unwrap();
        assert_eq!(releases.seen().unwrap(), None);
        releases.see(seen(5, 1)).unwrap();
        drop(releases);

        let releases = ReleasesDir::open(dir.path()).unwrap();
        releases.see(seen(5, 1)).unwrap();
        for stale in [seen(4, 1), seen(4, 2), seen(5, 2)] {
            assert!(matches!(releases.see(stale), Err(RecordError::Stale { .. })), "{stale:?}");
        }
        assert_eq!(releases.seen().unwrap(), Some(seen(5, 1)));
        releases.see(seen(6, 2)).unwrap();
        assert_eq!(releases.seen().unwrap(), Some(seen(6, 2)));
    }

    #[test]
    fn only_what_is_on_disk_is_committed_to() {
        let dir = tempfile::tempdir().unwrap();
        let releases = ReleasesDir::open(dir.path()).unwrap();
        let release = ReleaseId::from_bytes([7; 32]);
        assert!(matches!(releases.commit(release, Epoch(1)), Err(RecordError::Absent(_))));
        assert_eq!(releases.committed().unwrap(), None);
        fs::create_dir(releases.home(release)).unwrap();
        releases.commit(release, Epoch(1)).unwrap();
        assert_eq!(releases.committed().unwrap(), Some(Committed { release, epoch: Epoch(1) }));
    }

    #[test]
    fn a_peak_only_grows_and_is_unknown_when_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let releases = ReleasesDir::open(dir.path()).unwrap();
        let release = ReleaseId::from_bytes([7; 32]);
        assert!(matches!(releases.remember_peak(release, Bytes(1)), Err(RecordError::Absent(_))));
        fs::create_dir(releases.home(release)).unwrap();
        assert_eq!(releases.peak(release), None);
        for (seen, known) in [(500, 500), (300, 500), (800, 800)] {
            releases.remember_peak(release, Bytes(seen)).unwrap();
            assert_eq!(releases.peak(release), Some(Bytes(known)));
        }
        let other = ReleaseId::from_bytes([8; 32]);
        fs::create_dir(releases.home(other)).unwrap();
        fs::copy(releases.home(release).join("peak"), releases.home(other).join("peak")).unwrap();
        assert_eq!(releases.peak(other), None, "it is that of another one");
        fs::write(releases.home(release).join("peak"), "memory 7").unwrap();
        assert_eq!(releases.peak(release), None);
        releases.remember_peak(release, Bytes(1)).unwrap();
        assert_eq!(releases.peak(release), Some(Bytes(1)));
    }

    #[test]
    fn every_damage_to_a_record_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let releases = ReleasesDir::open(dir.path()).unwrap();
        releases.see(seen(12, 3)).unwrap();
        let path = dir.path().join("seen");
        let right = fs::read(&path).unwrap();
        let mut wrong: Vec<Vec<u8>> = (0..right.len()).map(|end| right[..end].to_vec()).collect();
        for at in 0..right.len() {
            for bit in 0..8 {
                let mut flipped = right.clone();
                flipped[at] ^= 1 << bit;
                wrong.push(flipped);
            }
        }
        wrong.push([&right[..], b"\n"].concat());
        wrong.push(text("seen", &["epoch 012".to_owned(), "deploy 1".to_owned()]).into_bytes());
        for content in wrong {
            fs::write(&path, &content).unwrap();
            let found = releases.seen();
            assert!(
                matches!(found, Err(RecordError::Damaged { .. })),
                "{:?}",
                String::from_utf8_lossy(&content)
            );
        }
        fs::write(&path, &right).unwrap();
        assert_eq!(releases.seen().unwrap(), Some(seen(12, 3)));
    }

    #[test]
    fn f43_a_damaged_record_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let releases = ReleasesDir::open(dir.path()).unwrap();
        fs::write(dir.path().join("seen"), "x").unwrap();
        releases.see(seen(12, 3)).unwrap();
        assert_eq!(releases.seen().unwrap(), Some(seen(12, 3)));
        assert!(matches!(releases.see(seen(11, 3)), Err(RecordError::Stale { .. })));
    }
}
