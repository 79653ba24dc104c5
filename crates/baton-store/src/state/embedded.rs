//! A state store in one file, for one server.
//!
//! Everything is held in memory; the file is read once and then only written. What a call promises to be durable
//! is on the disk before the call returns and before any other call sees it.
//!
//! A file that a write has failed on is not written again: nobody can say how much of it has come to the disk,
//! and a second sync may report success for what the first one has thrown away. Before the next use, all that
//! is held goes into a new file, which takes the place of the old one once it is whole.

mod tables;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::{Path, PathBuf};

use baton_core::ids::ServiceName;
use baton_core::units::Millis;
use redb::{Builder, Database, Durability, WriteTransaction};
use tempfile::TempPath;

use super::held::Held;
use super::store::{Medium, Store};
use super::{Backup, Numbered, Service, StateError};
use crate::reserve::Reserve;

/// Everything is read once and held elsewhere, so only the inner pages of the trees are worth a cache.
const CACHE_BYTES: usize = 4 << 20;

/// The unit in which the system counts the blocks of a file, in bytes.
const BLOCK_BYTES: u64 = 512;

/// A state store in one file, which one process at a time may have open.
pub type EmbeddedStore = Store<Disk>;

/// An open file, and what is in it.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    database: Database,
    saved: BTreeMap<ServiceName, Service>,
    /// Space for what stops harm.
    reserve: Reserve,
    /// Whether a write has failed, so that the file must be made anew.
    failed: bool,
}

impl EmbeddedStore {
    /// Opens the store in this file, at the moment `now`; makes an empty one if there is none. The directory
    /// must exist.
    ///
    /// # Errors
    /// When another process has it open, when a newer version has written it, when anything in it is not as
    /// it was written, or when the disk fails.
    pub fn open(path: &Path, now: Millis) -> Result<Self, StateError> {
        let (disk, held) = Disk::open(path, now)?;
        Ok(Self::over(held, disk))
    }

    /// Makes a store of a backup where there is none. On return it is whole and durable.
    ///
    /// # Errors
    /// When there is one, or when the disk fails.
    pub fn import(path: &Path, backup: Backup, now: Millis) -> Result<(), StateError> {
        let held = backup.into_held(now);
        let (_, unnamed) = fill(path, |transaction| tables::write_all(transaction, &held))
            .map_err(|error| failed(path, "create", error))?;
        unnamed.persist_noclobber(path).map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => StateError::NotEmpty { store: path.display().to_string() },
            _ => failed(path, "create", error.error),
        })?;
        sync_directory(path).map_err(|error| failed(path, "create", error))
    }
}

impl Medium for Disk {
    fn save(&mut self, services: &[(&ServiceName, &Service)], events: &[Numbered]) -> Result<(), StateError> {
        if let Err(error) = self.write(services, events) {
            self.failed = true;
            return Err(failed(&self.path, "write", error));
        }
        for &(name, service) in services {
            self.saved.insert(name.clone(), service.clone());
        }
        self.reserve.keep();
        Ok(())
    }

    fn make_room(&mut self) -> bool {
        self.reserve.release()
    }

    fn save_access(&mut self, access: &[u8]) -> Result<(), StateError> {
        self.write_access(access).map_err(|error| {
            self.failed = true;
            failed(&self.path, "write", error)
        })
    }

    fn mend(&mut self, held: &Held) -> Result<(), StateError> {
        if self.failed {
            check_room(&self.path)?;
            // The old file stays open, and with it locked, until the new one is.
            self.database = rewrite(&self.path, held).map_err(|error| failed(&self.path, "write", error))?;
            self.saved.clone_from(held.services());
            self.failed = false;
        }
        Ok(())
    }
}

impl Disk {
    /// Opens the file, or makes it, and reads all of it.
    fn open(path: &Path, now: Millis) -> Result<(Self, Held), StateError> {
        // The library relies on some of what it reads before it has checked it.
        let opened = panic::catch_unwind(|| {
            let exists = path.try_exists().map_err(|error| failed(path, "open", error))?;
            let mut database = if exists { open(path)? } else { create(path)? };
            check(path, &mut database)?;
            Self::read(path, database, now)
        });
        opened.unwrap_or_else(|_| Err(corrupt(path, "its structure", "a page is not what it should be")))
    }

    fn read(path: &Path, database: Database, now: Millis) -> Result<(Self, Held), StateError> {
        let (services, events, access) = tables::load(path, &database, now)?;
        let held = Held::new(services.clone(), events, now).with_access(access);
        let reserve = Reserve::of(path);
        reserve.keep();
        Ok((Self { path: path.to_owned(), database, saved: services, reserve, failed: false }, held))
    }

    fn write_access(&self, access: &[u8]) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        tables::write_access(&transaction, access)?;
        Ok(transaction.commit()?)
    }

    fn write(&self, services: &[(&ServiceName, &Service)], events: &[Numbered]) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        for &(name, service) in services {
            tables::write_service(&transaction, name, self.saved.get(name), service)?;
        }
        tables::write_events(&transaction, events)?;
        Ok(transaction.commit()?)
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn open(path: &Path) -> Result<Database, StateError> {
    builder().open(path).map_err(|error| failed(path, "open", error))
}

/// Checks every page, so that nothing is found damaged only once it is needed. It takes no longer than reading
/// the file, which happens anyway.
fn check(path: &Path, database: &mut Database) -> Result<(), StateError> {
    match database.check_integrity() {
        Ok(true) => Ok(()),
        Ok(false) => Err(corrupt(path, "its newest part", "start again to go on with what was before it")),
        Err(error) => Err(failed(path, "check", error)),
    }
}

/// Makes an empty store.
fn create(path: &Path) -> Result<Database, StateError> {
    let (database, unnamed) =
        fill(path, tables::initialise).map_err(|error| failed(path, "create", error))?;
    match unnamed.persist_noclobber(path) {
        Ok(()) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return open(path),
        Err(error) => return Err(failed(path, "create", error.error)),
    }
    sync_directory(path).map_err(|error| failed(path, "create", error))?;
    Ok(database)
}

/// Puts a new store with all that is held in the place of the file.
fn rewrite(path: &Path, held: &Held) -> Result<Database, redb::Error> {
    let (database, unnamed) = fill(path, |transaction| tables::write_all(transaction, held))?;
    unnamed.persist(path).map_err(|error| error.error)?;
    sync_directory(path)?;
    Ok(database)
}

/// Makes a store under another name beside `path`, whole and durable: one that was left half made there would
/// never open again.
fn fill(
    path: &Path,
    write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(Database, TempPath), redb::Error> {
    let (file, name) = tempfile::Builder::new().prefix(".state-").tempfile_in(directory(path))?.into_parts();
    let database = builder().create_file(file)?;
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    write(&transaction)?;
    transaction.commit()?;
    Ok((database, name))
}

/// A new file is begun only where there is room for one like the old: every attempt would take the last space
/// from whoever else writes there.
fn check_room(path: &Path) -> Result<(), StateError> {
    // Where either cannot be told, writing will show it.
    let needed = fs::metadata(path).map_or(0, |file| file.blocks() * BLOCK_BYTES);
    let free = rustix::fs::statvfs(directory(path)).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize);
    if needed <= free {
        return Ok(());
    }
    let source = format!("{} kB are needed", needed.div_ceil(1000)).into();
    Err(StateError::DiskFull { path: path.to_owned(), source })
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

fn corrupt(
    path: &Path,
    what: impl Into<String>,
    source: impl Into<Box<dyn Error + Send + Sync>>,
) -> StateError {
    StateError::Corrupt { path: path.to_owned(), what: what.into(), source: source.into() }
}

/// What a failure of the library or of the system means.
fn failed(path: &Path, verb: &str, error: impl Into<redb::Error>) -> StateError {
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => StateError::InUse { path: path.to_owned() },
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            corrupt(path, "its structure", error)
        }
        redb::Error::Io(error)
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            StateError::DiskFull { path: path.to_owned(), source: error.into() }
        }
        error @ (redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }) => corrupt(path, "its structure", error),
        error => {
            StateError::Unavailable { attempted: format!("{verb} {}", path.display()), source: error.into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use baton_core::deploy::{Deploy, Policy};
    use baton_core::history::{Backing, Proposal, Wish};
    use baton_core::ids::{DeployId, ReleaseId};
    use redb::StorageBackend;

    use super::*;

    /// A disk that forgets, when the power goes, what was written after the last sync.
    #[derive(Debug, Clone, Default)]
    struct Forgetful {
        written: Arc<Mutex<Vec<u8>>>,
        synced: Arc<Mutex<Vec<u8>>>,
        /// No sync comes to its end, although everything is written.
        broken: Arc<AtomicBool>,
    }

    impl Forgetful {
        /// The disk once the power is back.
        fn after_power_cut(&self) -> Self {
            let left = self.synced.lock().unwrap().clone();
            let (written, synced) = (Arc::new(Mutex::new(left.clone())), Arc::new(Mutex::new(left)));
            Self { written, synced, broken: Arc::default() }
        }
    }

    impl StorageBackend for Forgetful {
        fn len(&self) -> Result<u64, io::Error> {
            Ok(self.written.lock().unwrap().len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
            out.copy_from_slice(&self.written.lock().unwrap()[offset as usize..][..out.len()]);
            Ok(())
        }

        fn set_len(&self, len: u64) -> Result<(), io::Error> {
            self.written.lock().unwrap().resize(len as usize, 0);
            Ok(())
        }

        fn sync_data(&self) -> Result<(), io::Error> {
            if self.broken.load(Ordering::Relaxed) {
                return Err(io::Error::other("the disk is on fire"));
            }
            self.synced.lock().unwrap().clone_from(&self.written.lock().unwrap());
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
            self.written.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    /// An empty store on such a disk.
    fn made() -> Forgetful {
        let power = Forgetful::default();
        let database = builder().create_with_backend(power.clone()).unwrap();
        let transaction = database.begin_write().unwrap();
        tables::initialise(&transaction).unwrap();
        transaction.commit().unwrap();
        power
    }

    fn opened(path: &Path, disk: Forgetful) -> (Disk, Held) {
        let mut database = builder().create_with_backend(disk).unwrap();
        check(path, &mut database).unwrap();
        Disk::read(path, database, Millis::ZERO).unwrap()
    }

    fn web() -> ServiceName {
        "web".parse().unwrap()
    }

    /// Deploys the release of this number, after whatever is in force.
    fn deploy(number: u8, disk: &mut Disk, held: &mut Held) -> Result<Deploy, StateError> {
        let release = ReleaseId::from_bytes([number; 32]);
        let proposal = Proposal {
            id: DeployId::from_bytes([number; 16]),
            parent: held.get(&web()).history().in_force().map(|deploy| deploy.id),
            wish: Wish::Rollout { release, policy: Policy::safe(), again: false },
            reason: String::new(),
            actor: "ada".to_owned(),
            created: 0,
            backing: Backing::InForce,
            blame: None,
        };
        let propose = |next: &mut Service, _: &Held| next.propose(&web(), proposal, None, Millis::ZERO);
        let accepted = held.write(&web(), propose, |next| disk.save(&[(&web(), next)], &[]))?;
        Ok(accepted.deploy)
    }

    #[test]
    fn p31_an_accepted_deploy_survives_a_power_cut() {
        let path = Path::new("state.redb");
        let mut power = made().after_power_cut();
        for number in 1..=5 {
            let (mut disk, mut held) = opened(path, power.clone());
            let accepted = deploy(number, &mut disk, &mut held).unwrap();
            // The power goes before the server has closed anything.
            power = power.after_power_cut();
            let (_, found) = opened(path, power.after_power_cut());
            assert_eq!(found.get(&web()).history().in_force(), Some(&accepted));
            assert_eq!(accepted.epoch.0, u64::from(number));
        }
    }

    #[test]
    fn p29_after_a_failed_sync_a_new_file_has_what_is_held_and_not_what_failed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        let power = made();
        let (mut disk, mut held) = opened(&path, power.clone());
        let first = deploy(1, &mut disk, &mut held).unwrap();
        power.broken.store(true, Ordering::Relaxed);
        let error = deploy(2, &mut disk, &mut held).unwrap_err();
        assert!(matches!(error, StateError::Unavailable { .. }), "{error}");
        assert_eq!(held.get(&web()).history().in_force(), Some(&first));

        disk.mend(&held).unwrap();
        let third = deploy(3, &mut disk, &mut held).unwrap();
        assert_eq!((third.epoch.0, third.parent), (2, Some(first.id)));
        drop(disk);
        let (_, found) = Disk::open(&path, Millis::ZERO).unwrap();
        assert_eq!(found.get(&web()).history(), held.get(&web()).history());
    }
}
