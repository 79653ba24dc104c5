//! The tables of the file: how what is held becomes rows, and rows what is held.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::str::FromStr;

use baton_core::ids::{MemberId, ServiceName};
use baton_core::units::Millis;
use baton_wire::stored::{LoggedDeploy, MemberRecord, Record, SCHEMA, ServiceRecord};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableError, WriteTransaction,
};

use super::{corrupt, failed};
use crate::state::events::{EVENTS_MAX, EventLog, Numbered};
use crate::state::held::Held;
use crate::state::rows::check_link;
use crate::state::{Service, StateError};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SERVICES: TableDefinition<&str, &[u8]> = TableDefinition::new("services");
/// By service and epoch.
const DEPLOYS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("deploys");
/// By service and member.
const MEMBERS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("members");
/// By number.
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");

/// One row: who may do what. Not in files of schemas before 4.
const ACCESS: TableDefinition<&str, &[u8]> = TableDefinition::new("access");

/// The key of that row.
const ACCESS_KEY: &str = "list";
/// The key of the schema version in the table `meta`.
const SCHEMA_KEY: &str = "schema";

/// The tables of an empty store.
pub(super) fn initialise(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
    transaction.open_table(SERVICES)?;
    transaction.open_table(DEPLOYS)?;
    transaction.open_table(MEMBERS)?;
    transaction.open_table(EVENTS)?;
    Ok(())
}

/// All that is held, into an empty store.
pub(super) fn write_all(transaction: &WriteTransaction, held: &Held) -> Result<(), redb::Error> {
    initialise(transaction)?;
    for (name, service) in held.services() {
        write_service(transaction, name, None, service)?;
    }
    if let Some(access) = held.access() {
        write_access(transaction, access)?;
    }
    write_events(transaction, held.events().all())
}

/// Who may do what.
pub(super) fn write_access(transaction: &WriteTransaction, access: &[u8]) -> Result<(), redb::Error> {
    // An older program would lose it.
    transaction.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
    transaction.open_table(ACCESS)?.insert(ACCESS_KEY, access)?;
    Ok(())
}

/// What differs between a service and what was `saved` of it.
pub(super) fn write_service(
    transaction: &WriteTransaction,
    name: &ServiceName,
    saved: Option<&Service>,
    service: &Service,
) -> Result<(), redb::Error> {
    let record = service.record();
    if saved.map(Service::record).as_ref() != Some(&record) {
        if record.lock.is_some() || !record.tags.is_empty() {
            // As with deploys below: an older program would lose it.
            transaction.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
        }
        transaction.open_table(SERVICES)?.insert(name.as_str(), &*record.to_bytes())?;
    }
    for logged in service.new_deploys(saved) {
        // An older program must not open what it would write back without what it does not know.
        transaction.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
        let key = (name.as_str(), logged.deploy.epoch.0);
        transaction.open_table(DEPLOYS)?.insert(key, &*logged.to_bytes())?;
    }
    let mut table = transaction.open_table(MEMBERS)?;
    let records = saved.map_or_else(|| service.new_records(None), |saved| service.new_records_since(saved));
    for (member, record) in records {
        let key = (name.as_str(), member.as_str());
        match record {
            Some(record) => table.insert(key, &*record.to_bytes())?,
            None => table.remove(key)?,
        };
    }
    Ok(())
}

/// These events, oldest first, instead of those that are too old.
pub(super) fn write_events<'a>(
    transaction: &WriteTransaction,
    events: impl IntoIterator<Item = &'a Numbered>,
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(EVENTS)?;
    for Numbered { number, event } in events {
        table.insert(number, &*event.to_bytes())?;
    }
    // There may be gaps in the numbers of those that were brought from another store.
    while table.len()? > EVENTS_MAX as u64 {
        table.pop_first()?;
    }
    Ok(())
}

type Loaded = (BTreeMap<ServiceName, Service>, EventLog, Option<Vec<u8>>);

/// What is stored of one service.
#[derive(Default)]
struct Rows {
    service: Option<ServiceRecord>,
    log: Vec<LoggedDeploy>,
    members: Vec<(MemberId, MemberRecord)>,
}

/// Reads all of it.
pub(super) fn load(path: &Path, database: &Database, now: Millis) -> Result<Loaded, StateError> {
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
    let services = services.into_iter().map(whole).collect::<Result<_, _>>()?;
    Ok((services, EventLog::of(events), reader.access()?))
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
            Some(1..=SCHEMA) => Ok(()),
            Some(found) if found > SCHEMA => {
                Err(StateError::Newer { path: self.path.to_owned(), found, known: SCHEMA })
            }
            Some(found) => {
                Err(corrupt(self.path, "its schema version", format!("there never was a version {found}")))
            }
            None => Err(corrupt(self.path, "its schema version", "it is missing")),
        }
    }

    fn access(&self) -> Result<Option<Vec<u8>>, StateError> {
        let failed = |error: redb::Error| failed(self.path, "read", error);
        match self.transaction.open_table(ACCESS) {
            Ok(table) => {
                let row = table.get(ACCESS_KEY).map_err(|error| failed(error.into()))?;
                Ok(row.map(|row| row.value().to_vec()))
            }
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(failed(error.into())),
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
