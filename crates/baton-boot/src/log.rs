//! The bootloader's own lines.

use std::fmt::Display;
use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

use crate::output::Outlet;

/// Where lines go, once there is a way out.
static OUTLET: OnceLock<Outlet> = OnceLock::new();

/// From now on lines go the same way as the programs' output, in the same form.
pub fn to(outlet: Outlet) {
    let _ = OUTLET.set(outlet);
}

/// Says one line on stderr. Never waits, and a log that cannot be written is no reason to stop.
pub fn say(what: impl Display) {
    match OUTLET.get() {
        Some(outlet) if !outlet.has_ended() => outlet.say(what.to_string()),
        // Before anything runs nobody is held up by it, and after.
        Some(_) | None => drop(writeln!(std::io::stderr(), "baton-boot: {what}")),
    }
}

/// Says one line from where nothing may be waited for, not even for whoever else is saying one: a panic.
pub fn say_now(what: &str) {
    if OUTLET.get().is_none_or(|outlet| !outlet.try_say(what)) {
        drop(writeln!(std::io::stderr(), "baton-boot: {what}"));
    }
}

/// How long what was written at last may take at the end, where nothing else is said: a stop has a second for everything behind
/// its limit.
pub const END: Duration = Duration::from_millis(900);
/// How long it may take where no time is left: what somebody reads is out in much less.
const END_LEAST: Duration = Duration::from_millis(100);

/// Waits until what was said and written is out, if somebody reads it, for that time at most; nothing is said after.
pub fn end(limit: Duration) {
    if let Some(outlet) = OUTLET.get() {
        outlet.end(limit.clamp(END_LEAST, END));
    }
}

/// An error with all its causes: `a: b: c`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors tell their cause themselves.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
