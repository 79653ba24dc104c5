//! Answers of Redis, read strictly: whoever else writes there may have written anything.

use redis::Value;

/// An answer of another shape than it should have.
#[derive(Debug, thiserror::Error)]
#[error("{what} is not what it should be{}", told(.found.as_ref()))]
pub(super) struct Unexpected {
    what: &'static str,
    found: Option<&'static str>,
}

fn told(found: Option<&&'static str>) -> String {
    found.map_or_else(String::new, |found| format!(": it is {found}"))
}

impl Unexpected {
    pub(super) fn new(what: &'static str, found: Option<Value>) -> Self {
        // What was found is not shown: it is somebody else's.
        let found = found.map(|value| match value {
            Value::Nil => "missing",
            Value::Int(_) => "a number",
            Value::BulkString(_) | Value::SimpleString(_) => "a text",
            Value::Array(_) => "a list",
            _ => "something else",
        });
        Self { what, found }
    }
}

pub(super) fn integer(value: &Value) -> Result<i64, Unexpected> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(Unexpected::new("a number", Some(other.clone()))),
    }
}

pub(super) fn bytes(value: &Value) -> Result<&[u8], Unexpected> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.as_bytes()),
        other => Err(Unexpected::new("a text", Some(other.clone()))),
    }
}

/// The bytes of a value that may be missing.
pub(super) fn optional(value: &Value) -> Result<Option<&[u8]>, Unexpected> {
    match value {
        Value::Nil => Ok(None),
        value => bytes(value).map(Some),
    }
}

pub(super) fn text(value: &Value) -> Result<String, Unexpected> {
    let bytes = bytes(value)?.to_vec();
    String::from_utf8(bytes).map_err(|_| Unexpected::new("a text in UTF-8", None))
}

/// A number that is written as a text, as the scores of sorted sets and the fields of hashes are.
pub(super) fn number(value: &Value) -> Result<u64, Unexpected> {
    text(value)?.parse().map_err(|_| Unexpected::new("a number that is written as a text", None))
}

pub(super) fn list(value: &Value) -> Result<&[Value], Unexpected> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(Unexpected::new("a list", Some(other.clone()))),
    }
}

/// A list of pairs: fields and values, or members and scores.
pub(super) fn pairs(value: &Value) -> Result<impl Iterator<Item = (&Value, &Value)>, Unexpected> {
    let list = list(value)?;
    if !list.len().is_multiple_of(2) {
        return Err(Unexpected::new("a list of pairs", None));
    }
    Ok(list.chunks_exact(2).map(|pair| (&pair[0], &pair[1])))
}

/// Milliseconds, from the answer of `TIME`: seconds and microseconds.
pub(super) fn milliseconds(value: &Value) -> Result<u64, Unexpected> {
    match list(value)? {
        [seconds, micros] => Ok(number(seconds)?.saturating_mul(1000).saturating_add(number(micros)? / 1000)),
        _ => Err(Unexpected::new("the time", None)),
    }
}
