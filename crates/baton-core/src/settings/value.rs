//! Single values: what each kind of setting may be, and what to write when it is something else.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use toml::de::{DeArray, DeTable, DeValue};

use super::findings::Wrong;
use crate::ids::{FlavorName, NAME_BYTES_MAX, ServiceName, valid_name};
use crate::run::{Address, InvalidAddress, InvalidPath, SOCKET_PATH_BYTES_MAX};
use crate::signal::Signal;
use crate::units::{Bytes, Millis, Share};

const DURATION_FORM: &str =
    "write whole numbers with units, in quotes, such as \"30s\", \"250ms\" or \"1m30s\"";
const SIZE_FORM: &str = "write a whole number with a unit, in quotes, such as \"64KiB\" or \"1MiB\"";
const SHARE_FORM: &str = "write percent of at most 100%, in quotes, such as \"25%\" or \"0.5%\"";

/// A longer duration than a day is taken for a mistake of the unit.
const DURATION_MAX: Millis = Millis::from_secs(24 * 3600);

/// Environment variables that the bootloader sets itself, and prefixes of such.
const OWN_ENV: [&str; 2] = ["PORT", "NOTIFY_SOCKET"];
const OWN_ENV_PREFIXES: [&str; 3] = ["BATON_", "LISTEN_", "WATCHDOG_"];

/// Any text that can be handed to a program.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, Wrong> {
    match value {
        // Arguments and environment end at the first NUL: what follows would silently be lost.
        DeValue::String(text) if text.contains('\0') => {
            Err(Wrong::new("has a NUL character in it", "leave it out: no program can receive it"))
        }
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) => Err(of_type(value, format!("write it in quotes: \"{number}\""))),
        DeValue::Float(number) => Err(of_type(value, format!("write it in quotes: \"{number}\""))),
        DeValue::Boolean(on) => Err(of_type(value, format!("write it in quotes: \"{on}\""))),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(of_type(value, "write a text in quotes".to_owned()))
        }
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| of_type(value, "write true or false, without quotes".to_owned()))
}

/// A whole number within a range.
pub(super) fn whole<N: TryFrom<u32>>(
    range: RangeInclusive<u32>,
) -> impl Fn(&DeValue<'_>) -> Result<N, Wrong> {
    move |value| {
        let fix = || format!("write a whole number from {} to {}", range.start(), range.end());
        let number = value.as_integer().ok_or_else(|| of_type(value, fix()))?;
        u32::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| Wrong::new(format!("is {number}"), fix()))
    }
}

/// A whole number within a range that may be below zero.
pub(super) fn signed<N: TryFrom<i32>>(
    range: RangeInclusive<i32>,
) -> impl Fn(&DeValue<'_>) -> Result<N, Wrong> {
    move |value| {
        let fix = || format!("write a whole number from {} to {}", range.start(), range.end());
        let number = value.as_integer().ok_or_else(|| of_type(value, fix()))?;
        i32::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| Wrong::new(format!("is {number}"), fix()))
    }
}

/// A duration of at most [`DURATION_MAX`].
pub(super) fn duration(value: &DeValue<'_>) -> Result<Millis, Wrong> {
    let text = string(value, DURATION_FORM)?;
    match text.parse::<Millis>() {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        Ok(_) => Err(Wrong::new(format!("is {text:?}"), "write at most 24h")),
        Err(_) => Err(Wrong::new(format!("is {text:?}"), DURATION_FORM)),
    }
}

/// A duration that is not nothing.
pub(super) fn some_time(value: &DeValue<'_>) -> Result<Millis, Wrong> {
    match duration(value)? {
        Millis::ZERO => Err(Wrong::new("is no time at all", "write at least 1ms")),
        duration => Ok(duration),
    }
}

/// A size within a range.
pub(super) fn size(range: RangeInclusive<Bytes>) -> impl Fn(&DeValue<'_>) -> Result<Bytes, Wrong> {
    move |value| {
        let text = string(value, SIZE_FORM)?;
        match text.parse::<Bytes>() {
            Ok(size) if range.contains(&size) => Ok(size),
            Ok(_) => {
                let typed = |size: &Bytes| format!("{size}").replace(' ', "");
                let fix = format!("write a size from {} to {}", typed(range.start()), typed(range.end()));
                Err(Wrong::new(format!("is {text:?}"), fix))
            }
            Err(_) => Err(Wrong::new(format!("is {text:?}"), SIZE_FORM)),
        }
    }
}

/// A share, of nothing up to everything.
pub(super) fn share(value: &DeValue<'_>) -> Result<Share, Wrong> {
    let text = string(value, SHARE_FORM)?;
    text.parse().map_err(|_| Wrong::new(format!("is {text:?}"), SHARE_FORM))
}

/// A share that is not nothing.
pub(super) fn some_share(value: &DeValue<'_>) -> Result<Share, Wrong> {
    match share(value)? {
        Share::NONE => Err(Wrong::new("is nothing", "write more than 0%, so that the rollout can move")),
        share => Ok(share),
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let fix = match words.as_slice() {
            [only] => format!("this version knows only {only}"),
            _ => format!("write {}", words.join(" or ")),
        };
        let text = string(value, &fix)?;
        let choice = choices.iter().find(|(word, _)| *word == text);
        choice.map(|(_, choice)| *choice).ok_or_else(|| Wrong::new(format!("is {text:?}"), fix))
    }
}

/// A signal that a program can act upon.
pub(super) fn stop_signal(value: &DeValue<'_>) -> Result<Signal, Wrong> {
    let fix = "write the name of a signal, such as \"TERM\", \"QUIT\" or \"USR1\"";
    let text = string(value, fix)?;
    match text.parse() {
        Ok(Signal::KILL | Signal::STOP) => Err(Wrong::new(
            format!("is {text:?}, which no program can act upon"),
            "write \"TERM\", for example",
        )),
        Ok(signal) => Ok(signal),
        Err(_) => Err(Wrong::new(format!("is {text:?}"), fix)),
    }
}

/// The name of a service.
pub(super) fn service(value: &DeValue<'_>) -> Result<ServiceName, Wrong> {
    let text = string(value, "write service = \"NAME\"")?;
    text.parse().map_err(|_| not_a_name(text))
}

/// The name of a flavor.
pub(super) fn flavor(name: &str) -> Result<FlavorName, Wrong> {
    // What stands behind the last dot of a service's name is its flavor.
    name.parse().ok().filter(|_| !name.contains('.')).ok_or_else(|| {
        let form = format!(
            "use 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '_' and '-', starting with a letter or digit"
        );
        Wrong::new("is not a name that a flavor can have", form)
    })
}

/// The name of a listener.
pub(super) fn listener(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = string(value, "write a name in quotes, such as \"http\"")?;
    if valid_name(text) { Ok(text.to_owned()) } else { Err(not_a_name(text)) }
}

/// The name of an environment variable that is the user's to set.
pub(super) fn env_name(name: &str) -> Result<String, Wrong> {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(letters) {
        return Err(Wrong::new(
            "is not the name of a variable",
            "use letters, digits and _, starting with a letter or _",
        ));
    }
    if OWN_ENV.contains(&name) || OWN_ENV_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(Wrong::new("is set by the bootloader", "leave it out, or choose another name"));
    }
    Ok(name.to_owned())
}

/// The permissions of a file, in octal.
pub(super) fn permissions(such_as: &str) -> impl Fn(&DeValue<'_>) -> Result<u16, Wrong> {
    move |value| {
        let fix = || format!("write octal digits in quotes, such as {such_as:?}");
        let text = string(value, &fix())?;
        let bits = u16::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
        bits.ok_or_else(|| Wrong::new(format!("is {text:?}"), fix()))
    }
}

/// The address of a listener.
pub(super) fn address(value: &DeValue<'_>) -> Result<Address, Wrong> {
    const FORM: &str = "write an address and a port, such as \"0.0.0.0:8080\" or \"[::]:8080\", or \
                        \"unix:/run/app.sock\"";
    let text = string(value, FORM)?;
    let fix = match text.parse::<Address>() {
        Ok(address) => return Ok(address),
        Err(InvalidAddress::NoPort) => "write the port that clients use; 0 is none".to_owned(),
        Err(InvalidAddress::Path(wrong)) => fit_path(&wrong),
        Err(InvalidAddress::Neither) => instead_of_address(text).unwrap_or_else(|| FORM.to_owned()),
    };
    Err(Wrong::new(format!("is {text:?}"), fix))
}

/// What to write in place of a path that cannot be that of a socket.
fn fit_path(wrong: &InvalidPath) -> String {
    match wrong {
        InvalidPath::Abstract => {
            "sockets in the abstract namespace cannot be handed over: write a path, such as \"unix:/run/app.sock\""
                .to_owned()
        }
        InvalidPath::Relative => "write the whole path, such as \"unix:/run/app.sock\"".to_owned(),
        InvalidPath::NoFile => "write the name of the socket too, such as \"unix:/run/app.sock\"".to_owned(),
        InvalidPath::Control => "leave the control characters out".to_owned(),
        InvalidPath::Long(bytes) => {
            format!("write a path of at most {SOCKET_PATH_BYTES_MAX} bytes: this one has {bytes}")
        }
    }
}

/// What was probably meant by a text that is not an address.
fn instead_of_address(text: &str) -> Option<String> {
    if text.starts_with('/') {
        return Some(format!("write \"unix:{text}\""));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
    Some(match host {
        "localhost" => format!(
            "names are not looked up: write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for others too"
        ),
        "" | "*" => format!("write \"0.0.0.0:{port}\""),
        host if host.parse::<core::net::Ipv6Addr>().is_ok() => format!("write \"[{host}]:{port}\""),
        _ => format!("names are not looked up: write \"0.0.0.0:{port}\" for every address of the machine"),
    })
}

/// The path of a probe, as it stands in the request.
pub(super) fn http_path(value: &DeValue<'_>) -> Result<String, Wrong> {
    const FORM: &str = "write a path, such as \"/health\"";
    let text = string(value, FORM)?;
    if !text.starts_with('/') {
        return Err(Wrong::new(format!("is {text:?}"), FORM));
    }
    match text.chars().find(|c| !c.is_ascii_graphic()) {
        Some(c) => {
            Err(Wrong::new(format!("has {c:?} in it"), "write such characters as %20, by their bytes"))
        }
        None => Ok(text.to_owned()),
    }
}

/// The elements of a list that has any.
pub(super) fn elements<'t>(value: &'t DeValue<'t>) -> Result<&'t DeArray<'t>, Wrong> {
    match any_elements(value)? {
        array if array.is_empty() => Err(Wrong::new("is empty", "write at least one element")),
        array => Ok(array),
    }
}

/// The elements of a list.
pub(super) fn any_elements<'t>(value: &'t DeValue<'t>) -> Result<&'t DeArray<'t>, Wrong> {
    match value {
        DeValue::Array(array) => Ok(array),
        DeValue::String(text) => Err(of_type(value, format!("write an array: {}", as_array(text)))),
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => Err(of_type(value, "write an array of texts: [\"a\", \"b\"]".to_owned())),
    }
}

/// The words of a text as an array; one that only a shell could split is left to a shell.
fn as_array(text: &str) -> String {
    if text.contains(|c| "\"'`\\$&|;<>*?(){}~#".contains(c)) {
        return format!("[\"sh\", \"-c\", {text:?}]");
    }
    let words: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(", "))
}

/// A table.
pub(super) fn table<'t>(value: &'t DeValue<'t>, form: &str) -> Result<&'t DeTable<'t>, Wrong> {
    value.as_table().ok_or_else(|| of_type(value, form.to_owned()))
}

/// A list of tables.
pub(super) fn tables<'t>(value: &'t DeValue<'t>, form: &str) -> Result<&'t DeArray<'t>, Wrong> {
    value.as_array().ok_or_else(|| of_type(value, form.to_owned()))
}

/// Any text; `form` says what to write in place of something else.
pub(super) fn string<'t>(value: &'t DeValue<'_>, form: &str) -> Result<&'t str, Wrong> {
    value.as_str().ok_or_else(|| of_type(value, form.to_owned()))
}

fn of_type(value: &DeValue<'_>, fix: String) -> Wrong {
    Wrong::new(format!("is {}", kind(value)), fix)
}

fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => return format!("the text {text:?}"),
        DeValue::Integer(number) => return format!("the number {number}"),
        DeValue::Float(number) => return format!("the number {number}"),
        DeValue::Boolean(on) => return format!("{on}"),
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
    .to_owned()
}

fn not_a_name(text: &str) -> Wrong {
    Wrong::new(format!("is {text:?}"), name_form())
}

fn name_form() -> String {
    format!("use 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '.', '_' and '-', starting with a letter or digit")
}
