//! The settings of a program's process as lines of a manifest. What is not set, or at its
//! default, has no line.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::fault::TextError;
use super::lines::{Lines, Words, quote};
use super::run_lines::refused;
use crate::run::{OOM_SERVING, Process, SizeLimit, Stdin, is_mount_point};
use crate::units::Bytes;

/// The lines as (key, value), in the order of the manifest.
pub(super) fn write(process: &Process) -> Vec<(&'static str, String)> {
    let Process {
        user,
        group,
        umask,
        nice,
        nofile,
        nproc,
        core,
        memlock,
        stack,
        oom_score_adj,
        stdin,
        mount,
    } = process;
    let stdin = match stdin {
        Stdin::Null => None,
        Stdin::Inherit => Some("inherit".to_string()),
        Stdin::Listener(name) => Some(format!("listener {}", quote(name))),
    };
    [
        user.as_ref().map(|user| ("run.user", quote(user))),
        group.as_ref().map(|group| ("run.group", quote(group))),
        umask.map(|umask| ("run.umask", umask.to_string())),
        nice.map(|nice| ("run.nice", nice.to_string())),
        nofile.map(|nofile| ("run.nofile", nofile.to_string())),
        nproc.map(|nproc| ("run.nproc", nproc.to_string())),
        core.map(|core| ("run.core", size_limit(core))),
        memlock.map(|memlock| ("run.memlock", size_limit(memlock))),
        stack.map(|stack| ("run.stack", size_limit(stack))),
        (*oom_score_adj != OOM_SERVING).then(|| ("run.oom_score_adj", oom_score_adj.to_string())),
        stdin.map(|stdin| ("run.stdin", stdin)),
        mount.as_ref().map(|at| ("run.mount", quote(at))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Reads what [`write`] wrote.
pub(super) fn read(lines: &mut Lines<'_>) -> Result<Process, TextError> {
    Ok(Process {
        user: read_one(lines, "run.user", |words| words.quoted())?,
        group: read_one(lines, "run.group", |words| words.quoted())?,
        umask: read_one(lines, "run.umask", |words| words.value("a number"))?,
        nice: read_one(lines, "run.nice", |words| words.value("a number"))?,
        nofile: read_one(lines, "run.nofile", |words| words.value("a number"))?,
        nproc: read_one(lines, "run.nproc", |words| words.value("a number"))?,
        core: read_one(lines, "run.core", read_size_limit)?,
        memlock: read_one(lines, "run.memlock", read_size_limit)?,
        stack: read_one(lines, "run.stack", read_size_limit)?,
        oom_score_adj: read_one(lines, "run.oom_score_adj", |words| words.value("a number"))?
            .unwrap_or(OOM_SERVING),
        stdin: read_one(lines, "run.stdin", read_stdin)?.unwrap_or_default(),
        mount: read_one(lines, "run.mount", read_mount)?,
    })
}

fn read_mount(words: &mut Words<'_>) -> Result<String, TextError> {
    match words.quoted()? {
        path if is_mount_point(&path) => Ok(path),
        _ => Err(words.fault(refused("run.mount", "it is not an absolute path like /app"))),
    }
}

fn size_limit(limit: SizeLimit) -> String {
    match limit {
        SizeLimit::Unlimited => "unlimited".to_string(),
        SizeLimit::Bytes(Bytes(bytes)) => format!("bytes {bytes}"),
    }
}

fn read_size_limit(words: &mut Words<'_>) -> Result<SizeLimit, TextError> {
    match words.one_of(&[("unlimited", false), ("bytes", true)])? {
        false => Ok(SizeLimit::Unlimited),
        true => Ok(SizeLimit::Bytes(Bytes(words.value("a number")?))),
    }
}

fn read_stdin(words: &mut Words<'_>) -> Result<Stdin, TextError> {
    match words.one_of(&[("inherit", false), ("listener", true)])? {
        false => Ok(Stdin::Inherit),
        true => Ok(Stdin::Listener(words.quoted()?)),
    }
}

pub(super) fn read_one<T>(
    lines: &mut Lines<'_>,
    key: &'static str,
    read: impl FnOnce(&mut Words<'_>) -> Result<T, TextError>,
) -> Result<Option<T>, TextError> {
    let Some(mut words) = lines.take(key)? else { return Ok(None) };
    let value = read(&mut words)?;
    words.end()?;
    Ok(Some(value))
}

/// What of these is out of its range: what no kernel takes is refused before anything runs.
pub(super) fn check(process: &Process) -> Result<(), super::fault::Fault> {
    let within = |good: bool, key, why| if good { Ok(()) } else { Err(refused(key, why)) };
    within(process.umask.is_none_or(|umask| umask <= 0o777), "run.umask", "it is more than 0777")?;
    within(process.nice.is_none_or(|nice| (-20..=19).contains(&nice)), "run.nice", "it is not -20 to 19")?;
    within((-1000..=1000).contains(&process.oom_score_adj), "run.oom_score_adj", "it is not -1000 to 1000")?;
    let names = [("run.user", &process.user), ("run.group", &process.group)];
    for (key, name) in names {
        within(name.as_ref().is_none_or(|name| !name.contains('\0')), key, "it has a NUL character")?;
    }
    Ok(())
}
