//! What a program does when it is asked to stop.

use alloc::format;
use alloc::vec::Vec;

use super::finding::{Finding, Topic};
use super::kind::{Kind, kind_of};
use super::seen::{Idle, Process, Reaction, Request, Running, Seen, Stop};
use crate::exit::Exit;
use crate::run::RunSettings;
use crate::signal::Signal;
use crate::units::Millis;

/// What is left for less than this ends with its parent, as helpers do.
const LINGER: Millis = Millis(500);
/// Shells that wait for their child and pass no signal on.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];

pub(super) fn findings(run: &RunSettings, seen: &Seen) -> Vec<Finding> {
    let kind = kind_of(&seen.processes);
    let mut all: Vec<Finding> =
        seen.reaction.map(|reaction| signal(run, seen, kind, reaction)).into_iter().collect();
    let Some(stop) = &seen.stop else { return all };
    all.extend(stop.running.as_ref().map(|(request, became)| running(run, kind, request, *became)));
    all.extend(stop.idle.map(|idle| kept(kind, idle)));
    all.push(ended(run, kind, stop));
    all.extend(left(seen, stop));
    all.extend(dropped(run, kind, seen));
    all
}

/// Of processes that end at once when they are asked to stop, as they are when their main process takes long.
fn dropped(run: &RunSettings, kind: &Kind, seen: &Seen) -> Option<Finding> {
    let after = run.stop_tree_after.unwrap_or(Millis(run.drain.0 / 2));
    let who = match seen.drops() {
        _ if after >= run.drain => return None,
        Some(names) => format!("{names}: the stop signal ends these processes of it at once"),
        None if kind.asked_alone => format!("{} has processes that the stop signal ends at once", kind.name),
        None => return None,
    };
    let means = format!(
        "they get it {after} after the main process (run.stop_tree_after), whatever they work on then"
    );
    let set = match (run.drain.0 / 1000, run.drain.0 % 1000) {
        (seconds, 0) => format!("stop_tree_after = \"{seconds}s\" under [run], as long as run.drain"),
        _ => format!("stop_tree_after = \"{}ms\" under [run], as long as run.drain", run.drain.0),
    };
    Some(Finding::note(Topic::Processes, who, means).set(set))
}

/// What a program that finishes its work does on this signal, by its kind; none where the settings say it already.
fn better_signal(run: &RunSettings, kind: &Kind) -> Option<Signal> {
    (kind.stop_signal != run.stop_signal && run.stop_signal == Signal::TERM).then_some(kind.stop_signal)
}

fn is_shell(main: &Process) -> bool {
    SHELLS.contains(&main.name.as_str())
}

fn signal(run: &RunSettings, seen: &Seen, kind: &Kind, reaction: Reaction) -> Finding {
    let signal = run.stop_signal;
    if let Some(better) = better_signal(run, kind) {
        return Finding::bad(
            Topic::StopSignal,
            format!("it is {}, and is stopped by {signal}", kind.name),
            format!("{signal} makes it cut what is under way; {better} lets it finish"),
        )
        .set(format!("stop_signal = \"{}\" under [run]", short(better)));
    }
    let wrapped = seen.processes.len() > 1 && seen.processes.first().is_some_and(is_shell);
    match reaction {
        Reaction::Handles => Finding::fine(
            Topic::StopSignal,
            format!("it handles {signal}"),
            "it can finish what it has accepted",
        ),
        Reaction::Ends if wrapped => Finding::bad(
            Topic::StopSignal,
            format!("its main process is a shell, which ends at {signal} and does not pass it on"),
            "the program itself hears of the stop late, after run.stop_tree_after",
        )
        .set("`exec` before the program's name in the script, or the program itself as run.command"),
        Reaction::Ends if run.listen.is_empty() => Finding::note(
            Topic::StopSignal,
            format!("it has no handler for {signal}: the kernel ends it at once"),
            "what it works on at that moment is left half done",
        )
        .set(format!("a handler for {signal} that finishes the piece of work and then exits")),
        Reaction::Ends => Finding::bad(
            Topic::StopSignal,
            format!("it has no handler for {signal}: the kernel ends it at once"),
            "every request that runs at that moment is cut",
        )
        .set(kind.finish),
        Reaction::Ignores => Finding::bad(
            Topic::StopSignal,
            format!("it ignores {signal}"),
            format!("it is killed after run.drain ({}), with all that it has", run.drain),
        )
        .set(format!("another stop_signal under [run], or a handler for {signal}")),
    }
}

fn running(run: &RunSettings, kind: &Kind, request: &Request, became: Running) -> Finding {
    let topic = Topic::RunningRequest;
    match became {
        Running::Finished(status) if status < 500 => Finding::fine(
            topic,
            format!("{request}: finished, with {status}"),
            "a stop cuts no running request",
        ),
        Running::Finished(status) => Finding::bad(
            topic,
            format!("{request}: answered with {status}"),
            "it refuses what it has accepted already",
        )
        .set(kind.finish),
        Running::Cut => {
            let finding = Finding::bad(
                topic,
                format!("{request}: cut"),
                "a stop loses what is under way; in a reload what takes longer than the bake",
            );
            match better_signal(run, kind) {
                Some(better) => finding.set(format!("stop_signal = \"{}\" under [run]", short(better))),
                None => finding.set(kind.finish),
            }
        }
        Running::Unanswered => Finding::bad(
            topic,
            format!("{request}: not answered within run.drain ({})", run.drain),
            "what takes longer than that is killed",
        )
        .set("drain under [run], longer than the longest request"),
        Running::AnsweredBefore => Finding::note(
            topic,
            format!("{request}: answered before the stop"),
            "so nothing was under way, and what would become of it is not known",
        )
        .set("try again with --slow PATH, a path whose answer takes some seconds"),
    }
}

fn kept(kind: &Kind, idle: Idle) -> Finding {
    let topic = Topic::IdleConnection;
    match idle {
        Idle::NotKept => Finding::fine(topic, "it closes after every answer", "there are no idle connections"),
        Idle::LastRequest { told: true } => Finding::fine(
            topic,
            "a last request is answered, with `Connection: close`",
            "no client meets a connection that was just closed",
        ),
        Idle::LastRequest { told: false } => {
            Finding::fine(topic, "a last request is answered", "a request that is on its way is not lost")
        }
        Idle::Closed => Finding::note(
            topic,
            "closed at once",
            "a request just on its way meets a closed connection; HTTP clients send it again if it may be sent twice",
        )
        .set(kind.last_request),
        Idle::NotAnswered => Finding::note(
            topic,
            "kept open, but the next request is not answered",
            "a request just on its way is lost, unless its client sends it again",
        )
        .set(kind.last_request),
    }
}

fn ended(run: &RunSettings, kind: &Kind, stop: &Stop) -> Finding {
    let Stop { code, after, .. } = stop;
    let killed = *code == killed_code() && run.stop_signal != Signal::KILL;
    if killed {
        return Finding::bad(
            Topic::End,
            format!("killed {after} after the stop signal"),
            format!("it does not end within run.drain ({}): what it has then is lost", run.drain),
        )
        .set("let it exit when all is finished; or a longer drain under [run], if its work takes that long");
    }
    if let Some(time) = stop.held_by_silent {
        return Finding::note(
            Topic::End,
            format!("a connection that had sent nothing kept it from ending for {time}"),
            "browsers open such in advance: it would be killed after run.drain, with all that it has then",
        )
        .set(kind.silent);
    }
    let seen = format!("ended {after} after the stop signal, with {code}");
    if Exit::Code(*code).clean_after(run.stop_signal) {
        return Finding::fine(Topic::End, seen, format!("a clean end, within run.drain ({})", run.drain));
    }
    Finding::note(Topic::End, seen, "other than 0, or 128 and the signal's number: it looks like a crash")
        .set("exit code 0 at the end of a stop")
}

/// What a process that was killed ends with.
fn killed_code() -> u8 {
    Exit::Signal(Signal::KILL).code()
}

fn left(seen: &Seen, stop: &Stop) -> Option<Finding> {
    let (names, time) = &stop.left;
    if names.is_empty() || *time < LINGER {
        return None;
    }
    let set = match seen.processes.first() {
        Some(main) if is_shell(main) => "`exec` before the program's name in the script",
        Some(_) | None => "let the main process stop its children and wait for them",
    };
    Some(
        Finding::note(
            Topic::Processes,
            format!("when its main process had ended, {} lived on for {time}", names.join(", ")),
            "they are asked to stop only after run.stop_tree_after, half of run.drain if nothing is said",
        )
        .set(set),
    )
}

/// The name of a signal as settings have it: `QUIT`.
pub(super) fn short(signal: Signal) -> alloc::string::String {
    let name = format!("{signal}");
    name.strip_prefix("SIG").unwrap_or(&name).into()
}
