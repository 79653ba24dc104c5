//! A state store as one file, to be kept elsewhere or brought to another store.
//!
//! The file is a line, `baton-state 1 HASH`, and the bytes that have this BLAKE3 hash: what is cut off or damaged is not
//! taken for a store.

use baton_core::units::Millis;
use baton_wire::stored::{BackedUp, Backup as Records, BadRecord, Record};

use super::events::EventLog;
use super::held::Held;
use super::rows::check_link;
use super::{EVENTS_MAX, Numbered, Service, StateError, StateStore};

/// What the file begins with; the number is that of this form.
const HEAD: &str = "baton-state 1 ";

/// All that a state store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup(Records);

/// Why bytes are no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// They do not begin as one does.
    #[error("it is no backup of a state store, or a newer baton has written it")]
    Foreign,
    /// They are not what was written.
    #[error("it is damaged or cut off: use another copy")]
    Damaged,
    /// They say something that cannot be.
    #[error("its content is not valid")]
    Invalid(#[from] BadRecord),
    /// The deploys of a service are not a log.
    #[error("the deploys of {service} are not valid: {why}")]
    Log {
        /// The service.
        service: String,
        /// Why.
        why: &'static str,
    },
}

impl Backup {
    /// Reads all of a store. What members said last is no part of it: they say it again.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(store: &dyn StateStore, now: Millis) -> Result<Self, StateError> {
        let back_up = |name| {
            let service = store.service(&name, now)?;
            let members = service.member_records().into_iter();
            let members = members.map(|(member, record)| (member.clone(), record)).collect();
            Ok(BackedUp { log: service.log().collect(), service: service.record(), members, name })
        };
        let services = store.services()?.into_iter().map(back_up).collect::<Result<_, StateError>>()?;
        let events = store.events(None, 0, EVENTS_MAX)?;
        let events = events.into_iter().map(|event| (event.number, event.event)).collect();
        Ok(Self(Records { services, events, access: store.access()? }))
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let records = self.0.to_bytes();
        let mut bytes = format!("{HEAD}{}\n", blake3::hash(&records)).into_bytes();
        bytes.extend(records);
        bytes
    }

    /// What is in a file.
    ///
    /// # Errors
    /// When it is no backup, whole and as it was written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BackupError> {
        let rest = bytes.strip_prefix(HEAD.as_bytes()).ok_or(BackupError::Foreign)?;
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(BackupError::Damaged)?;
        let (hash, records) = (&rest[..end], &rest[end + 1..]);
        if hash != blake3::hash(records).to_string().as_bytes() {
            return Err(BackupError::Damaged);
        }
        let backup = Self(Records::from_bytes(records)?);
        for service in &backup.0.services {
            let mut last = None;
            for logged in &service.log {
                check_link(last, logged, service.name.as_str(), logged.deploy.epoch.0)
                    .map_err(|why| BackupError::Log { service: service.name.to_string(), why })?;
                last = Some(logged);
            }
        }
        Ok(backup)
    }

    /// How many services and events it has.
    pub const fn size(&self) -> (usize, usize) {
        (self.0.services.len(), self.0.events.len())
    }

    /// What a store holds that has it, opened at the moment `now`.
    pub(super) fn into_held(self, now: Millis) -> Held {
        let service = |backed_up: BackedUp| {
            let BackedUp { name, service, log, members } = backed_up;
            let service = Service::stored(&name, log, members, service, now);
            (name, service)
        };
        let services = self.0.services.into_iter().map(service).collect();
        let event = |(number, event)| Numbered { number, event };
        let events = EventLog::of(self.0.events.into_iter().map(event).collect());
        Held::new(services, events, now).with_access(self.0.access)
    }
}
