//! The file of an embedded state store: what is in it, and how it differs from what is held.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io;
use std::panic;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use baton_core::ids::{MemberId, ServiceName};
use baton_core::units::Millis;
use baton_wire::stored::{LoggedDeploy, MemberRecord, Record, SCHEMA, ServiceRecord};
use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

use crate::state::events::{EVENTS_MAX, EventLog, Numbered};
use crate::state::held::Held;
use crate::state::{Service, StateError};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SERVICES: TableDefinition<&str, &[u8]> = TableDefinition::new("services");
/// By service and epoch.
const DEPLOYS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("deploys");
/// By service and member.
const MEMBERS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("members");
/// By number.
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");

/// The key of the schema version in the table `meta`.
const SCHEMA_KEY: &str = "schema";

/// Everything is read once and held elsewhere, so only the inner pages of the trees are worth a cache.
const CACHE_BYTES: usize = 4 << 20;

/// An open file, and what is in it.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    database: Database,
    saved: BTreeMap<ServiceName, Service>,
}

impl Disk {
    /// Opens the file, or makes it, and reads all of it.
    pub(super) fn open(path: &Path, now: Millis) -> Result<(Self, Held), StateError> {
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
        let (services, events) = load(path, &database, now)?;
        let held = Held::new(services.clone(), events, now);
        Ok((Self { path: path.to_owned(), database, saved: services }, held))
    }

    /// Writes what differs from what is in the file. On return it is durable, all of it; after an error,
    /// nothing of it is in the file, or all.
    pub(super) fn save(
        &mut self,
        services: &[(&ServiceName, &Service)],
        events: &[Numbered],
    ) -> Result<(), StateError> {
        self.write(services, events).map_err(|error| failed(&self.path, "write", error))?;
        for &(name, service) in services {
            self.saved.insert(name.clone(), service.clone());
        }
        Ok(())
    }

    fn write(&self, services: &[(&ServiceName, &Service)], events: &[Numbered]) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        for &(name, service) in services {
            write_service(&transaction, name, self.saved.get(name), service)?;
        }
        write_events(&transaction, events)?;
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

/// Makes an empty store under another name first: a file that was left half made would never open again.
fn create(path: &Path) -> Result<Database, StateError> {
    let failed_io = |error: io::Error| failed(path, "create", error);
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(".state-").tempfile_in(directory).map_err(failed_io)?;
    let (file, name) = temporary.into_parts();
    let database = builder().create_file(file).map_err(|error| failed(path, "create", error))?;
    initialise(&database).map_err(|error| failed(path, "create", error))?;
    match name.persist_noclobber(path) {
        Ok(()) => File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed_io)?,
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return open(path),
        Err(error) => return Err(failed_io(error.error)),
    }
    Ok(database)
}

fn initialise(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
    transaction.open_table(SERVICES)?;
    transaction.open_table(DEPLOYS)?;
    transaction.open_table(MEMBERS)?;
    transaction.open_table(EVENTS)?;
    Ok(transaction.commit()?)
}

fn write_service(
    transaction: &WriteTransaction,
    name: &ServiceName,
    saved: Option<&Service>,
    service: &Service,
) -> Result<(), redb::Error> {
    let record = service.record();
    if saved.map(Service::record) != Some(record) {
        transaction.open_table(SERVICES)?.insert(name.as_str(), &*record.to_bytes())?;
    }
    let logged = service.logged();
    if let Some(logged) = logged.as_ref().filter(|_| logged != saved.and_then(Service::logged)) {
        let key = (name.as_str(), logged.deploy.epoch.0);
        transaction.open_table(DEPLOYS)?.insert(key, &*logged.to_bytes())?;
    }
    let mut table = transaction.open_table(MEMBERS)?;
    let before = saved.map(Service::member_records).unwrap_or_default();
    let after = service.member_records();
    for (member, record) in after.iter().filter(|(member, record)| before.get(*member) != Some(record)) {
        table.insert((name.as_str(), member.as_str()), &*record.to_bytes())?;
    }
    for member in before.keys().filter(|member| !after.contains_key(*member)) {
        table.remove((name.as_str(), member.as_str()))?;
    }
    Ok(())
}

fn write_events(transaction: &WriteTransaction, events: &[Numbered]) -> Result<(), redb::Error> {
    let Some(last) = events.last() else { return Ok(()) };
    let mut table = transaction.open_table(EVENTS)?;
    for Numbered { number, event } in events {
        table.insert(number, &*event.to_bytes())?;
    }
    let oldest = (last.number + 1).saturating_sub(EVENTS_MAX as u64);
    table.retain_in(..oldest, |_, _| false)?;
    Ok(())
}

type Loaded = (BTreeMap<ServiceName, Service>, EventLog);

/// What is stored of one service.
#[derive(Default)]
struct Rows {
    service: Option<ServiceRecord>,
    log: Vec<LoggedDeploy>,
    members: Vec<(MemberId, MemberRecord)>,
}

fn load(path: &Path, database: &Database, now: Millis) -> Result<Loaded, StateError> {
    let reader = Reader { path, transaction: database.begin_read().map_err(|e| failed(path, "read", e))? };
    reader.check_schema()?;
    let mut services: BTreeMap<ServiceName, Rows> = BTreeMap::new();
    reader.each(SERVICES, |key, value| {
        let name = reader.parsed(key, "the name of a service")?;
        let record = reader.record(value, || format!("service {name}"))?;
        services.entry(name).or_default().service = Some(record);
        Ok(())
    })?;
    reader.each(DEPLOYS, |(name, epoch), value| {
        let what = || format!("deploy {epoch} of {name}");
        let logged: LoggedDeploy = reader.record(value, what)?;
        let service = reader.parsed(name, "the service of a deploy")?;
        let log = &mut services.entry(service).or_default().log;
        check_link(log.last(), &logged, name, epoch).map_err(|wrong| corrupt(path, what(), wrong))?;
        log.push(logged);
        Ok(())
    })?;
    reader.each(MEMBERS, |(name, member), value| {
        let record = reader.record(value, || format!("member {member} of {name}"))?;
        let name = reader.parsed(name, "the service of a member")?;
        let member = reader.parsed(member, "the name of a member")?;
        services.entry(name).or_default().members.push((member, record));
        Ok(())
    })?;
    let mut events = Vec::new();
    reader.each(EVENTS, |number, value| {
        let event = reader.record(value, || format!("event {number}"))?;
        events.push(Numbered { number, event });
        Ok(())
    })?;
    let whole = |(name, rows): (ServiceName, Rows)| {
        let record = rows.service.ok_or_else(|| corrupt(path, format!("service {name}"), "it is missing"))?;
        let service = Service::stored(&name, rows.log, rows.members, record, now);
        Ok((name, service))
    };
    Ok((services.into_iter().map(whole).collect::<Result<_, _>>()?, EventLog::of(events)))
}

/// Whether a deploy is the next one of a log, stored in its place.
fn check_link(
    last: Option<&LoggedDeploy>,
    next: &LoggedDeploy,
    service: &str,
    epoch: u64,
) -> Result<(), &'static str> {
    if next.deploy.service.as_str() != service || next.deploy.epoch.0 != epoch {
        Err("it lies in the place of another one")
    } else if next.deploy.parent != last.map(|last| last.deploy.id) {
        Err("its parent is not the deploy before it")
    } else {
        Ok(())
    }
}

/// One look at the file.
struct Reader<'a> {
    path: &'a Path,
    transaction: ReadTransaction,
}

impl Reader<'_> {
    fn check_schema(&self) -> Result<(), StateError> {
        let mut schema = None;
        self.each(META, |key, value| {
            if key == SCHEMA_KEY {
                schema = Some(value);
            }
            Ok(())
        })?;
        match schema {
            Some(SCHEMA) => Ok(()),
            Some(found) if found > SCHEMA => {
                Err(StateError::Newer { path: self.path.to_owned(), found, known: SCHEMA })
            }
            Some(found) => {
                Err(corrupt(self.path, "its schema version", format!("there never was a version {found}")))
            }
            None => Err(corrupt(self.path, "its schema version", "it is missing")),
        }
    }

    /// Hands every row of a table to `read`, in the order of the keys.
    fn each<K: redb::Key, V: redb::Value>(
        &self,
        table: TableDefinition<K, V>,
        mut read: impl FnMut(K::SelfType<'_>, V::SelfType<'_>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let table = self.transaction.open_table(table).map_err(|error| failed(self.path, "read", error))?;
        for row in table.iter().map_err(|error| failed(self.path, "read", error))? {
            let (key, value) = row.map_err(|error| failed(self.path, "read", error))?;
            read(key.value(), value.value())?;
        }
        Ok(())
    }

    fn record<T: Record>(&self, bytes: &[u8], what: impl FnOnce() -> String) -> Result<T, StateError> {
        T::from_bytes(bytes).map_err(|error| corrupt(self.path, what(), error))
    }

    fn parsed<T>(&self, text: &str, what: &str) -> Result<T, StateError>
    where
        T: FromStr<Err: Error + Send + Sync + 'static>,
    {
        text.parse().map_err(|error: T::Err| corrupt(self.path, what, error))
    }
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
    use std::sync::{Arc, Mutex};

    use baton_core::deploy::Policy;
    use baton_core::history::{Proposal, Wish};
    use baton_core::ids::{DeployId, ReleaseId};
    use redb::StorageBackend;

    use super::*;

    /// A disk that forgets, when the power goes, what was written after the last sync.
    #[derive(Debug, Clone, Default)]
    struct Forgetful {
        written: Arc<Mutex<Vec<u8>>>,
        synced: Arc<Mutex<Vec<u8>>>,
    }

    impl Forgetful {
        /// The disk once the power is back.
        fn after_power_cut(&self) -> Self {
            let left = self.synced.lock().unwrap().clone();
            Self { written: Arc::new(Mutex::new(left.clone())), synced: Arc::new(Mutex::new(left)) }
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
            self.synced.lock().unwrap().clone_from(&self.written.lock().unwrap());
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
            self.written.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    fn opened(disk: Forgetful) -> (Disk, Held) {
        let mut database = builder().create_with_backend(disk).unwrap();
        let path = Path::new("state.redb");
        check(path, &mut database).unwrap();
        Disk::read(path, database, Millis::ZERO).unwrap()
    }

    #[test]
    fn p31_an_accepted_deploy_survives_a_power_cut() {
        let power = Forgetful::default();
        initialise(&builder().create_with_backend(power.clone()).unwrap()).unwrap();
        let web: ServiceName = "web".parse().unwrap();
        let mut power = power.after_power_cut();
        for number in 1..=5 {
            let (mut disk, mut held) = opened(power.clone());
            let parent = held.get(&web).history().in_force().map(|deploy| deploy.id);
            let release = ReleaseId::from_bytes([number; 32]);
            let proposal = Proposal {
                id: DeployId::from_bytes([number; 16]),
                parent,
                wish: Wish::Rollout { release, policy: Policy::safe(), again: false },
                reason: String::new(),
                actor: "ada".to_owned(),
                created: 0,
            };
            let propose = |next: &mut Service| next.propose(&web, proposal, Millis::ZERO);
            let accepted = held.write(&web, propose, |next| disk.save(&[(&web, next)], &[])).unwrap();
            // The power goes before the server has closed anything.
            power = power.after_power_cut();
            let (_, found) = opened(power.after_power_cut());
            assert_eq!(found.get(&web).history().in_force(), Some(&accepted.deploy));
            assert_eq!(accepted.deploy.epoch.0, u64::from(number));
        }
    }
}
