//! Run settings as lines of a manifest: `run.<key> <value>`, in a fixed order, each value spelled in one way.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::fault::{Fault, TextError};
use super::lines::{Lines, Words, exact, quote};
use super::{health_lines, output_lines, process_lines, secret_lines, socket_lines};
use crate::run::{
    Address, Handover, HealthCheck, Inherited, Listen, MODE_DEFAULT, OnExit, Progress, Proxy, Ready, Recycle,
    RunSettings, SocketOptions, SocketPath, Stdin, WORKERS_MAX, environment,
};
use crate::signal::Signal;
use crate::units::{Bytes, Millis, Share};

const INHERIT: &str = "run.environment.inherit";
const YES_NO: [(&str, bool); 2] = [("yes", true), ("no", false)];

/// The settings as (key, value), in the order of the manifest. `listen` and `env` may come several times.
pub(super) fn write(run: &RunSettings) -> Vec<(&'static str, String)> {
    // Taken apart by name, so that a new setting cannot be forgotten here.
    let RunSettings {
        command,
        workers,
        listen,
        overlap,
        ready,
        health,
        startup_timeout,
        drain,
        stop_tree_after,
        stop_signal,
        quiesce_signal,
        quiesce,
        watchdog,
        keep_warm,
        split,
        progress,
        on_exit,
        max_restarts,
        relaunch_exit_code,
        recycle,
        needs,
        process,
        output,
        inherited,
        env,
        secrets,
    } = run;
    let mut lines = Vec::new();
    let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
    lines.push(("run.command", words.join(" ")));
    // One is what is meant when nothing is said.
    lines.extend((*workers > 1).then(|| ("run.workers", workers.to_string())));
    for listen in listen {
        lines.push(("run.listen", listen_value(listen)));
        lines.extend(socket_lines::write(&listen.options).map(|value| (socket_lines::KEY, value)));
    }
    lines.push(("run.overlap", (if *overlap { "yes" } else { "no" }).to_string()));
    lines.push(("run.ready", ready_word(*ready).to_string()));
    lines.extend(health.iter().flat_map(health_lines::write));
    lines.push(("run.startup_timeout", startup_timeout.0.to_string()));
    lines.push(("run.drain", drain.0.to_string()));
    lines.extend(stop_tree_after.map(|after| ("run.stop_tree_after", after.0.to_string())));
    lines.push(("run.stop_signal", stop_signal.number().to_string()));
    lines.extend(quiesce_signal.map(|signal| ("run.quiesce_signal", signal.number().to_string())));
    lines.extend(quiesce.map(|limit| ("run.quiesce", limit.0.to_string())));
    lines.extend(watchdog.map(|limit| ("run.watchdog", limit.0.to_string())));
    lines.extend(keep_warm.map(|time| ("run.keep_warm", time.0.to_string())));
    lines.extend(split.map(|share| ("run.split", share.ppm().to_string())));
    lines.extend(progress.iter().map(|progress| ("run.progress", progress_value(progress))));
    lines.push(("run.on_exit", on_exit_word(*on_exit).to_string()));
    lines.push(("run.max_restarts", max_restarts.to_string()));
    lines.push(("run.relaunch_exit_code", relaunch_exit_code.to_string()));
    lines.extend(recycle.map(|recycle| ("run.memory.recycle", recycle_value(recycle))));
    lines.extend(needs.map(|Bytes(bytes)| ("run.memory.needs", bytes.to_string())));
    lines.extend(process_lines::write(process));
    lines.extend(output_lines::write(output));
    lines.extend(inherited.only.iter().map(|only| (INHERIT, inherited_value(only))));
    lines.extend(env.iter().map(|(name, value)| ("run.env", format!("{} {}", quote(name), quote(value)))));
    lines.extend(secret_lines::write(secrets));
    lines
}

/// Reads what [`write`] wrote, and refuses what no program could be started with.
pub(super) fn read(lines: &mut Lines<'_>) -> Result<RunSettings, TextError> {
    Ok(RunSettings {
        command: read_command(lines)?,
        workers: read_workers(lines)?,
        listen: read_listen(lines)?,
        overlap: read_word(lines, "run.overlap", &YES_NO)?,
        ready: read_word(lines, "run.ready", &READY)?,
        health: health_lines::read(lines)?,
        startup_timeout: Millis(read_value(lines, "run.startup_timeout")?),
        drain: Millis(read_value(lines, "run.drain")?),
        stop_tree_after: read_optional_time(lines, "run.stop_tree_after")?,
        stop_signal: read_signal(lines)?,
        quiesce_signal: read_quiesce_signal(lines)?,
        quiesce: read_optional_time(lines, "run.quiesce")?,
        watchdog: read_optional_time(lines, "run.watchdog")?,
        keep_warm: read_optional_time(lines, "run.keep_warm")?,
        split: process_lines::read_one(lines, "run.split", read_split)?,
        progress: process_lines::read_one(lines, "run.progress", read_progress)?,
        on_exit: read_word(lines, "run.on_exit", &ON_EXIT)?,
        max_restarts: read_value(lines, "run.max_restarts")?,
        relaunch_exit_code: read_value(lines, "run.relaunch_exit_code")?,
        recycle: process_lines::read_one(lines, "run.memory.recycle", read_recycle)?,
        needs: process_lines::read_one(lines, "run.memory.needs", |words| {
            words.value("a number").map(Bytes)
        })?,
        process: process_lines::read(lines)?,
        output: output_lines::read(lines)?,
        inherited: Inherited { only: process_lines::read_one(lines, INHERIT, read_inherited)? },
        env: read_env(lines)?,
        secrets: secret_lines::read(lines)?,
    })
}

/// What is wrong between settings that are right each for itself.
pub(super) fn check(run: &RunSettings) -> Result<(), Fault> {
    let names: Vec<&str> = run.listen.iter().map(|listen| listen.name.as_str()).collect();
    let twice = |name: &str| names.iter().filter(|other| **other == name).count() > 1;
    if names.iter().any(|name| twice(name)) {
        return Err(refused("run.listen", "two listeners have the same name"));
    }
    process_lines::check(&run.process)?;
    let unfit = |listen: &&Listen| listen.per_worker && (run.workers <= 1 || !listen.is_divisible());
    if run.listen.iter().any(|listen| unfit(&listen)) {
        return Err(refused("run.listen", "per_worker needs a port and several workers"));
    }
    if let Stdin::Listener(name) = &run.process.stdin
        && !names.contains(&name.as_str())
    {
        return Err(refused("run.stdin", "there is no listener of that name"));
    }
    match &run.health {
        Some(HealthCheck { listener: Some(listener), .. }) if !names.contains(&listener.as_str()) => {
            Err(refused("run.health.listener", "there is no listener of that name"))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn refused(key: &'static str, why: &'static str) -> Fault {
    Fault::Setting { key, why }
}

const READY: [(&str, Ready); 2] = [("probe", Ready::Probe), ("notify", Ready::Notify)];
const ON_EXIT: [(&str, OnExit); 2] = [("restart", OnExit::Restart), ("exit", OnExit::Exit)];
const PROXY: Handover =
    Handover::Proxy(Proxy { max_connections: None, proxy_protocol: false, close_hint: false });
const CLOSE_HINT: [(&str, bool); 1] = [("close_hint", true)];
const HANDOVER: [(&str, Handover); 3] =
    [("auto", Handover::Auto), ("inherit", Handover::Inherit), ("proxy", PROXY)];

fn ready_word(ready: Ready) -> &'static str {
    match ready {
        Ready::Probe => "probe",
        Ready::Notify => "notify",
    }
}

fn on_exit_word(on_exit: OnExit) -> &'static str {
    match on_exit {
        OnExit::Restart => "restart",
        OnExit::Exit => "exit",
    }
}

fn listen_value(listen: &Listen) -> String {
    // The options have a line of their own.
    let Listen { name, address, mode, handover, backlog, options: _, per_worker } = listen;
    let address = match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix {} {mode:o}", quote(path.as_str())),
    };
    let more = match handover {
        Handover::Auto | Handover::Inherit if *per_worker => " per_worker".to_string(),
        Handover::Auto | Handover::Inherit => String::new(),
        Handover::Proxy(Proxy { max_connections, proxy_protocol, close_hint }) => {
            let header = if *proxy_protocol { "yes" } else { "no" };
            // Releases that were pushed before it was known have no such word.
            let hint = if *close_hint { " close_hint" } else { "" };
            format!(" {} {header}{hint}", max_connections.unwrap_or(0))
        }
    };
    format!("{} {address} {} {backlog}{more}", quote(name), handover.word())
}

fn progress_value(progress: &Progress) -> String {
    let Progress { file, within } = progress;
    format!("{} {}", quote(file), within.0)
}

fn read_progress(words: &mut Words<'_>) -> Result<Progress, TextError> {
    let progress = Progress { file: words.quoted()?, within: Millis(words.value("a number")?) };
    if progress.file.is_empty() || progress.file.contains('\0') {
        let why = "a file's name is not empty and has no NUL character";
        return Err(words.fault(refused("run.progress", why)));
    }
    Ok(progress)
}

fn read_split(words: &mut Words<'_>) -> Result<Share, TextError> {
    let share = Share::from_ppm(words.value("a number")?).filter(|share| *share > Share::NONE);
    share.ok_or_else(|| words.fault(refused("run.split", "it is nothing, or more than all")))
}

fn recycle_value(recycle: Recycle) -> String {
    match recycle {
        Recycle::Share(share) => format!("ppm {}", share.ppm()),
        Recycle::Bytes(Bytes(bytes)) => format!("bytes {bytes}"),
    }
}

fn read_recycle(words: &mut Words<'_>) -> Result<Recycle, TextError> {
    let is_share = words.one_of(&[("ppm", true), ("bytes", false)])?;
    if !is_share {
        return Ok(Recycle::Bytes(Bytes(words.value("a number")?)));
    }
    let share = Share::from_ppm(words.value("a number")?);
    share.map(Recycle::Share).ok_or_else(|| words.fault(refused("run.memory.recycle", "it is more than all")))
}

/// A word before the names, since there may be none.
fn inherited_value(only: &[String]) -> String {
    let names = only.iter().map(|name| quote(name));
    core::iter::once("only".to_string()).chain(names).collect::<Vec<_>>().join(" ")
}

fn read_inherited(words: &mut Words<'_>) -> Result<Vec<String>, TextError> {
    words.one_of(&[("only", ())])?;
    let mut only: Vec<String> = Vec::new();
    while !words.is_empty() {
        let name = words.quoted()?;
        if !environment::is_pattern(&name) {
            return Err(words.fault(refused(INHERIT, "a name is not empty and has a * at its end only")));
        }
        if only.last().is_some_and(|last| *last >= name) {
            return Err(words.fault(refused(INHERIT, "names are sorted, each once")));
        }
        only.push(name);
    }
    Ok(only)
}

fn read_command(lines: &mut Lines<'_>) -> Result<Vec<String>, TextError> {
    const KEY: &str = "run.command";
    let mut words = lines.expect(KEY)?;
    let mut command = Vec::new();
    while !words.is_empty() {
        command.push(words.quoted()?);
    }
    if command.first().is_none_or(String::is_empty) {
        return Err(words.fault(refused(KEY, "it names no program")));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(words.fault(refused(KEY, "it has a NUL character, which no program can be given")));
    }
    Ok(command)
}

fn read_listen(lines: &mut Lines<'_>) -> Result<Vec<Listen>, TextError> {
    const KEY: &str = "run.listen";
    let mut listen = Vec::new();
    while let Some(mut words) = lines.take(KEY)? {
        let name = words.quoted()?;
        let (address, mode) = read_address(&mut words)?;
        let mut one = Listen {
            name,
            address,
            mode,
            handover: words.one_of(&HANDOVER)?,
            backlog: words.value("a number")?,
            options: SocketOptions::default(),
            per_worker: false,
        };
        one.per_worker =
            one.handover.passes_socket() && !words.is_empty() && words.one_of(&[("per_worker", true)])?;
        if let Handover::Proxy(proxy) = &mut one.handover {
            // No limit is written as 0: a program that may have no connection serves nobody.
            proxy.max_connections = Some(words.value("a number")?).filter(|limit| *limit > 0);
            proxy.proxy_protocol = words.one_of(&YES_NO)?;
            proxy.close_hint = !words.is_empty() && words.one_of(&CLOSE_HINT)?;
        }
        words.end()?;
        // The names travel to the program in one variable, separated by colons.
        if one.name.is_empty() || one.name.chars().any(|c| c.is_control() || c == ':') {
            let why = "a listener's name is not empty and has no colon or control character";
            return Err(words.fault(refused(KEY, why)));
        }
        one.options =
            process_lines::read_one(lines, socket_lines::KEY, socket_lines::read)?.unwrap_or_default();
        listen.push(one);
    }
    Ok(listen)
}

/// An address with port, or `unix`, the path, and who may connect.
fn read_address(words: &mut Words<'_>) -> Result<(Address, u16), TextError> {
    const KEY: &str = "run.listen";
    let word = words.word()?;
    if word == "unix" {
        let path: Result<SocketPath, _> = words.quoted()?.parse();
        let path = path.map_err(|_| words.fault(refused(KEY, "no listener can have this path")))?;
        let mode = words.word()?;
        let bits = u16::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o777);
        let bits = bits.filter(|bits| format!("{bits:o}") == mode);
        let bits =
            bits.ok_or_else(|| words.fault(refused(KEY, "the permissions are not 0 to 777 in octal")))?;
        return Ok((Address::Unix(path), bits));
    }
    match exact::<SocketAddr>(word) {
        Some(address) if address.port() == 0 => {
            Err(words.fault(refused(KEY, "port 0 cannot be found by clients")))
        }
        Some(address) => Ok((Address::Tcp(address), MODE_DEFAULT)),
        None => Err(words.fault(Fault::NotA { what: "an address with port", text: word.to_string() })),
    }
}

fn read_optional_time(lines: &mut Lines<'_>, key: &str) -> Result<Option<Millis>, TextError> {
    let Some(mut words) = lines.take(key)? else {
        return Ok(None);
    };
    let after = words.value("a number")?;
    words.end()?;
    Ok(Some(Millis(after)))
}

fn read_workers(lines: &mut Lines<'_>) -> Result<u32, TextError> {
    let Some(mut words) = lines.take("run.workers")? else { return Ok(1) };
    let workers = words.value("a number")?;
    words.end()?;
    if (2..=WORKERS_MAX).contains(&workers) {
        Ok(workers)
    } else {
        Err(words.fault(refused("run.workers", "it is not from 2 to 256")))
    }
}

fn read_signal(lines: &mut Lines<'_>) -> Result<Signal, TextError> {
    const KEY: &str = "run.stop_signal";
    signal(KEY, lines.expect(KEY)?)
}

fn read_quiesce_signal(lines: &mut Lines<'_>) -> Result<Option<Signal>, TextError> {
    const KEY: &str = "run.quiesce_signal";
    lines.take(KEY)?.map(|words| signal(KEY, words)).transpose()
}

fn signal(key: &'static str, mut words: Words<'_>) -> Result<Signal, TextError> {
    let number = words.value("a number")?;
    words.end()?;
    Signal::from_number(number).ok_or_else(|| words.fault(refused(key, "signals are 1 to 64")))
}

fn read_env(lines: &mut Lines<'_>) -> Result<Vec<(String, String)>, TextError> {
    const KEY: &str = "run.env";
    let mut env: Vec<(String, String)> = Vec::new();
    while let Some(mut words) = lines.take(KEY)? {
        let (name, value) = (words.quoted()?, words.quoted()?);
        words.end()?;
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let why = "a name is not empty and has no `=`, and neither name nor value has a NUL character";
            return Err(words.fault(refused(KEY, why)));
        }
        if env.last().is_some_and(|(last, _)| *last >= name) {
            return Err(words.fault(refused(KEY, "names are sorted, each once")));
        }
        env.push((name, value));
    }
    Ok(env)
}

fn read_word<T: Copy>(
    lines: &mut Lines<'_>,
    key: &'static str,
    known: &[(&'static str, T)],
) -> Result<T, TextError> {
    let mut words = lines.expect(key)?;
    let value = words.one_of(known)?;
    words.end()?;
    Ok(value)
}

pub(super) fn read_value<T>(lines: &mut Lines<'_>, key: &'static str) -> Result<T, TextError>
where
    T: core::str::FromStr + core::fmt::Display,
{
    let mut words = lines.expect(key)?;
    let value = words.value("a number")?;
    words.end()?;
    Ok(value)
}
