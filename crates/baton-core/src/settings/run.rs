//! `[run]`: how the program is run.

use alloc::format;
use alloc::string::String;

use toml::de::DeValue;

use super::findings::Wrong;
use super::table::Table;
use super::{health, listen, output, process, socket_options, value};
use crate::placeholder::{self, Unfit};
use crate::run::{Inherited, OnExit, Progress, Ready, Recycle, RunSettings, Stdin, WORKERS_MAX, environment};
use crate::units::{Bytes, Millis, Share};

/// More restarts than this within the window cannot happen: the waits between them are too long.
const MAX_RESTARTS_MAX: u32 = 1000;
/// A shorter watchdog bites programs that are well, on a machine that is busy.
const WATCHDOG_MIN: Millis = Millis(500);
/// A file that is touched more often than this costs more than it tells.
const PROGRESS_MIN: Millis = Millis::from_secs(1);
/// No program that does anything uses less.
const MEMORY_MIN: Bytes = Bytes::from_kib(1024);
/// More than any machine has.
const MEMORY_MAX: Bytes = Bytes::from_kib(1 << 40);

/// What to do about a placeholder of no use.
pub(super) const NAME_LISTENER: &str = "name a listener of run.listen: {port:http} or {fd:http}";

const READY: [(&str, Ready); 2] = [("probe", Ready::Probe), ("notify", Ready::Notify)];
const ON_EXIT: [(&str, OnExit); 2] = [("restart", OnExit::Restart), ("exit", OnExit::Exit)];

/// Reads what the table says over `run`.
pub(super) fn read(table: &mut Table<'_, '_>, mut run: RunSettings) -> RunSettings {
    read_command(table, &mut run);
    table.set("drain", &mut run.drain, value::duration);
    table.set("stop_signal", &mut run.stop_signal, value::stop_signal);
    table.set("stop_tree_after", &mut run.stop_tree_after, |value| value::duration(value).map(Some));
    table.set("ready", &mut run.ready, value::one_of(&READY));
    table.set("on_exit", &mut run.on_exit, value::one_of(&ON_EXIT));
    table.set("max_restarts", &mut run.max_restarts, value::whole(0..=MAX_RESTARTS_MAX));
    table.set("relaunch_exit_code", &mut run.relaunch_exit_code, value::whole(1..=255));
    if let Some(listen) = listen::read(table) {
        run.listen = listen;
    }
    read_overlap(table, &mut run);
    read_keep_warm(table, &mut run);
    read_split(table, &mut run);
    process::read(table, &mut run.process, &run.listen);
    read_workers(table, &mut run);
    read_quiesce(table, &mut run);
    table.set("watchdog", &mut run.watchdog, |value| watchdog(value).map(Some));
    table.table("progress", |progress| read_progress(progress, &mut run));
    table.table("memory", |memory| {
        memory.set("recycle", &mut run.recycle, |value| recycle(value).map(Some));
        memory.set("needs", &mut run.needs, |value| value::size(MEMORY_MIN..=MEMORY_MAX)(value).map(Some));
    });
    table.table("environment", |environment| read_inherited(environment, &mut run.inherited));
    table.table("health", |health| health::read(health, &mut run));
    table.table("output", |table| output::read(table, &mut run.output));

    report_placeholders(table, &run);
    socket_options::report_silent_probe(table, &run);
    report_late_tree_stop(table, &run);
    run
}

fn report_placeholders(table: &mut Table<'_, '_>, run: &RunSettings) {
    for unfit in run.command.iter().flat_map(|word| placeholder::unfit(word, &run.listen)) {
        table.wrong("command", unfilled(&unfit), NAME_LISTENER);
    }
    let asks =
        |form: &str, name: &str| run.command.iter().any(|word| word.contains(&format!("{{{form}:{name}}}")));
    let both =
        run.listen.iter().map(|listen| &listen.name).find(|name| asks("port", name) && asks("path", name));
    if let Some(name) = both {
        let is =
            format!("has {{port:{name}}} and {{path:{name}}}, and connections are forwarded to one of them");
        table.wrong("command", is, "write one of the two");
    }
}

/// What is wrong with a text that has such a placeholder.
pub(super) fn unfilled(unfit: &Unfit) -> String {
    format!("has a placeholder that cannot be filled: {unfit}")
}

fn report_late_tree_stop(table: &mut Table<'_, '_>, run: &RunSettings) {
    let Some(after) = run.stop_tree_after.filter(|after| *after > run.drain) else { return };
    if table.has("stop_tree_after") {
        let is = format!("is longer than run.drain, {}", run.drain);
        table.wrong("stop_tree_after", is, "write less, or a longer run.drain");
    } else if table.has("drain") {
        let is = format!("is shorter than run.stop_tree_after, {after}");
        table.wrong("drain", is, "write more, or a shorter run.stop_tree_after");
    }
}

fn read_command(table: &mut Table<'_, '_>, run: &mut RunSettings) {
    if let Some(command) = table.list("command", value::text) {
        if command.first().is_some_and(|program| program.is_empty()) {
            table.wrong("command", "names no program", "write the program first: [\"node\", \"server.js\"]");
        }
        run.command = command;
    }
    if run.command.is_empty() && !table.has("command") {
        table.missing("command", "write the program and its arguments: command = [\"node\", \"server.js\"]");
    }
    if run.command.is_empty() {
        // So that each flavor does not report it again.
        run.command.push(String::new());
    }
}

fn watchdog(value: &DeValue<'_>) -> Result<Millis, Wrong> {
    match value::duration(value)? {
        short if short < WATCHDOG_MIN => {
            Err(Wrong::new(format!("is {short}"), format!("write at least {WATCHDOG_MIN}")))
        }
        limit => Ok(limit),
    }
}

fn read_progress(table: &mut Table<'_, '_>, run: &mut RunSettings) {
    let (file, within) = (table.read("file", file), table.read("within", progress_within));
    if !table.is_present() {
        return;
    }
    for (key, fix) in
        [("file", "write a path, such as file = \"progress\""), ("within", "write within = \"30s\"")]
    {
        if !table.has(key) && run.progress.is_none() {
            table.missing(key, fix);
        }
    }
    let before = run.progress.take();
    let file = file.or_else(|| before.as_ref().map(|progress| progress.file.clone()));
    let within = within.or_else(|| before.as_ref().map(|progress| progress.within));
    run.progress = file.zip(within).map(|(file, within)| Progress { file, within });
}

fn file(value: &DeValue<'_>) -> Result<String, Wrong> {
    match value::text(value)? {
        empty if empty.is_empty() => Err(Wrong::new("is empty", "write a path, such as \"progress\"")),
        path => Ok(path),
    }
}

fn progress_within(value: &DeValue<'_>) -> Result<Millis, Wrong> {
    match value::duration(value)? {
        short if short < PROGRESS_MIN => {
            Err(Wrong::new(format!("is {short}"), format!("write at least {PROGRESS_MIN}")))
        }
        within => Ok(within),
    }
}

fn recycle(value: &DeValue<'_>) -> Result<Recycle, Wrong> {
    match value.as_str() {
        Some(text) if text.ends_with('%') => match value::share(value)? {
            Share::NONE => Err(Wrong::new("is nothing", "write more than 0%, such as \"80%\"")),
            share => Ok(Recycle::Share(share)),
        },
        Some(_) | None => value::size(MEMORY_MIN..=MEMORY_MAX)(value).map(Recycle::Bytes),
    }
}

fn read_inherited(table: &mut Table<'_, '_>, inherited: &mut Inherited) {
    if let Some(mut only) = table.any_list("inherit", variable) {
        only.sort_unstable();
        only.dedup();
        inherited.only = Some(only);
    }
}

fn variable(value: &DeValue<'_>) -> Result<String, Wrong> {
    const FIX: &str = "write the name of a variable, or a beginning and a *, such as \"PATH\" or \"LC_*\"";
    match value::string(value, FIX)? {
        name if environment::is_own(name.trim_end_matches('*')) => {
            let is = format!("is {name:?}, which is the bootloader's own");
            Err(Wrong::new(is, "leave it out: no program gets it"))
        }
        name if environment::is_pattern(name) => Ok(String::from(name)),
        name => Err(Wrong::new(format!("is {name:?}"), FIX)),
    }
}

fn read_quiesce(table: &mut Table<'_, '_>, run: &mut RunSettings) {
    table.set("quiesce_signal", &mut run.quiesce_signal, |value| value::stop_signal(value).map(Some));
    table.set("quiesce", &mut run.quiesce, |value| value::duration(value).map(Some));
    if !run.listen.is_empty() {
        for key in ["quiesce_signal", "quiesce"] {
            if table.has(key) {
                let fix = "leave it out: no new connection comes anyway";
                table.wrong(key, "is for programs without run.listen", fix);
            }
        }
        (run.quiesce_signal, run.quiesce) = (None, None);
    } else if run.quiesce_signal.is_none() && table.has("quiesce") && !table.has("quiesce_signal") {
        table.wrong(
            "quiesce",
            "needs a signal that asks for it",
            "write quiesce_signal = \"USR1\", for example",
        );
    }
}

/// Copies share what they are given: a socket or a pipe, but no port and no terminal.
fn read_workers(table: &mut Table<'_, '_>, run: &mut RunSettings) {
    table.set("workers", &mut run.workers, value::whole(1..=WORKERS_MAX));
    report_single(table, run);
    if run.workers == 1 || !table.has("workers") {
        return;
    }
    if run.process.stdin == Stdin::Inherit {
        let is = "is more than one, and run.stdin is \"inherit\"";
        table.wrong("workers", is, "leave one of them out: copies would read each other's input");
    }
    if let Some(listen) = run.listen.iter().find(|listen| !listen.handover.passes_socket()) {
        let is = format!("is more than one, and listener {:?} has handover = \"proxy\"", listen.name);
        table.wrong("workers", is, "write handover = \"auto\": copies cannot bind the same private port");
    }
}

/// What is for each of several copies, beside one.
fn report_single(table: &mut Table<'_, '_>, run: &RunSettings) {
    let own = run.listen.iter().find(|listen| listen.per_worker).filter(|_| run.workers == 1);
    let Some(name) = own.map(|listen| &listen.name) else { return };
    const FIX: &str = "write run.workers = 4, for example, or leave run.listen.per_worker out";
    if table.has("workers") {
        table.wrong("workers", format!("is 1, and listener {name:?} has per_worker = true"), FIX);
    } else if table.has("listen") {
        table.missing("workers", FIX);
    }
}

fn read_split(table: &mut Table<'_, '_>, run: &mut RunSettings) {
    table.set("split", &mut run.split, |value| part(value).map(Some));
    let whole = run.listen.iter().find(|listen| listen.is_one_place());
    if whole.is_none() && !run.listen.is_empty() {
        return;
    }
    if table.has("split") {
        match whole {
            Some(listen) => {
                let is = format!(
                    "is not possible with listener {:?}, a Unix socket: its path leads to one generation",
                    listen.name
                );
                table.wrong(
                    "split",
                    is,
                    "write handover = \"proxy\" for the listener, or leave run.split out",
                );
            }
            None => {
                let fix = "leave it out: there are no connections to divide";
                table.wrong("split", "is for programs with run.listen", fix);
            }
        }
    }
    run.split = None;
}

fn part(value: &DeValue<'_>) -> Result<Share, Wrong> {
    match value::share(value)? {
        Share::NONE => Err(Wrong::new("is nothing", "write more than 0%, such as \"5%\"")),
        share => Ok(share),
    }
}

fn read_keep_warm(table: &mut Table<'_, '_>, run: &mut RunSettings) {
    table.set("keep_warm", &mut run.keep_warm, |value| value::duration(value).map(Some));
    if !run.listen.is_empty() {
        return;
    }
    if table.has("keep_warm") {
        let fix = "leave it out: a worker that stood by would go on working";
        table.wrong("keep_warm", "is for programs with run.listen", fix);
    }
    run.keep_warm = None;
}

fn read_overlap(table: &mut Table<'_, '_>, run: &mut RunSettings) {
    table.set("overlap", &mut run.overlap, value::boolean);
    if run.listen.is_empty() {
        return;
    }
    if table.has("overlap") {
        table.wrong(
            "overlap",
            "is for programs without run.listen",
            "leave it out: the new generation always starts beside the old one",
        );
    }
    run.overlap = true;
}
