//! One service in Redis: its version, its deploys, and its members' slots.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use baton_core::ids::{MemberId, ServiceName};
use baton_core::units::Millis;
use baton_wire::stored::{LoggedDeploy, MemberRecord, Record, ServiceRecord};
use redis::{Pipeline, Value};

use super::answer::{Unexpected, bytes, integer, list, number, optional, pairs, text};
use super::keys::Keys;
use crate::state::Service;
use crate::state::rows::check_link;

/// The fields of the hash of a service.
const VERSION: &str = "version";
const EPOCH: &str = "epoch";
const RECORD: &str = "record";
/// The version that has last put together what two servers knew: who knows the service from before looks at what it knows
/// alone. Servers of before have none, and leave it as it is.
const ERA: &str = "era";

/// What is wrong with something that is stored.
pub(super) type Wrong = Box<dyn Error + Send + Sync>;

/// A state of a service: how many changes there were, and who made the last one. Two of the same number that differ are
/// the ends of two logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) count: u64,
    by: String,
}

impl Version {
    /// The state after this one, made by a server that has made `nth` changes.
    pub(super) fn after(count: u64, server: &str, nth: u64) -> Self {
        Self { count: count.saturating_add(1), by: format!("{server}.{nth}") }
    }

    fn parse(text: &str) -> Result<Self, Unexpected> {
        let parsed = text.split_once(' ').and_then(|(count, by)| Some((count.parse().ok()?, by)));
        let (count, by) = parsed.ok_or_else(|| Unexpected::new("a version", None))?;
        Ok(Self { count, by: by.to_owned() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.by)
    }
}

/// How a service stands in the store, at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glance {
    /// None when the store knows nothing of it.
    pub(super) version: Option<Version>,
    epoch: u64,
    era: Option<String>,
    deploys: u64,
    members: u64,
}

/// How many commands a glance takes.
pub(super) const GLANCE: usize = 3;

/// Asks how a service stands.
pub(super) fn ask_glance(keys: &Keys, name: &ServiceName, ask: &mut Pipeline) {
    ask.cmd("HMGET").arg(keys.service(name)).arg(&[VERSION, EPOCH, ERA]);
    ask.cmd("HLEN").arg(keys.deploys(name));
    ask.cmd("HLEN").arg(keys.members(name));
}

pub(super) fn read_glance(answers: &[Value]) -> Result<Glance, Unexpected> {
    let [head, deploys, members] = answers else { return Err(Unexpected::new("a glance", None)) };
    let [version, epoch, era] = list(head)? else {
        return Err(Unexpected::new("a version, an epoch and an era", None));
    };
    let version = match version {
        Value::Nil => None,
        version => Some(Version::parse(&text(version)?)?),
    };
    let epoch = if version.is_some() { number(epoch)? } else { 0 };
    let count = |value| Ok(integer(value)?.unsigned_abs());
    let era = optional(era)?.map(|era| String::from_utf8_lossy(era).into_owned());
    Ok(Glance { version, epoch, era, deploys: count(deploys)?, members: count(members)? })
}

/// A service as the store has it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) version: Version,
    pub(super) service: Service,
    pub(super) era: Option<String>,
    deploys: u64,
    members: u64,
}

impl Stored {
    pub(super) fn new(version: Version, service: Service, era: Option<String>) -> Self {
        let deploys = service.history().past().len() as u64;
        let members = service.member_records().len() as u64;
        Self { version, service, era, deploys, members }
    }

    /// Whether a glance shows this state, whole.
    pub(super) fn is(&self, glance: &Glance) -> bool {
        glance.version.as_ref() == Some(&self.version)
            && (glance.deploys, glance.members) == (self.deploys, self.members)
    }

    /// Whether a glance shows a state that has come of this one, or of another one that a loss has left.
    pub(super) fn is_of_era(&self, glance: &Glance) -> bool {
        self.era == glance.era
    }

    /// Whether a glance shows a later state than this.
    pub(super) fn is_before(&self, glance: &Glance) -> bool {
        glance.version.as_ref().is_some_and(|version| version.count > self.version.count)
    }
}

/// The part of a log that is asked for, where the rest is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since<'a> {
    /// The service, as far as it is known.
    known: &'a Service,
    /// The deploy that is in force by now.
    epoch: u64,
}

impl<'a> Since<'a> {
    /// What has come after this, as a glance shows it.
    pub(super) const fn new(known: &'a Service, glance: &Glance) -> Self {
        Self { known, epoch: glance.epoch }
    }

    /// The number of the last deploy that is known: how far it got may have been written before the next one came.
    fn last(self) -> u64 {
        self.known.history().in_force().map_or(self.epoch, |deploy| deploy.epoch.0)
    }
}

/// Asks for all that is stored of a service, or of its log for what is new only. The version comes twice, so that what is in
/// between is known to be of one state.
pub(super) fn ask_rows(keys: &Keys, name: &ServiceName, since: Option<Since<'_>>, ask: &mut Pipeline) {
    let head = keys.service(name);
    ask.cmd("HMGET").arg(&head).arg(&[VERSION, EPOCH, RECORD, ERA]);
    match since {
        Some(since) => ask.cmd("HMGET").arg(keys.deploys(name)).arg(since.last()).arg(since.epoch),
        None => ask.cmd("HGETALL").arg(keys.deploys(name)),
    };
    ask.cmd("HGETALL").arg(keys.members(name));
    ask.cmd("HMGET").arg(&head).arg(&[VERSION, EPOCH, RECORD, ERA]);
}

/// What came of it.
pub(super) enum Read {
    /// This is stored.
    Rows(Stored),
    /// Nothing is.
    Nothing,
    /// Somebody has changed it meanwhile: read it again.
    Changing,
    /// The deploy in force does not follow from the log that is known: read all of it.
    OtherLog,
}

/// Reads the answers to [`ask_rows`].
pub(super) fn read_rows(
    name: &ServiceName,
    answers: &[Value],
    since: Option<Since<'_>>,
    now: Millis,
) -> Result<Read, Wrong> {
    let [head, deploys, members, again] = answers else { return Err("it is incomplete".into()) };
    if head != again {
        return Ok(Read::Changing);
    }
    let [version, epoch, record, era] = list(head)? else { return Err("it has no version".into()) };
    let Some(version) = optional(version)? else { return Ok(Read::Nothing) };
    let version = Version::parse(&String::from_utf8_lossy(version))?;
    let record = ServiceRecord::from_bytes(bytes(record)?)?;
    let log = match since {
        None => read_log(name, deploys)?,
        // Another deploy is in force than at the glance.
        Some(since) if number(epoch)? != since.epoch => return Ok(Read::Changing),
        Some(since) => match follow(name, deploys, since.known)? {
            Some(log) => log,
            None => return Ok(Read::OtherLog),
        },
    };
    let members = read_members(members)?;
    let service = Service::stored(name, log, members, record, now);
    let era = optional(era)?.map(|era| String::from_utf8_lossy(era).into_owned());
    Ok(Read::Rows(Stored::new(version, service, era)))
}

fn read_log(name: &ServiceName, deploys: &Value) -> Result<Vec<LoggedDeploy>, Wrong> {
    let mut by_epoch = BTreeMap::new();
    for (epoch, row) in pairs(deploys)? {
        by_epoch.insert(number(epoch)?, LoggedDeploy::from_bytes(bytes(row)?)?);
    }
    let mut log: Vec<LoggedDeploy> = Vec::with_capacity(by_epoch.len());
    for (epoch, logged) in by_epoch {
        check_link(log.last(), &logged, name.as_str(), epoch)?;
        log.push(logged);
    }
    Ok(log)
}

/// The known log with its last deploy as far as that got, and with the one in force if that comes right after it.
fn follow(name: &ServiceName, deploys: &Value, known: &Service) -> Result<Option<Vec<LoggedDeploy>>, Wrong> {
    let [last, in_force] = list(deploys)? else { return Err("two deploys are not two".into()) };
    let (Some(last), Some(in_force)) = (optional(last)?, optional(in_force)?) else { return Ok(None) };
    let mut log: Vec<_> = known.log().collect();
    let before = log.pop();
    let (last, in_force) = (LoggedDeploy::from_bytes(last)?, LoggedDeploy::from_bytes(in_force)?);
    if before.is_some_and(|before| before.deploy != last.deploy) {
        return Ok(None);
    }
    let next = (in_force.deploy != last.deploy).then_some(in_force);
    for logged in [Some(last), next].into_iter().flatten() {
        if check_link(log.last(), &logged, name.as_str(), logged.deploy.epoch.0).is_err() {
            return Ok(None);
        }
        log.push(logged);
    }
    Ok(Some(log))
}

fn read_members(members: &Value) -> Result<Vec<(MemberId, MemberRecord)>, Wrong> {
    let row = |(name, row)| Ok((text(name)?.parse()?, MemberRecord::from_bytes(bytes(row)?)?));
    pairs(members)?.map(row).collect()
}

/// Writes what differs from what is `stored`, the version, and the era where a new one begins. Without anything stored, all of
/// it in the place of whatever is there.
pub(super) fn write(
    keys: &Keys,
    name: &ServiceName,
    stored: Option<&Service>,
    service: &Service,
    (version, era): (&Version, Option<&str>),
    commands: &mut Pipeline,
) {
    if stored.is_none() {
        commands.cmd("DEL").arg(keys.deploys(name)).arg(keys.members(name));
    }
    commands.cmd("SADD").arg(keys.services()).arg(name.as_str());
    for logged in service.new_deploys(stored) {
        commands.cmd("HSET").arg(keys.deploys(name)).arg(logged.deploy.epoch.0).arg(logged.to_bytes());
    }
    for (member, record) in service.new_records(stored) {
        match record {
            Some(record) => {
                commands.cmd("HSET").arg(keys.members(name)).arg(member.as_str()).arg(record.to_bytes())
            }
            None => commands.cmd("HDEL").arg(keys.members(name)).arg(member.as_str()),
        };
    }
    let epoch = service.history().in_force().map_or(0, |deploy| deploy.epoch.0);
    let head = commands.cmd("HSET").arg(keys.service(name));
    head.arg(VERSION).arg(version.to_string()).arg(EPOCH).arg(epoch);
    head.arg(RECORD).arg(service.record().to_bytes());
    if let Some(era) = era {
        head.arg(ERA).arg(era);
    }
}

/// Whether anything differs from what is stored.
pub(super) fn differs(stored: Option<&Service>, service: &Service) -> bool {
    stored.is_none_or(|stored| {
        stored.record() != service.record()
            || service.new_deploys(Some(stored)).next().is_some()
            || !service.new_records(Some(stored)).is_empty()
    })
}
