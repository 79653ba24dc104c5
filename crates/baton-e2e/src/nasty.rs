//! Programs that are hard on whatever started them, as one program: `baton-nasty REPORT BEHAVIOUR [ARGUMENT ...]`.
//!
//! What it does is told line by line in the file `REPORT`, so that nothing depends on what an init makes of its
//! output. No shell is involved, since shells differ in what they do with signals and orphans.

mod crew;
mod orphans;
mod report;

use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use baton_core::signal::Signal;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::SignalFd;

use self::report::Report;

/// Runs one behaviour and returns the exit code that it ends with:
///
/// | behaviour | does |
/// | --- | --- |
/// | `exit CODE` | ends with this code |
/// | `listen TIMES CODE` | handles every signal and reports each; ends with this code at the TERM of this number |
/// | `ignore` | handles every signal by doing nothing |
/// | `stop-itself` | sends itself STOP, and does nothing more |
/// | `copy` | copies standard input to standard output |
/// | `write BYTES` | writes so much to standard output and error, whatever comes of it, reports it, and ends |
/// | `crew COUNT KIND NEEDS WHEN CODE` | starts workers (`crew`), and ends at TERM or at once |
/// | `orphans BROODS SIZE` | makes so many orphans, brood by brood, all of which then end at the same moment |
/// | `zombies BROODS SIZE` | the same with children that have ended before they lose their parent |
///
/// # Errors
/// For words that are none of these, and for what the kernel refuses.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [report, words @ ..] = arguments else {
        bail!("usage: baton-nasty REPORT BEHAVIOUR [ARGUMENT ...]");
    };
    let report = Report::open(report)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["exit", code] => return Ok(parse::<u8>(code)?.into()),
        ["listen", times, code] => return listen(&report, parse(times)?, parse(code)?),
        ["ignore"] => ignore(&report)?,
        ["stop-itself"] => stop_itself(&report)?,
        ["copy"] => drop(io::copy(&mut io::stdin(), &mut io::stdout())?),
        ["write", bytes] => write(&report, parse(bytes)?)?,
        ["crew", count, kind, needs, when, code] => {
            crew::lead(&report, parse(count)?, kind.parse()?, needs, when.parse()?)?;
            return Ok(parse::<u8>(code)?.into());
        }
        ["fork-away", needs] => crew::fork_away(&report, needs)?,
        ["worker", needs] => crew::work(&report, needs.parse()?)?,
        ["orphans", broods, size] => orphans::make(&report, "orphan-brood", parse(broods)?, parse(size)?)?,
        ["zombies", broods, size] => orphans::make(&report, "zombie-brood", parse(broods)?, parse(size)?)?,
        ["orphan-brood", size] => orphans::leave(&report, parse(size)?)?,
        ["zombie-brood", size] => orphans::leave_dead(&report, parse(size)?)?,
        ["orphan"] => drop(io::stdin().read(&mut [0])?),
        _ => bail!("{words:?} is no behaviour"),
    }
    Ok(ExitCode::SUCCESS)
}

fn parse<T: std::str::FromStr>(word: &str) -> anyhow::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    word.parse().with_context(|| format!("{word:?} is not what belongs there"))
}

/// Every signal that can be caught, as a stream; from now on none does what it does by default.
fn catch_all() -> anyhow::Result<SignalFd> {
    let every = SigSet::all();
    every.thread_block()?;
    Ok(SignalFd::new(&every)?)
}

fn next(signals: &SignalFd) -> anyhow::Result<Signal> {
    loop {
        if let Some(info) = signals.read_signal()?
            && let Some(signal) = i32::try_from(info.ssi_signo).ok().and_then(Signal::from_number)
        {
            return Ok(signal);
        }
    }
}

fn wait_for_term(signals: &SignalFd) -> anyhow::Result<()> {
    while next(signals)? != Signal::TERM {}
    Ok(())
}

fn listen(report: &Report, times: u32, code: u8) -> anyhow::Result<ExitCode> {
    let signals = catch_all()?;
    report.say("up")?;
    let mut terms = 0;
    while terms < times {
        let signal = next(&signals)?;
        report.say(&format!("got {}", signal.number()))?;
        terms += u32::from(signal == Signal::TERM);
    }
    Ok(code.into())
}

fn ignore(report: &Report) -> anyhow::Result<()> {
    let signals = catch_all()?;
    report.say("up")?;
    loop {
        next(&signals)?;
    }
}

fn stop_itself(report: &Report) -> anyhow::Result<()> {
    report.say("up")?;
    loop {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
    }
}

/// How much is written at once: more than a pipe's atomic 4 KiB, less than its 64 KiB.
const PIECE_BYTES: usize = 10_000;

fn write(report: &Report, bytes: usize) -> anyhow::Result<()> {
    let text = bytes_to_write(bytes);
    for piece in text.chunks(PIECE_BYTES) {
        // Nobody may be there to read it, and that must not be the program's end.
        let _ = io::stdout().write_all(piece).and_then(|()| io::stdout().flush());
        let _ = io::stderr().write_all(piece);
    }
    report.say("written")
}

/// What `write` writes: every byte there is, with lines of all lengths and without a line's end at the end.
pub fn bytes_to_write(count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(count as u64);
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(count).collect();
    if let Some(last) = bytes.last_mut() {
        *last = 0;
    }
    bytes
}

/// Another one of these programs, with the same report.
fn another(report: &Report, words: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg(report.path()).args(words).stdin(Stdio::null());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_has_every_byte_and_no_line_at_its_end() {
        let bytes = bytes_to_write(100_000);
        assert!((0..=255).all(|byte| bytes.contains(&byte)));
        assert_ne!(bytes.last(), Some(&b'\n'));
        assert_eq!(bytes, bytes_to_write(100_000));
    }

    #[test]
    fn a_word_that_is_no_behaviour_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        for words in [&["dance"][..], &["exit", "256"], &["listen", "1"], &[]] {
            let arguments: Vec<String> =
                std::iter::once(path.clone()).chain(words.iter().map(|word| (*word).to_owned())).collect();
            assert!(run(&arguments).is_err(), "{words:?}");
        }
    }
}
