//! The connection to the node that takes writes.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use redis::{Arg, Client, Cmd, Connection, ErrorKind, Pipeline, RedisError, Value, cmd};

use super::address::{Host, RedisAddress, Unusable};
use super::answer::{Unexpected, integer, text};
use super::conversation::{Conversation, PART_MAX, Readers, open};
use crate::state::StateError;

/// How long nobody tries again after a failure: whoever asks meanwhile is told at once, and is not held up.
const RETRY: Duration = Duration::from_millis(500);
/// How long a write may take to reach the replicas.
const COPIES_MAX: Duration = Duration::from_millis(500);
/// How often a node may name another one, before they are believed to go round in circles.
const REDIRECTS_MAX: usize = 5;

/// The connection, or why there is none.
pub(super) struct Link {
    address: RedisAddress,
    /// A key that is asked for, to see whether the node is the one that has it. It is part of whatever is watched.
    probe: String,
    open: Option<Open>,
    failed: Option<Failed>,
    readers: Readers,
    /// Which process was written to last.
    node: Option<String>,
    is_other: bool,
}

/// What has failed last.
struct Failed {
    at: Instant,
    why: String,
    may_heal: bool,
}

struct Open {
    conversation: Conversation,
    /// Whether anything is watched on it. It goes with the connection, as the watch does.
    watches: bool,
    /// Whether something was written on it. `WAIT` counts the copies of that, and of nothing that was written before.
    wrote: bool,
}

/// Why Redis has not done what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot use the address")]
    Address(#[from] Unusable),
    // The library's errors tell their cause themselves.
    #[error("Redis does not answer: {0}")]
    Answer(RedisError),
    #[error("Redis refuses: {0}")]
    Refused(RedisError),
    #[error("it is of another type")]
    WrongType { key: String },
    #[error("Redis answers otherwise than it should")]
    Unexpected(#[from] Unexpected),
    #[error("no node takes writes: {0}")]
    NoPrimary(String),
    /// It is there, and whoever asks again is told the same.
    #[error("{0}")]
    Shut(String),
    /// Nothing else of the transaction has failed.
    #[error("the stream of events has had these numbers")]
    UsedUp,
    #[error("{have} of {wanted} copies were written in time")]
    Copies { have: u32, wanted: u32 },
    #[error("{0}")]
    JustFailed(String),
}

impl LinkError {
    /// The key that is of another type than it should be.
    pub(super) fn wrong_key(&self) -> Option<&str> {
        match self {
            Self::WrongType { key } => Some(key),
            Self::Address(_)
            | Self::Answer(_)
            | Self::Refused(_)
            | Self::Unexpected(_)
            | Self::NoPrimary(_)
            | Self::Shut(_)
            | Self::UsedUp
            | Self::Copies { .. }
            | Self::JustFailed(_) => None,
        }
    }

    /// Whether it may be over without anybody's doing: nobody is there, or not ready yet.
    pub(super) fn may_heal(&self) -> bool {
        match self {
            Self::Answer(error) | Self::Refused(error) => may_heal(error),
            Self::NoPrimary(_) | Self::UsedUp | Self::Copies { .. } | Self::JustFailed(_) => true,
            Self::Address(_) | Self::WrongType { .. } | Self::Unexpected(_) | Self::Shut(_) => false,
        }
    }

    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}

impl Link {
    pub(super) fn new(address: RedisAddress, probe: String) -> Self {
        let readers = Readers::default();
        Self { address, probe, open: None, failed: None, readers, node: None, is_other: false }
    }

    pub(super) const fn address(&self) -> &RedisAddress {
        &self.address
    }

    /// Whether another process is written to than before, so that something may be lost.
    pub(super) const fn is_other(&self) -> bool {
        self.is_other
    }

    /// What is there was read since.
    pub(super) const fn note_read(&mut self) {
        self.is_other = false;
    }

    /// Carries out commands, one after the other. None of them may fail.
    pub(super) fn all(&mut self, commands: &Pipeline) -> Result<Vec<Value>, LinkError> {
        self.with(|open| send(&open.conversation, commands, commands.len()))
    }

    /// The same for commands that write something.
    pub(super) fn write(&mut self, commands: &Pipeline) -> Result<Vec<Value>, LinkError> {
        self.with(|open| {
            let answers = send(&open.conversation, commands, commands.len())?;
            open.wrote = true;
            Ok(answers)
        })
    }

    pub(super) fn one(&mut self, command: &Cmd) -> Result<Value, LinkError> {
        let mut pipeline = redis::pipe();
        pipeline.add_command(command.clone());
        Ok(self.all(&pipeline)?.pop().unwrap_or(Value::Nil))
    }

    /// Carries out commands all at once, or none of them if anything that was watched has changed, or may have: the connection
    /// on which it was watched is lost.
    pub(super) fn transact(&mut self, commands: &mut Pipeline) -> Result<bool, LinkError> {
        // `EXEC` on a new connection, which watches nothing, would write over what others have written.
        if !self.open.as_ref().is_some_and(|open| open.watches) {
            return Ok(false);
        }
        let commands = commands.atomic();
        // `MULTI`, and `EXEC`.
        let answers = commands.len() + 2;
        let answered = self.with(|open| {
            // `EXEC` ends the watch, whatever comes of it.
            open.watches = false;
            send(&open.conversation, commands, answers)
        });
        match answered?.pop() {
            Some(Value::Nil) => Ok(false),
            Some(Value::Array(done)) => {
                let failed = |value| match value {
                    Value::ServerError(error) => Some(RedisError::from(error)),
                    _ => None,
                };
                let failures: Vec<_> = done.into_iter().filter_map(failed).collect();
                if let Some(open) = &mut self.open {
                    open.wrote = true;
                }
                let is_used_up = !failures.is_empty() && failures.iter().all(is_used_up);
                match failures.into_iter().next() {
                    None => Ok(true),
                    // All of it is answered, and the connection good.
                    Some(_) if is_used_up => Err(LinkError::UsedUp),
                    Some(error) => Err(self.fail(LinkError::Refused(error))),
                }
            }
            other => Err(self.fail(Unexpected::new("a transaction", other).into())),
        }
    }

    /// Watches these keys and the probe, and nothing else any more. Returns what the probe holds.
    pub(super) fn watch(&mut self, keys: &[String]) -> Result<Value, LinkError> {
        let mut commands = redis::pipe();
        commands.cmd("UNWATCH").cmd("WATCH").arg(keys).arg(&self.probe);
        commands.cmd("GET").arg(&self.probe);
        self.with(|open| {
            let mut answers = send(&open.conversation, &commands, commands.len())?;
            open.watches = true;
            Ok(answers.pop().unwrap_or(Value::Nil))
        })
    }

    pub(super) fn unwatch(&mut self) {
        // When it fails, the connection goes, and what was watched with it.
        let _ = self.one(&cmd("UNWATCH"));
        if let Some(open) = &mut self.open {
            open.watches = false;
        }
    }

    /// Tells everybody to look again. Whoever does not hear it looks a little later.
    pub(super) fn hint(&mut self, channel: &str) {
        let mut commands = redis::pipe();
        commands.cmd("PUBLISH").arg(channel).arg("");
        // Whoever may not say it is refused, and the connection is good all the same.
        if self.open.as_ref().is_some_and(|open| open.conversation.ask(&commands, 1).is_err()) {
            self.open = None;
        }
    }

    /// Waits until what was written here last has reached at least as many nodes as the address asks for, and where
    /// `all`, all that there are. Returns how many are known to have it, the primary among them.
    pub(super) fn copies(&mut self, all: bool) -> Result<u32, LinkError> {
        let wanted = self.address.copies;
        if !self.open.as_ref().is_some_and(|open| open.wrote) {
            return if wanted > 1 { Err(LinkError::Copies { have: 1, wanted }) } else { Ok(1) };
        }
        let mut others = wanted - 1;
        if all {
            let role = self.one(&cmd("ROLE"))?;
            others = others.max(check_role(&role).map_err(|error| self.fail(error))?);
        }
        if others == 0 {
            return Ok(1);
        }
        let wait = self.one(cmd("WAIT").arg(others).arg(COPIES_MAX.as_millis() as u64))?;
        let have = 1 + u32::try_from(integer(&wait)?).unwrap_or(0);
        if have < wanted {
            return Err(LinkError::Copies { have, wanted });
        }
        Ok(have)
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Open) -> Result<T, LinkError>) -> Result<T, LinkError> {
        if let Some(failed) = self.failed.as_ref().filter(|failed| failed.at.elapsed() < RETRY) {
            let why = failed.why.clone();
            return Err(if failed.may_heal { LinkError::JustFailed(why) } else { LinkError::Shut(why) });
        }
        let acted = match &mut self.open {
            Some(open) => act(open),
            None => self.connect().and_then(|open| act(self.open.insert(open))),
        };
        match acted {
            Ok(answer) => {
                self.failed = None;
                Ok(answer)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Whatever has failed, the connection is not used again: nobody knows what else is still to come on it.
    fn fail(&mut self, error: LinkError) -> LinkError {
        self.open = None;
        self.failed = Some(Failed { at: Instant::now(), why: error.chain(), may_heal: error.may_heal() });
        error
    }

    /// Finds the node that takes writes.
    fn connect(&mut self) -> Result<Open, LinkError> {
        let (mut reasons, mut may_heal) = (Vec::new(), true);
        for host in self.address.hosts().to_vec() {
            let opened = match self.address.watched.clone() {
                None => self.connect_to(host.clone()),
                Some(name) => self.ask_sentinel(&host, &name).and_then(|primary| self.connect_to(primary)),
            };
            match opened {
                Ok(open) => return Ok(open),
                Err(error) => {
                    may_heal &= error.may_heal();
                    reasons.push(format!("{host}: {}", error.chain()));
                }
            }
        }
        let reasons = reasons.join("; ");
        Err(if may_heal { LinkError::NoPrimary(reasons) } else { LinkError::Shut(reasons) })
    }

    /// Connects to a node, or to the one that it names.
    fn connect_to(&mut self, mut host: Host) -> Result<Open, LinkError> {
        for _ in 0..REDIRECTS_MAX {
            let conversation = self.converse(self.address.client(&host)?)?;
            let asked = ask(&conversation, cmd("GET").arg(&self.probe));
            if let Err(LinkError::Refused(error)) = &asked
                && let Some((moved, _)) = error.redirect_node()
                && let Some((name, port)) = moved.rsplit_once(':')
                && let Ok(port) = port.parse()
            {
                host = Host::of(name, port);
                continue;
            }
            asked?;
            check_role(&ask(&conversation, &cmd("ROLE"))?)?;
            let node = run_id(&ask(&conversation, cmd("INFO").arg("server"))?)?;
            self.is_other |= self.node.as_ref().is_some_and(|before| *before != node);
            self.node = Some(node);
            return Ok(Open { conversation, watches: false, wrote: false });
        }
        Err(LinkError::NoPrimary("the nodes of the cluster name each other in a circle".to_owned()))
    }

    fn ask_sentinel(&self, host: &Host, name: &str) -> Result<Host, LinkError> {
        let conversation = self.converse(self.address.sentinel_client(host)?)?;
        let answer = ask(&conversation, cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name))?;
        match &answer {
            Value::Array(words) if words.len() == 2 => {
                let port = text(&words[1])?.parse();
                let port =
                    port.map_err(|_| Unexpected::new("the port of a primary", Some(answer.clone())))?;
                Ok(Host::of(&text(&words[0])?, port))
            }
            _ => Err(LinkError::NoPrimary(format!("the Sentinel knows no primary {name:?}"))),
        }
    }

    fn converse(&self, client: Client) -> Result<Conversation, LinkError> {
        Conversation::open(client, &self.readers).map_err(LinkError::Answer)
    }

    /// A connection of its own for hints, which come by every node.
    pub(super) fn another(&self) -> Result<Connection, LinkError> {
        let connect = |host: &Host| {
            let client = match &self.address.watched {
                None => self.address.client(host)?,
                Some(name) => self.address.client(&self.ask_sentinel(host, name)?)?,
            };
            open(&client).map_err(LinkError::Answer)
        };
        let connected = self.address.hosts().iter().find_map(|host| connect(host).ok());
        connected.ok_or_else(|| LinkError::NoPrimary("no node can be listened to".to_owned()))
    }
}

fn ask(conversation: &Conversation, command: &Cmd) -> Result<Value, LinkError> {
    let mut pipeline = redis::pipe();
    pipeline.add_command(command.clone());
    Ok(send(conversation, &pipeline, 1)?.pop().unwrap_or(Value::Nil))
}

/// Sends commands and reads their answers. The first that is refused is the error.
fn send(conversation: &Conversation, commands: &Pipeline, answers: usize) -> Result<Vec<Value>, LinkError> {
    let mut read = conversation.ask(commands, answers).map_err(LinkError::Answer)?;
    match read.pop() {
        Some(Value::ServerError(error)) => Err(refused(error.into(), commands, read.len())),
        last => {
            read.extend(last);
            Ok(read)
        }
    }
}

/// Whether who asks again later may be told something else.
fn may_heal(error: &RedisError) -> bool {
    match error.kind() {
        // What answers is no Redis, or not one for who asks.
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::Parse
        | ErrorKind::RESP3NotSupported => false,
        ErrorKind::Io => !is_distrust(error),
        // Of all that it says (`LOADING`, `MASTERDOWN`, `READONLY`, `NOREPLICAS`, too many clients, no memory), these alone
        // are about who asks.
        _ => !matches!(error.code(), Some("NOAUTH" | "NOPERM" | "WRONGPASS" | "DENIED")),
    }
}

/// Whether a stream does not take an entry because it has had its number. There is no code for that.
fn is_used_up(error: &RedisError) -> bool {
    error.detail().is_some_and(|text| text.contains("equal or smaller than the target stream top item"))
}

/// Whether two ends do not believe each other's certificate, or one speaks no TLS.
fn is_distrust(error: &RedisError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

fn refused(error: RedisError, commands: &Pipeline, number: usize) -> LinkError {
    let key = commands.cmd_iter().nth(number).and_then(|command| command.args_iter().nth(1));
    match key {
        Some(Arg::Simple(key)) if error.code() == Some("WRONGTYPE") => {
            LinkError::WrongType { key: String::from_utf8_lossy(key).into_owned() }
        }
        _ => LinkError::Refused(error),
    }
}

/// How many replicas a node has, which must be one that takes writes.
fn check_role(role: &Value) -> Result<u32, LinkError> {
    match role {
        Value::Array(parts) => match &parts[..] {
            [name, _, Value::Array(replicas)] if text(name)? == "master" => {
                Ok(u32::try_from(replicas.len()).unwrap_or(u32::MAX))
            }
            [name, ..] => Err(LinkError::NoPrimary(format!("it is a {}", text(name)?))),
            [] => Err(Unexpected::new("a role", Some(role.clone())).into()),
        },
        _ => Err(Unexpected::new("a role", Some(role.clone())).into()),
    }
}

/// What tells one start of Redis from every other.
fn run_id(info: &Value) -> Result<String, LinkError> {
    let info = text(info)?;
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    let missing = || Unexpected::new("the run_id of INFO", None);
    Ok(id.ok_or_else(missing)?.trim().to_owned())
}

/// Where hints are heard: a connection of its own, made again when it has failed.
#[derive(Default)]
pub(super) struct Hints {
    connection: Option<Connection>,
}

impl Hints {
    /// Listens on a channel, calls `look`, and unless that is enough waits for a hint, at most for `limit`. What was said
    /// between the look and the wait is heard. Where nobody can listen, it waits all the same.
    pub(super) fn listen<T>(
        &mut self,
        connect: impl FnOnce() -> Result<Connection, LinkError>,
        channel: &str,
        look: impl FnOnce() -> Result<Option<T>, StateError>,
        limit: Duration,
    ) -> Result<Option<T>, StateError> {
        if self.connection.is_none() {
            self.connection = connect().ok();
        }
        let Some(connection) = &mut self.connection else {
            let found = look()?;
            if found.is_none() {
                thread::park_timeout(limit);
            }
            return Ok(found);
        };
        let mut hints = connection.as_pubsub();
        let listens = hints.subscribe(channel).is_ok();
        let found = look();
        let mut broken = !listens;
        if let (Ok(None), false) = (&found, limit.is_zero()) {
            if listens {
                let heard = hints.set_read_timeout(Some(limit)).and_then(|()| hints.get_message());
                broken = heard.is_err_and(|error| !error.is_timeout());
                // For what follows, which is answered at once or never.
                broken |= hints.set_read_timeout(Some(PART_MAX)).is_err();
            } else {
                thread::park_timeout(limit);
            }
        }
        drop(hints);
        if broken {
            self.connection = None;
        }
        found
    }
}
