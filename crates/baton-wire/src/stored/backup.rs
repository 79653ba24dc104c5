//! All of a state store.

use baton_core::event::Event;
use baton_core::ids::{MemberId, ServiceName};

use super::field::{parsed, present};
use super::{BadRecord, Encoded, LoggedDeploy, MemberRecord, ServiceRecord, v1};

/// All that a state store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backup {
    /// The services.
    pub services: Vec<BackedUp>,
    /// The events with their numbers, oldest first.
    pub events: Vec<(u64, Event)>,
    /// Who may do what, as bytes that only control can read.
    pub access: Option<Vec<u8>>,
}

/// All that is kept of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// Its name.
    pub name: ServiceName,
    /// What is kept of itself.
    pub service: ServiceRecord,
    /// Its deploys, oldest first.
    pub log: Vec<LoggedDeploy>,
    /// Its members.
    pub members: Vec<(MemberId, MemberRecord)>,
}

impl Encoded for Backup {
    type Message = v1::Backup;

    fn to_message(&self) -> v1::Backup {
        let event = |(number, event): &(u64, Event)| v1::NumberedEvent {
            number: Some(*number),
            event: Some(event.to_message()),
        };
        v1::Backup {
            services: self.services.iter().map(service_message).collect(),
            events: self.events.iter().map(event).collect(),
            access: self.access.clone(),
        }
    }

    fn from_message(message: v1::Backup) -> Result<Self, BadRecord> {
        let event = |message: v1::NumberedEvent| {
            let event = Event::from_message(present(message.event, "events.event")?)?;
            Ok((present(message.number, "events.number")?, event))
        };
        Ok(Self {
            services: message.services.into_iter().map(read_service).collect::<Result<_, _>>()?,
            events: message.events.into_iter().map(event).collect::<Result<_, _>>()?,
            access: message.access,
        })
    }
}

fn service_message(backed_up: &BackedUp) -> v1::BackedUp {
    let member = |(name, record): &(MemberId, MemberRecord)| v1::NamedMember {
        name: Some(name.to_string()),
        member: Some(record.to_message()),
    };
    v1::BackedUp {
        name: Some(backed_up.name.to_string()),
        service: Some(backed_up.service.to_message()),
        deploys: backed_up.log.iter().map(Encoded::to_message).collect(),
        members: backed_up.members.iter().map(member).collect(),
    }
}

fn read_service(message: v1::BackedUp) -> Result<BackedUp, BadRecord> {
    let member = |message: v1::NamedMember| {
        let name = parsed(message.name, "services.members.name")?;
        let record = MemberRecord::from_message(present(message.member, "services.members.member")?)?;
        Ok((name, record))
    };
    Ok(BackedUp {
        name: parsed(message.name, "services.name")?,
        service: ServiceRecord::from_message(present(message.service, "services.service")?)?,
        log: message.deploys.into_iter().map(LoggedDeploy::from_message).collect::<Result<_, _>>()?,
        members: message.members.into_iter().map(member).collect::<Result<_, _>>()?,
    })
}
