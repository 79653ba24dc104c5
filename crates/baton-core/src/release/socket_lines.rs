//! Options of a listener's sockets as a line of a manifest, behind that of the listener: a word for each, in a fixed
//! order, `-` where nothing is set.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;
use core::str::FromStr;

use super::fault::{Fault, TextError};
use super::lines::{Words, exact};
use super::run_lines::refused;
use crate::run::SocketOptions;
use crate::units::{Bytes, Millis};

/// The first word of the line.
pub(super) const KEY: &str = "run.listen.options";
const NOTHING: &str = "-";

/// The line, where anything is set.
pub(super) fn write(options: &SocketOptions) -> Option<String> {
    let SocketOptions { nodelay, keepalive, defer_accept, user_timeout, rcvbuf, sndbuf } = *options;
    if *options == SocketOptions::default() {
        return None;
    }
    let number =
        |number: Option<u64>| number.map_or_else(|| NOTHING.to_string(), |number| number.to_string());
    let nodelay = match nodelay {
        None => NOTHING,
        Some(true) => "yes",
        Some(false) => "no",
    };
    let times = [keepalive, defer_accept, user_timeout].map(|time| number(time.map(|time| time.0)));
    let sizes = [rcvbuf, sndbuf].map(|size| number(size.map(|size| size.0)));
    let words: Vec<String> = [nodelay.to_string()].into_iter().chain(times).chain(sizes).collect();
    Some(words.join(" "))
}

/// Reads what [`write`] wrote.
pub(super) fn read(words: &mut Words<'_>) -> Result<SocketOptions, TextError> {
    let options = SocketOptions {
        nodelay: words.one_of(&[(NOTHING, None), ("yes", Some(true)), ("no", Some(false))])?,
        keepalive: optional(words)?.map(Millis),
        defer_accept: optional(words)?.map(Millis),
        user_timeout: optional(words)?.map(Millis),
        rcvbuf: optional(words)?.map(Bytes),
        sndbuf: optional(words)?.map(Bytes),
    };
    if options == SocketOptions::default() {
        return Err(words.fault(refused(KEY, "nothing is set")));
    }
    Ok(options)
}

fn optional<T: FromStr + Display>(words: &mut Words<'_>) -> Result<Option<T>, TextError> {
    let word = words.word()?;
    if word == NOTHING {
        return Ok(None);
    }
    let number = exact(word);
    number.map(Some).ok_or_else(|| words.fault(Fault::NotA { what: "a number or -", text: word.to_string() }))
}
