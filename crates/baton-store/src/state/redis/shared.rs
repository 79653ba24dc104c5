//! What one server knows, and what it shares with the others by way of Redis.

mod events;
mod repair;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use baton_core::event::{Event, What};
use baton_core::fleet::{Heard, LEASE};
use baton_core::ids::ServiceName;
use baton_core::report::Report;
use baton_core::units::Millis;
use baton_wire::stored::SCHEMA;
use redis::{Connection, Pipeline, Value, pipe};

use super::access::{self, Sealed};
use super::address::RedisAddress;
use super::answer::{list, milliseconds, number, text};
use super::keys::Keys;
use super::link::{Link, LinkError};
use super::log::{self, Ends, GAP, Told};
use super::rows::{self, Glance, Read, Since, Stored, Version, Wrong};
use super::said::{self, Changed, Ours, Theirs};
use super::servers::Servers;
use super::skew::{Skew, unix_ms};
use super::unsaved::Unsaved;
use crate::state::events::EventLog;
use crate::state::held::Held;
use crate::state::{Kept, News, Service, StateError};

/// How often a service is read anew because another server changes it meanwhile, and how often a look is taken anew because
/// it has shown somebody whom nobody knew.
const ATTEMPTS_MAX: usize = 20;

/// All that a server holds.
pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) keys: Keys,
    pub(super) held: Held,
    pub(super) access: Sealed,
    stored: BTreeMap<ServiceName, Stored>,
    ours: Ours,
    theirs: BTreeMap<String, Theirs>,
    told: Told,
    /// What happened to the store itself, and nobody has told yet; and what it has lost of what was told.
    tales: Vec<Event>,
    /// The number that the next event has at the least.
    next_event: u64,
    pub(super) unsaved: Unsaved,
    /// How many changes this server has made.
    changes: u64,
    /// The schema in the store when something was watched last.
    schema: Option<u64>,
    opened: (Instant, Millis),
    looked: Option<Instant>,
    skew: Skew,
    /// It was away when this server wanted to know first what is there.
    is_late: bool,
}

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// All that others have changed is known.
    Known,
    /// Something was written back, so that what was watched is not watched any more.
    Repaired,
}

/// Whether others are told that what they know alone may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Same,
    New,
}

/// What a look has shown, before anything follows from it.
struct Survey {
    /// A moment before any of it was asked.
    now: Millis,
    store_now: u64,
    services: Vec<ServiceName>,
    glances: Vec<(ServiceName, Glance)>,
    events: Ends,
    access: Option<String>,
    written: usize,
    servers: Servers,
    changed: Vec<(String, Changed)>,
}

impl Shared {
    /// Nothing is known of what is there before the first look.
    pub(super) fn new(address: RedisAddress, now: Millis) -> Result<Self, StateError> {
        let keys = Keys::new(&address.prefix);
        let mut id = [0; 8];
        let attempted = "open the state store: draw a random name for this server".to_owned();
        getrandom::fill(&mut id)
            .map_err(|error| StateError::Unavailable { attempted, source: error.into() })?;
        let kept = Kept::Copies(address.copies);
        Ok(Self {
            link: Link::new(address, keys.schema()),
            keys,
            held: Held::new(BTreeMap::new(), EventLog::default(), now).keeping(kept),
            access: Sealed::default(),
            stored: BTreeMap::new(),
            ours: Ours::new(format!("{:016x}", u64::from_be_bytes(id))),
            theirs: BTreeMap::new(),
            told: Told::default(),
            tales: Vec::new(),
            next_event: 1,
            unsaved: Unsaved::default(),
            changes: 0,
            schema: None,
            opened: (Instant::now(), now),
            looked: None,
            skew: Skew::default(),
            is_late: false,
        })
    }

    /// Makes sure that what is there was read at least once.
    pub(super) fn read(&mut self) -> Result<(), StateError> {
        if self.looked.is_none() {
            self.look(None)?;
        }
        Ok(())
    }

    /// How the clock of this machine differs from that of Redis.
    pub(super) fn skew(&self) -> Skew {
        self.skew.clone()
    }

    pub(super) fn channel(&self) -> String {
        self.keys.hints()
    }

    pub(super) fn connect_for_hints(&mut self) -> Result<Connection, LinkError> {
        self.link.another()
    }

    /// Whether others wait for what was said here.
    pub(super) fn has_news(&self) -> bool {
        self.ours.has_news()
    }

    /// Whether something has happened to the store itself that nobody has told.
    pub(super) const fn has_tales(&self) -> bool {
        !self.tales.is_empty()
    }

    pub(super) fn looked_before(&self, ago: Duration) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= ago)
    }

    /// The moment up to which it is known whom others have heard, where the caller's is `now`.
    pub(super) fn heard_until(&self, now: Millis) -> Millis {
        heard_until(now, self.looked.map_or(Duration::ZERO, |looked| looked.elapsed()))
    }

    /// How much is left of this time since the last look.
    pub(super) fn looked_within(&self, time: Duration) -> Option<Duration> {
        time.checked_sub(self.looked?.elapsed()).filter(|left| !left.is_zero())
    }

    /// Watches these services, and nothing else any more.
    pub(super) fn watch<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a ServiceName>,
    ) -> Result<(), StateError> {
        let keys: Vec<_> = names.into_iter().map(|name| self.keys.service(name)).collect();
        self.watch_keys(&keys)
    }

    /// The same, and if wanted whether somebody begins to prune.
    pub(super) fn watch_with_turn<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a ServiceName>,
        turn: bool,
    ) -> Result<(), StateError> {
        let mut keys: Vec<_> = names.into_iter().map(|name| self.keys.service(name)).collect();
        if turn {
            keys.extend([self.keys.prunes(), self.keys.prune_turn()]);
        }
        self.watch_keys(&keys)
    }

    /// What this server is called by the others.
    pub(super) fn server(&self) -> &str {
        &self.ours.server
    }

    pub(super) fn unwatch(&mut self) {
        self.link.unwatch();
    }

    /// How many nodes have what was written last.
    pub(super) fn copies(&mut self) -> Result<u32, StateError> {
        self.link.copies(true).map_err(|error| self.failed(error))
    }

    pub(super) fn too_busy(&self) -> StateError {
        let source = "the other servers write all the time".into();
        StateError::Unavailable { attempted: self.attempted(), source }
    }

    /// Takes in what a member says, for whoever is here; the others hear of it with the next look.
    pub(super) fn hear(&mut self, service: &ServiceName, news: News, now: Millis) -> Heard {
        let life = match &news {
            News::Report(Report { stamp, .. }) | News::Heartbeat { stamp, .. } => Some(stamp.life),
            News::Left(member) => {
                let known = self.held.get(service);
                known.fleet().member(member).and_then(|member| member.stamp()).map(|stamp| stamp.life)
            }
        };
        let heard = self.held.hear(service, news.clone(), now);
        if heard == Heard::News {
            self.ours.note(service, news, life, Instant::now());
        }
        heard
    }

    /// Looks at all that others have changed, and tells them what was said here. `also` is looked at even if nobody has
    /// heard of it.
    pub(super) fn look(&mut self, also: Option<&ServiceName>) -> Result<Looked, StateError> {
        let looked = self.try_look(also);
        // Who has got a slot while it was away, or of another process, has a lease to say so: from the moment on in which
        // others can say something at all.
        let is_first = looked.is_ok() && self.looked.is_none();
        if self.link.is_other() || (is_first && self.is_late) {
            self.doubt();
        }
        match &looked {
            Ok(_) => {
                self.link.note_read();
                self.looked = Some(Instant::now());
            }
            Err(_) => self.is_late |= self.looked.is_none(),
        }
        looked
    }

    fn try_look(&mut self, also: Option<&ServiceName>) -> Result<Looked, StateError> {
        let survey = self.survey(also)?;
        self.exchange(&survey)?;
        if survey.servers.is_any_away || self.looked.is_some_and(|looked| is_blind(looked.elapsed())) {
            self.held.excuse(survey.now);
        }
        self.link.copies(false).map_err(|error| self.failed(error))?;
        let mut looked = self.follow_events(&survey.events)?;
        if self.access.is_news(&survey.access) {
            self.held.note_change();
        }
        for (name, glance) in &survey.glances {
            let listed = survey.services.contains(name);
            if self.compare(name, glance, listed, survey.store_now)? == Looked::Repaired {
                looked = Looked::Repaired;
            }
        }
        Ok(looked)
    }

    /// One round of questions, or more when it shows services or servers that nobody knew of.
    fn survey(&mut self, also: Option<&ServiceName>) -> Result<Survey, StateError> {
        let mut names = self.held.names();
        names.extend(self.stored.keys().cloned());
        names.extend(also.cloned());
        for _ in 0..ATTEMPTS_MAX {
            names.sort();
            names.dedup();
            let servers: Vec<String> = self.theirs.keys().cloned().collect();
            // Whatever takes long, nobody was heard later than he was.
            let (now, before) = (self.now(), unix_ms());
            let answers = self.ask(&self.questions(&names, &servers))?;
            let after = unix_ms();
            let survey = self.read_survey(now, &names, &servers, &answers)?;
            self.skew.see(before, survey.store_now, after);
            let new = |name: &&ServiceName| !names.contains(*name);
            let unknown: Vec<_> = survey.services.iter().filter(new).cloned().collect();
            for ended in &survey.servers.ended {
                self.theirs.remove(ended);
            }
            let mut strangers = false;
            for server in &survey.servers.there {
                strangers |= !self.theirs.contains_key(server);
                self.theirs.entry(server.clone()).or_default();
            }
            if unknown.is_empty() && !strangers {
                return Ok(survey);
            }
            names.extend(unknown);
        }
        Err(self.too_busy())
    }

    fn questions(&self, names: &[ServiceName], servers: &[String]) -> Pipeline {
        let mut ask = pipe();
        ask.cmd("TIME");
        ask.cmd("GET").arg(self.keys.schema());
        ask.cmd("SMEMBERS").arg(self.keys.services());
        log::ask_ends(&self.keys, self.last_event(), &mut ask);
        access::ask_mark(&self.keys, &mut ask);
        ask.cmd("HLEN").arg(self.keys.said(&self.ours.server));
        ask.cmd("ZRANGE").arg(self.keys.servers()).arg(0).arg(-1).arg("WITHSCORES");
        for name in names {
            rows::ask_glance(&self.keys, name, &mut ask);
        }
        for server in servers {
            self.theirs.get(server).copied().unwrap_or_default().ask(&self.keys, server, &mut ask);
        }
        ask
    }

    fn read_survey(
        &self,
        now: Millis,
        names: &[ServiceName],
        servers: &[String],
        answers: &[Value],
    ) -> Result<Survey, StateError> {
        let wrong = |what: String| move |error| self.wrong(what, error);
        let [time, schema, services, newest, known, mark, written, all, rest @ ..] = answers else {
            return Err(self.wrong("an answer".to_owned(), "it is incomplete"));
        };
        self.check_schema(schema)?;
        let store_now = milliseconds(time).map_err(wrong("TIME".to_owned()))?;
        let read = |services: &Value| -> Result<Vec<ServiceName>, Wrong> {
            list(services)?.iter().map(|name| Ok(text(name)?.parse()?)).collect()
        };
        let services = read(services).map_err(|error| self.wrong(self.keys.services(), error))?;
        let own = &self.ours.server;
        let (glances, theirs) = rest.split_at_checked(names.len() * rows::GLANCE).unwrap_or((rest, &[]));
        let glance = |(name, answers): (&ServiceName, &[Value])| {
            let glance = rows::read_glance(answers).map_err(wrong(self.keys.service(name)))?;
            Ok((name.clone(), glance))
        };
        let changed = |(server, answers): (&String, &[Value])| {
            Ok((server.clone(), Changed::of(answers).map_err(wrong(self.keys.changed(server)))?))
        };
        Ok(Survey {
            now,
            store_now,
            services,
            glances: names.iter().zip(glances.chunks(rows::GLANCE)).map(glance).collect::<Result<_, _>>()?,
            events: Ends::read(newest, known).map_err(wrong(self.keys.events()))?,
            access: access::read_mark(mark).map_err(wrong(self.keys.access()))?,
            written: said::read_count(written).map_err(wrong(self.keys.said(own)))?,
            servers: Servers::read(all, own, store_now).map_err(wrong(self.keys.servers()))?,
            changed: servers.iter().zip(theirs.chunks(2)).map(changed).collect::<Result<_, _>>()?,
        })
    }

    /// The schema that is there, if this version knows it.
    fn check_schema(&self, schema: &Value) -> Result<Option<u64>, StateError> {
        let found = match schema {
            Value::Nil => return Ok(None),
            schema => number(schema).map_err(|error| self.wrong(self.keys.schema(), error))?,
        };
        if found > SCHEMA {
            let path = PathBuf::from(self.link.address().to_string());
            return Err(StateError::Newer { path, found, known: SCHEMA });
        }
        Ok(Some(found))
    }

    /// Tells the others what was said here, and hears what was said to them.
    fn exchange(&mut self, survey: &Survey) -> Result<(), StateError> {
        let Survey { now, store_now, changed, written, servers, .. } = survey;
        let heard = Instant::now();
        self.ours.compare(*written, heard);
        let mut commands = pipe();
        let news: Vec<_> = changed.iter().filter(|(_, changed)| changed.has_news()).collect();
        for (server, changed) in &news {
            changed.ask(&self.keys, server, &mut commands);
        }
        for server in &servers.ended {
            commands.cmd("ZREM").arg(self.keys.servers()).arg(server);
        }
        let says = self.ours.has_news();
        self.ours.write(&self.keys, heard, *store_now, &mut commands);
        let answers = self.link.write(&commands).map_err(|error| self.failed(error))?;
        self.ours.note_written();
        let mut answers = answers.iter();
        for (server, changed) in changed {
            let said = if changed.has_news() { answers.next() } else { None };
            let taken = changed.take_in(said, &mut self.ours, &mut self.held, *now, *store_now);
            let left = taken.map_err(|error| self.wrong(self.keys.said(server), error))?;
            left.into_iter().for_each(|place| self.told.note_left(place, heard));
            if let Some(theirs) = self.theirs.get_mut(server) {
                theirs.read(changed);
                theirs.check_clock(*store_now);
            }
        }
        if says {
            self.link.hint(&self.keys.hints());
        }
        Ok(())
    }

    /// Reads a service, of its log only what is new where `only` shows it.
    fn read_service(
        &mut self,
        name: &ServiceName,
        mut only: Option<&Glance>,
    ) -> Result<Option<Stored>, StateError> {
        for _ in 0..ATTEMPTS_MAX {
            let known = self.stored.get(name).map(|stored| stored.service.clone());
            let since = known.as_ref().zip(only).map(|(known, glance)| Since::new(known, glance));
            let mut ask = pipe();
            rows::ask_rows(&self.keys, name, since, &mut ask);
            let answers = self.ask(&ask)?;
            let read = rows::read_rows(name, &answers, since, self.now());
            match read.map_err(|error| self.wrong(self.keys.service(name), error))? {
                Read::Rows(stored) => return Ok(Some(stored)),
                Read::Nothing => return Ok(None),
                Read::Changing | Read::OtherLog => only = None,
            }
        }
        Err(self.too_busy())
    }

    /// What was read by now counts: enough nodes have it. Only what is written here is waited for, and with it all that came
    /// before.
    fn confirm(&mut self, store_now: u64) -> Result<(), StateError> {
        if self.link.address().copies < 2 {
            return Ok(());
        }
        let mut commands = pipe();
        commands.cmd("ZADD").arg(self.keys.servers()).arg(store_now).arg(&self.ours.server);
        self.link.write(&commands).map_err(|error| self.failed(error))?;
        self.link.copies(false).map_err(|error| self.failed(error))?;
        Ok(())
    }

    fn tell(&mut self, service: &ServiceName, what: What, text: String) {
        self.tales.push(Event {
            at: unix_ms(),
            service: service.clone(),
            deploy: None,
            member: None,
            what,
            text,
        });
    }

    /// What was granted may be lost, and what was said here as well. So may events be that other servers have told.
    fn doubt(&mut self) {
        self.held.listen_anew(self.now());
        self.ours.repeat(Instant::now());
        if let Some(last) = self.held.events().last() {
            self.next_event = self.next_event.max(last.number + GAP);
        }
    }

    /// Writes a service that was changed, unless another server was faster. On return it is in the store.
    pub(super) fn commit(&mut self, name: &ServiceName, next: &Service) -> Result<bool, StateError> {
        let before = self.stored.get(name).cloned();
        let stored = before.as_ref().map(|stored| &stored.service);
        if !rows::differs(stored, next) {
            self.unwatch();
            return Ok(true);
        }
        let count = before.as_ref().map_or(0, |stored| stored.version.count);
        let written = self.put(name, stored, next, count, Era::Same)?;
        if written && let Err(error) = self.link.copies(false) {
            // It is there, and does not count before it can be read with enough copies. What was known before still does:
            // should the store lose that, it is written back.
            match before {
                Some(before) => self.stored.insert(name.clone(), before),
                None => self.stored.remove(name),
            };
            return Err(self.failed(error));
        }
        Ok(written)
    }

    /// Writes who the members of a service are by now, unless another server has changed it since the last look.
    pub(super) fn save(&mut self, name: &ServiceName) -> Result<bool, StateError> {
        let service = self.held.get(name);
        let stored = self.stored.get(name);
        if !rows::differs(stored.map(|stored| &stored.service), &service) {
            return Ok(true);
        }
        self.watch([name])?;
        let mut ask = pipe();
        rows::ask_glance(&self.keys, name, &mut ask);
        let answers = self.ask(&ask)?;
        let glance =
            rows::read_glance(&answers).map_err(|error| self.wrong(self.keys.service(name), error))?;
        let is_known = match self.stored.get(name) {
            Some(stored) => stored.is(&glance),
            None => glance.version.is_none(),
        };
        if !is_known {
            self.unwatch();
            return Ok(false);
        }
        self.commit(name, &service)
    }

    /// Writes what differs from what is stored, as the version after `count`.
    fn put(
        &mut self,
        name: &ServiceName,
        stored: Option<&Service>,
        service: &Service,
        count: u64,
        era: Era,
    ) -> Result<bool, StateError> {
        self.changes += 1;
        let version = Version::after(count, &self.ours.server, self.changes);
        let new = (era == Era::New).then(|| version.to_string());
        let mut commands = self.begin();
        rows::write(&self.keys, name, stored, service, (&version, new.as_deref()), &mut commands);
        let written = self.link.transact(&mut commands).map_err(|error| self.failed(error))?;
        if written {
            let era = new.or_else(|| self.stored.get(name)?.era.clone());
            self.stored.insert(name.clone(), Stored::new(version, service.clone(), era));
            self.link.hint(&self.keys.hints());
        }
        Ok(written)
    }

    /// Writes all that is held elsewhere, where nothing is held here.
    pub(super) fn import(&mut self, held: Held) -> Result<(), StateError> {
        self.look(None)?;
        if !self.stored.is_empty() || self.last_event() > 0 {
            return Err(StateError::NotEmpty { store: self.link.address().to_string() });
        }
        for (name, service) in held.services() {
            self.watch([name])?;
            if self.read_service(name, None)?.is_some() || !self.put(name, None, service, 0, Era::Same)? {
                return Err(StateError::NotEmpty { store: self.link.address().to_string() });
            }
        }
        if let Some(access) = held.access()
            && !self.write_access(None, access)?
        {
            return Err(StateError::NotEmpty { store: self.link.address().to_string() });
        }
        self.held = held;
        self.write_events_back(None)?;
        Ok(())
    }

    /// Watches these keys and the schema, and nothing else any more: nobody writes to a store that a newer version has written to
    /// meanwhile.
    pub(super) fn watch_keys(&mut self, keys: &[String]) -> Result<(), StateError> {
        let schema = self.link.watch(keys).map_err(|error| self.failed(error))?;
        self.schema = self.check_schema(&schema)?;
        Ok(())
    }

    /// The beginning of a transaction that an older version would not understand all of. What is right already is not touched:
    /// everybody watches it.
    pub(super) fn begin(&self) -> Pipeline {
        let mut commands = pipe();
        if self.schema != Some(SCHEMA) {
            commands.cmd("SET").arg(self.keys.schema()).arg(SCHEMA);
        }
        commands
    }

    fn now(&self) -> Millis {
        let (opened, at) = self.opened;
        Millis(at.0 + said::millis(opened.elapsed()))
    }

    pub(super) fn ask(&mut self, commands: &Pipeline) -> Result<Vec<Value>, StateError> {
        self.link.all(commands).map_err(|error| self.failed(error))
    }

    /// The same words for whatever it is, so that one failure is told once.
    fn attempted(&self) -> String {
        format!("use {}", self.link.address())
    }

    pub(super) fn failed(&self, error: LinkError) -> StateError {
        if let Some(key) = error.wrong_key() {
            return self.wrong(key.to_owned(), error.to_string());
        }
        if !error.may_heal() {
            return StateError::Shut { store: self.link.address().to_string(), source: error.into() };
        }
        StateError::Unavailable { attempted: self.attempted(), source: error.into() }
    }

    pub(super) fn wrong(&self, what: String, source: impl Into<Wrong>) -> StateError {
        StateError::Wrong { store: self.link.address().to_string(), what, source: source.into() }
    }
}

/// Whether a server does not know who is silent, after it could not look for so long: the others tell whom they hear with each
/// look.
fn is_blind(since: Duration) -> bool {
    said::millis(since) >= LEASE.0
}

/// The moment up to which it is known who was heard, `since` the last look.
fn heard_until(now: Millis, since: Duration) -> Millis {
    if is_blind(since) { Millis(now.0.saturating_sub(said::millis(since))) } else { now }
}

#[cfg(test)]
mod tests;
