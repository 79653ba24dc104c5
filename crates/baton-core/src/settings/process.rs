//! The settings of `[run]` that are about the program's process.

use alloc::format;
use alloc::string::String;

use toml::de::DeValue;

use super::findings::Wrong;
use super::table::Table;
use super::value;
use crate::run::{Listen, Process, SizeLimit, Stdin, is_mount_point};
use crate::units::Bytes;

/// More open files than this no kernel allows (`fs.nr_open`'s greatest value).
const FILES_MAX: u32 = 1 << 30;
/// More processes than this no kernel allows (`PID_MAX_LIMIT`).
const PROCESSES_MAX: u32 = 1 << 22;

/// More than this is meant to be no limit.
const SIZE_MAX: Bytes = Bytes::from_kib(1 << 40);
/// With less, programs end before their first line.
const STACK_MIN: Bytes = Bytes::from_kib(128);

/// Reads what the table says over `process`.
pub(super) fn read(table: &mut Table<'_, '_>, process: &mut Process, listeners: &[Listen]) {
    table.set("user", &mut process.user, |value| owner(value).map(Some));
    table.set("group", &mut process.group, |value| owner(value).map(Some));
    table.set("umask", &mut process.umask, |value| value::permissions("022")(value).map(Some));
    table.set("nice", &mut process.nice, |value| value::signed(-20..=19)(value).map(Some));
    table.set("nofile", &mut process.nofile, |value| value::whole(1..=FILES_MAX)(value).map(Some));
    table.set("nproc", &mut process.nproc, |value| value::whole(1..=PROCESSES_MAX)(value).map(Some));
    table.set("core", &mut process.core, |value| size_limit(value).map(Some));
    table.set("memlock", &mut process.memlock, |value| size_limit(value).map(Some));
    table.set("stack", &mut process.stack, |value| value::size(STACK_MIN..=SIZE_MAX)(value).map(at_most));
    table.set("oom_score_adj", &mut process.oom_score_adj, value::signed(-1000..=1000));
    table.set("stdin", &mut process.stdin, stdin);
    table.set("mount", &mut process.mount, |value| mount(value).map(Some));
    if let Stdin::Listener(name) = &process.stdin {
        let found = listeners.iter().find(|listen| listen.name == *name);
        match found.map(|listen| listen.handover.passes_socket()) {
            Some(true) => {}
            Some(false) => {
                let is = format!("is {name:?}, a proxied listener, which has no socket to give");
                table.wrong("stdin", is, "write another handover for the listener, or leave it out");
            }
            // A flavor that has no such listener any more reads nothing.
            None if !table.has("stdin") => process.stdin = Stdin::Null,
            None => {
                let is = format!("is {name:?}, and there is no listener of that name");
                table.wrong("stdin", is, "write \"null\", \"inherit\" or the name of a listener");
            }
        }
    }
}

/// A size, or none: `"unlimited"`.
fn size_limit(value: &DeValue<'_>) -> Result<SizeLimit, Wrong> {
    match value.as_str() {
        Some("unlimited") => Ok(SizeLimit::Unlimited),
        Some(_) | None => value::size(Bytes(0)..=SIZE_MAX)(value).map(SizeLimit::Bytes),
    }
}

fn at_most(size: Bytes) -> Option<SizeLimit> {
    Some(SizeLimit::Bytes(size))
}

/// A user or a group: a name, or a number in quotes or not.
fn owner(value: &DeValue<'_>) -> Result<String, Wrong> {
    const FIX: &str = "write a name or a number, such as \"app\" or 1000";
    let text = match value {
        DeValue::Integer(number) => String::from(number.as_str()),
        other => String::from(value::string(other, FIX)?),
    };
    // What /etc/passwd can hold as a name.
    let good = !text.is_empty() && !text.contains(|c: char| c == ':' || c.is_control() || c.is_whitespace());
    if good { Ok(text) } else { Err(Wrong::new(format!("is {text:?}"), FIX)) }
}

fn mount(value: &DeValue<'_>) -> Result<String, Wrong> {
    const FIX: &str = "write an absolute path without a slash at its end, such as \"/app\"";
    match value::string(value, FIX)? {
        path if is_mount_point(path) => Ok(String::from(path)),
        other => Err(Wrong::new(format!("is {other:?}"), FIX)),
    }
}

fn stdin(value: &DeValue<'_>) -> Result<Stdin, Wrong> {
    match value::string(value, "write \"null\", \"inherit\" or the name of a listener")? {
        "null" => Ok(Stdin::Null),
        "inherit" => Ok(Stdin::Inherit),
        name => Ok(Stdin::Listener(name.into())),
    }
}
