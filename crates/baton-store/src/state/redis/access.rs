//! Who may do what, in Redis: bytes that this store does not understand, and a mark of them, so that nobody reads them again
//! who has them.

use redis::{Pipeline, Value, pipe};

use super::answer::{Unexpected, bytes, list, text};
use super::keys::Keys;
use super::rows::Wrong;
use super::shared::Shared;
use crate::state::StateError;

const MARK: &str = "mark";
const LIST: &str = "list";

/// What was read last, and which mark was seen last.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    read: Option<(String, Vec<u8>)>,
    seen: Option<String>,
}

impl Sealed {
    /// Whether a mark is another one than was seen before. It is told once.
    pub(super) fn is_news(&mut self, mark: &Option<String>) -> bool {
        let is_news = self.seen != *mark;
        self.seen.clone_from(mark);
        is_news
    }
}

/// Asks for the mark.
pub(super) fn ask_mark(keys: &Keys, ask: &mut Pipeline) {
    ask.cmd("HGET").arg(keys.access()).arg(MARK);
}

pub(super) fn read_mark(answer: &Value) -> Result<Option<String>, Unexpected> {
    match answer {
        Value::Nil => Ok(None),
        mark => text(mark).map(Some),
    }
}

impl Shared {
    /// What is there, which is asked for only where its mark is new.
    pub(super) fn read_access(&mut self) -> Result<Option<Vec<u8>>, StateError> {
        let mut ask = pipe();
        ask_mark(&self.keys, &mut ask);
        let answers = self.ask(&ask)?;
        let wrong = |error| self.wrong(self.keys.access(), error);
        let mark = answers.first().map_or(Ok(None), read_mark).map_err(wrong)?;
        match (&self.access.read, mark) {
            (Some((known, list)), Some(mark)) if *known == mark => Ok(Some(list.clone())),
            _ => self.read_all(),
        }
    }

    fn read_all(&mut self) -> Result<Option<Vec<u8>>, StateError> {
        let mut ask = pipe();
        ask.cmd("HMGET").arg(self.keys.access()).arg(&[MARK, LIST]);
        let answers = self.ask(&ask)?;
        let read = answers.first().map_or_else(|| Err("it is incomplete".into()), both);
        self.access.read = read.map_err(|error| self.wrong(self.keys.access(), error))?;
        Ok(self.access.read.as_ref().map(|(_, list)| list.clone()))
    }

    /// Puts other bytes in the place of those that were seen, if nobody was faster.
    pub(super) fn write_access(&mut self, seen: Option<&[u8]>, next: &[u8]) -> Result<bool, StateError> {
        self.watch_keys(&[self.keys.access()])?;
        if self.read_all()?.as_deref() != seen {
            self.unwatch();
            return Ok(false);
        }
        let mark = blake3::hash(next).to_string();
        let mut commands = self.begin();
        commands.cmd("HSET").arg(self.keys.access()).arg(MARK).arg(&mark).arg(LIST).arg(next);
        if !self.link.transact(&mut commands).map_err(|error| self.failed(error))? {
            return Ok(false);
        }
        self.link.copies(false).map_err(|error| self.failed(error))?;
        self.access.read = Some((mark, next.to_vec()));
        self.link.hint(&self.keys.hints());
        Ok(true)
    }
}

/// The mark and the bytes that it is of.
fn both(answer: &Value) -> Result<Option<(String, Vec<u8>)>, Wrong> {
    match list(answer)? {
        [Value::Nil, Value::Nil] => Ok(None),
        [mark, list] => Ok(Some((text(mark)?, bytes(list)?.to_vec()))),
        _ => Err("it has no mark and no list".into()),
    }
}
