//! The releases on a member's disk: complete and verified ones only, launchable without any network.
//!
//! ```text
//! state_dir/
//!   lock                    held by the one bootloader that uses the directory
//!   committed               the release this member has committed to, and the epoch
//!   seen                    the newest deploy this member has heard of
//!   releases/<id>/tree/     the files of a release
//!   releases/<id>/manifest  its manifest
//!   releases/<id>/laid-out  inodes and times of the files as they were laid out
//!   warrant                 the newest signed deploy that this member has accepted
//!   releases/<id>/approvals who has vouched for it, where the member wants to know
//!   releases/<id>/warrant   the signed deploy that allowed it
//!   releases/<id>/peak      how much memory it used at the most until it was proven here
//!   releases/<id>/proven    the epoch in which it was last proven here
//!   releases/<id>/secrets   the values of its secrets, where its settings say that they are kept on disk
//!   spare/<id>/             a tree that nobody runs from, like that of a release: the next one is made from it
//!   staging/                the release under construction, which the next fetch goes on with, and what is about to go
//! ```

mod base;
mod durable;
mod kept_secrets;
mod known;
mod leftover;
mod lock;
mod papers;
mod records;
mod room;
mod spare;
mod staging;
mod stamps;
mod upkeep;
mod verify;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use baton_core::ids::{ReleaseId, ServiceName};
use baton_core::release::{Manifest, id_of};

pub use lock::Held;
pub use papers::Papers;
#[cfg(feature = "push")]
pub(crate) use papers::approvals_in;
pub use records::{Committed, RecordError, Seen};
pub(crate) use room::Needs;
pub use room::NoRoom;
pub(crate) use staging::{MadeOf, Place, Staging};
pub use upkeep::{Keep, Upkeep};
pub use verify::VerifyError;

use crate::beneath::{Beneath, DIR_MODE};
use crate::disk::{self, DiskError, failed, remove};
use crate::manifest;
use known::Known;
use spare::SpareKnown;

/// The releases on a member's disk. Only one process at a time can have a directory open.
pub struct ReleasesDir {
    path: PathBuf,
    /// Whose releases they are, where that is known.
    service: Option<ServiceName>,
    /// One release is staged at a time: two would compete for the disk, and the same one would collide.
    turn: Mutex<()>,
    /// What must stay, once somebody has said what runs.
    keep: Mutex<Option<Keep>>,
    /// Held for the moment in which a tree is moved away: whoever has said before what must stay need not wait for a turn to
    /// know that it does.
    taking: Mutex<()>,
    /// What this process has read through or written itself.
    known: Known,
    /// What this process knows of the spare tree, once it has made it or looked through it.
    spare_known: Mutex<Option<SpareKnown>>,
    /// What was laid out last, until it is launched: what was read then need not be read again.
    fresh: Mutex<Option<(ReleaseId, Manifest)>>,
    /// How many names for what is about to go were given.
    gone: AtomicU64,
    /// Held as long as the directory is in use.
    _lock: lock::Lock,
}

/// Why a directory of releases cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("another process uses it")]
    Held(#[from] Held),
    /// Somebody else could change what is launched.
    #[error("{} is not safe to launch from: {why}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// The disk fails.
    #[error("the directory of releases cannot be opened")]
    Disk(#[from] DiskError),
}

impl ReleasesDir {
    /// Opens the directory, creates it if needed, and removes what an earlier process left half done.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        create_dir(path)?;
        // Before anything is written: who else may write here could have left a link.
        check_owner(path)?;
        let lock = lock::take(&path.join("lock"))?;
        let releases = Self {
            path: path.to_owned(),
            service: None,
            turn: Mutex::new(()),
            keep: Mutex::new(None),
            taking: Mutex::new(()),
            known: Known::default(),
            spare_known: Mutex::new(None),
            fresh: Mutex::new(None),
            gone: AtomicU64::new(0),
            _lock: lock,
        };
        for dir in [releases.complete(), releases.spares(), releases.staging()] {
            create_dir(&dir)?;
            check_owner(&dir)?;
        }
        disk::sync_dir(path)?;
        releases.empty_staging()?;
        Ok(releases)
    }

    /// The same directory, to which releases of this service only are brought.
    #[must_use]
    pub fn only_for(self, service: ServiceName) -> Self {
        Self { service: Some(service), ..self }
    }

    /// The service whose releases they are, when it is not that of this manifest.
    pub(crate) fn refuses(&self, manifest: &Manifest) -> Option<&ServiceName> {
        self.service.as_ref().filter(|service| **service != manifest.service)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.path
    }

    /// Whether the release is on disk. It is complete then, but may have been altered since: see
    /// [`ReleasesDir::verify`].
    pub fn has(&self, id: ReleaseId) -> bool {
        self.home(id).is_dir()
    }

    /// Where the files of a release are.
    pub fn path(&self, id: ReleaseId) -> PathBuf {
        self.home(id).join("tree")
    }

    /// The releases on disk, in no order.
    pub fn list(&self) -> Result<Vec<ReleaseId>, DiskError> {
        ids_in(&self.complete())
    }

    /// The manifest of a release on disk, checked against its id.
    pub fn manifest(&self, id: ReleaseId) -> Result<Manifest, VerifyError> {
        if !self.has(id) {
            return Err(VerifyError::Absent(id));
        }
        let text = self.manifest_text(id)?;
        match self.take_fresh(id) {
            Some(manifest) if id_of(&text) == id => Ok(manifest),
            Some(_) | None => Ok(manifest::verified(id, &text)?),
        }
    }

    /// Remembers the manifest of what was laid out just now.
    pub(crate) fn keep_fresh(&self, id: ReleaseId, manifest: Manifest) {
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, manifest));
    }

    fn take_fresh(&self, id: ReleaseId) -> Option<Manifest> {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.take_if(|(known, _)| *known == id).map(|(_, manifest)| manifest)
    }

    /// What should be the manifest of a release on disk.
    pub(crate) fn manifest_text(&self, id: ReleaseId) -> Result<String, DiskError> {
        read_manifest(&self.home(id))
    }

    /// The same of one under construction; it may be there in part.
    pub(crate) fn staged_manifest_text(&self, id: ReleaseId) -> Result<String, DiskError> {
        read_manifest(&self.staged(id))
    }

    /// The handle beneath which the files of a release are.
    pub(crate) fn tree(&self, id: ReleaseId) -> Result<Beneath, DiskError> {
        open_tree(&self.home(id))
    }

    /// The same of one under construction.
    pub(crate) fn staged_tree(&self, id: ReleaseId) -> Result<Beneath, DiskError> {
        open_tree(&self.staged(id))
    }

    /// Whether a release is on disk that was said to be [kept](ReleasesDir::keep): then it stays.
    pub(crate) fn stays(&self, id: ReleaseId) -> bool {
        let _taking = self.taking();
        self.has(id)
    }

    /// Moves a tree that is to be something else from now on, or nothing. A release goes only if it still need not be kept.
    /// Returns whether it was moved; then that is durable. The caller has the turn.
    fn take_away(&self, id: ReleaseId, home: &Path, to: &Path) -> Result<bool, DiskError> {
        {
            let _taking = self.taking();
            if home == self.home(id) && !self.surplus()?.contains(&id) {
                return Ok(false);
            }
            fs::rename(home, to).map_err(failed("move away", home))?;
            if home == self.home(id) {
                self.known.forget(id);
            }
        }
        home.parent().map_or(Ok(()), disk::sync)?;
        Ok(true)
    }

    fn taking(&self) -> MutexGuard<'_, ()> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else stages a release.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(|held| held.into_inner())
    }

    fn complete(&self) -> PathBuf {
        complete_in(&self.path)
    }

    fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }

    fn home(&self, id: ReleaseId) -> PathBuf {
        self.complete().join(id.to_string())
    }

    /// Removes everything that is half done, but for what the next fetch goes on from; follows no link.
    fn empty_staging(&self) -> Result<(), DiskError> {
        let (dir, begun) = (self.staging(), self.begun().map(|id| self.staged(id)));
        for entry in fs::read_dir(&dir).map_err(failed("list", &dir))? {
            let path = entry.map_err(failed("list", &dir))?.path();
            if Some(&path) != begun.as_ref() {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn staged(&self, id: ReleaseId) -> PathBuf {
        self.staging().join(id.to_string())
    }

    /// A name for something that is about to go, which nothing has yet.
    fn gone(&self) -> PathBuf {
        self.staging().join(format!("gone-{}", self.gone.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Where the releases of a state directory are.
pub(crate) fn complete_in(state: &Path) -> PathBuf {
    state.join("releases")
}

fn read_manifest(home: &Path) -> Result<String, DiskError> {
    let path = home.join("manifest");
    let text = fs::read(&path).map_err(failed("read", &path))?;
    // What is not text is not the manifest of any release, and neither is nothing.
    Ok(String::from_utf8(text).unwrap_or_default())
}

fn open_tree(home: &Path) -> Result<Beneath, DiskError> {
    let path = home.join("tree");
    Beneath::open(&path).map_err(failed("open", &path))
}

/// The releases by which something in a directory is named.
pub(crate) fn ids_in(dir: &Path) -> Result<Vec<ReleaseId>, DiskError> {
    let mut ids = Vec::new();
    for name in fs::read_dir(dir).map_err(failed("list", dir))? {
        let name = name.map_err(failed("list", dir))?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse::<ReleaseId>().ok()));
    }
    Ok(ids)
}

fn create_dir(path: &Path) -> Result<(), DiskError> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path).map_err(failed("create", path))
}

/// Programs are launched from here: nobody but this user may be able to change them.
fn check_owner(path: &Path) -> Result<(), OpenError> {
    const OTHERS_WRITE: u32 = 0o022;
    let found = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    let unsafe_because = |why| Err(OpenError::Unsafe { path: path.to_owned(), why });
    if !found.is_dir() {
        return unsafe_because("it is not a directory; if it is a link, use the directory itself");
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return unsafe_because("it belongs to another user");
    }
    if found.mode() & OTHERS_WRITE != 0 {
        return unsafe_because("others may write to it; run `chmod go-w` on it");
    }
    Ok(())
}
