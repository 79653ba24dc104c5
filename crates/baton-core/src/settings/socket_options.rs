//! `[run.listen.options]`: options of a listener's sockets.

use alloc::format;

use toml::de::DeValue;

use super::findings::Wrong;
use super::table::Table;
use super::value;
use crate::run::{Listen, Probe, RunSettings, SocketOptions};
use crate::units::{Bytes, Millis};

/// The kernel has less than nothing for smaller ones, and doubles what it is told.
const BUFFER_MIN: Bytes = Bytes::from_kib(4);
/// More than the kernel counts in (`int`), doubled.
const BUFFER_MAX: Bytes = Bytes::from_kib(1 << 19);
/// `TCP_KEEPIDLE` and `TCP_DEFER_ACCEPT` count seconds, the former up to 32,767.
const SECONDS_MAX: Millis = Millis::from_secs(9 * 3600);

/// Reads what the table of a listener says of its options.
pub(super) fn read(table: &mut Table<'_, '_>, listen: &mut Listen) {
    let applies = listen.handover.passes_socket() && listen.address.tcp().is_some();
    let options = table.table("options", |table| {
        let mut options = SocketOptions::default();
        table.set("nodelay", &mut options.nodelay, |value| value::boolean(value).map(Some));
        table.set("keepalive", &mut options.keepalive, |value| seconds(value).map(Some));
        table.set("defer_accept", &mut options.defer_accept, |value| seconds(value).map(Some));
        table.set("user_timeout", &mut options.user_timeout, |value| value::some_time(value).map(Some));
        let buffer = |value: &DeValue<'_>| value::size(BUFFER_MIN..=BUFFER_MAX)(value).map(Some);
        table.set("rcvbuf", &mut options.rcvbuf, buffer);
        table.set("sndbuf", &mut options.sndbuf, buffer);
        if table.is_present() && !applies {
            let fix = "leave it out: the program sets them on the connections that it accepts";
            table.wrong_here("is for listeners with a port and without handover = \"proxy\"", fix);
        }
        options
    });
    if applies {
        listen.options = options;
    }
}

/// Reports a listener that only accepts who says something first, and is asked by a probe that says nothing.
pub(super) fn report_silent_probe(table: &mut Table<'_, '_>, run: &RunSettings) {
    let asked = match &run.health {
        Some(check) if check.probe == Probe::Tcp => check.listener.as_deref(),
        Some(_) => None,
        None => run.listen.first().map(|listen| listen.name.as_str()),
    };
    let deferred = |listen: &&Listen| listen.options.defer_accept.is_some() && asked == Some(&listen.name);
    if let Some(listen) = run.listen.iter().find(deferred) {
        let is = format!(
            "has defer_accept for listener {:?}, and its TCP probe says nothing to accept",
            listen.name
        );
        table.wrong("listen", is, "ask by http or grpc in [run.health], or leave defer_accept out");
    }
}

fn seconds(value: &DeValue<'_>) -> Result<Millis, Wrong> {
    let time = value::duration(value)?;
    if time.0 % 1000 == 0 && (Millis::from_secs(1)..=SECONDS_MAX).contains(&time) {
        return Ok(time);
    }
    Err(Wrong::new(format!("is {time}"), "write whole seconds, from \"1s\" to \"9h\""))
}
