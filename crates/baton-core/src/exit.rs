//! How a program ended, in numbers for the engine and in one sentence for people.

use alloc::format;
use alloc::string::String;

use crate::signal::Signal;
use crate::units::Millis;

/// Exit codes from here on mean "killed by the signal with the number above it", as shells have it.
const SIGNAL_BASE: u8 = 128;
/// What shells exit with when a program is there but cannot be run.
const CANNOT_RUN: u8 = 126;
/// What shells exit with when a program is not there.
const NOT_FOUND: u8 = 127;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It returned this exit code.
    Code(u8),
    /// A signal killed it.
    Signal(Signal),
    /// The kernel killed it because memory ran out. Bytes, as far as they are known.
    OutOfMemory {
        /// The most that the member ever used.
        peak: Option<u64>,
        /// What it may use.
        limit: Option<u64>,
    },
    /// It never ran.
    FailedToStart {
        /// What was attempted and why it failed: `there is no program "node" in PATH`.
        why: String,
        /// Whether the program was missing, as opposed to found and not runnable.
        not_found: bool,
    },
}

impl Exit {
    /// The exit code that tells the same: 128 + n for a signal, 127 or 126 for a program that never ran.
    pub fn code(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(signal) => signaled(*signal),
            Self::OutOfMemory { .. } => signaled(Signal::KILL),
            Self::FailedToStart { not_found: true, .. } => NOT_FOUND,
            Self::FailedToStart { not_found: false, .. } => CANNOT_RUN,
        }
    }

    /// Whether this is how a program ends that was asked to by `stop_signal`: with code 0, by that very
    /// signal, or, like uvicorn and Puma, with the code that stands for it.
    pub fn clean_after(&self, stop_signal: Signal) -> bool {
        match self {
            Self::Code(code) => *code == 0 || *code == signaled(stop_signal),
            Self::Signal(signal) => *signal == stop_signal,
            Self::OutOfMemory { .. } | Self::FailedToStart { .. } => false,
        }
    }

    /// The cause for people, when the program had run for `after`: `exit 1 after 0.8 s`.
    pub fn sentence(&self, after: Millis) -> String {
        let after = seconds(after);
        match self {
            Self::Code(code) => format!("exit {code} after {after}"),
            Self::Signal(signal) => format!("killed by {signal} after {after}"),
            Self::OutOfMemory { peak, limit } => {
                let amount = |bytes: Option<u64>| {
                    bytes.map_or_else(|| "unknown".into(), |bytes| format!("{} MiB", bytes / (1024 * 1024)))
                };
                let (peak, limit) = (amount(*peak), amount(*limit));
                format!("killed by the kernel for memory after {after}: peak {peak} of {limit}")
            }
            Self::FailedToStart { why, .. } => format!("could not start: {why}"),
        }
    }
}

fn signaled(signal: Signal) -> u8 {
    SIGNAL_BASE + signal.number() as u8
}

/// Like [`Millis`] shows it, but in tenths of a second where that says enough.
fn seconds(time: Millis) -> String {
    match time.0 {
        ms @ 100..=999 => format!("0.{} s", ms / 100),
        _ => format!("{time}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Exit {
        Exit::FailedToStart { why: "there is no program \"nod\" in PATH".into(), not_found: true }
    }

    #[test]
    fn every_end_has_the_code_that_shells_give_it() {
        for code in 0..=255 {
            assert_eq!(Exit::Code(code).code(), code);
        }
        for number in 1..=64 {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(i32::from(Exit::Signal(signal).code()), 128 + number);
        }
        assert_eq!(missing().code(), 127);
        assert_eq!(Exit::OutOfMemory { peak: None, limit: None }.code(), 137);
        let not_runnable = Exit::FailedToStart { why: String::new(), not_found: false };
        assert_eq!(not_runnable.code(), 126);
    }

    #[test]
    fn only_zero_and_the_signal_we_sent_are_a_clean_end_after_a_stop() {
        for number in 1..=64 {
            let stop = Signal::from_number(number).unwrap();
            for code in 0..=255 {
                let clean = code == 0 || i32::from(code) == 128 + number;
                assert_eq!(Exit::Code(code).clean_after(stop), clean, "{code} after {stop}");
            }
            for other in 1..=64 {
                let exit = Exit::Signal(Signal::from_number(other).unwrap());
                assert_eq!(exit.clean_after(stop), other == number, "{other} after {stop}");
            }
            assert!(!missing().clean_after(stop));
        }
    }

    #[test]
    fn an_end_reads_as_one_sentence() {
        let segv = Exit::Signal(Signal::from_number(11).unwrap());
        for (exit, ms, sentence) in [
            (Exit::Code(1), 800, "exit 1 after 0.8 s"),
            (Exit::Code(0), 42, "exit 0 after 42 ms"),
            (segv, 3000, "killed by SIGSEGV after 3 s"),
            (Exit::Code(86), 61_000, "exit 86 after 1 min 1 s"),
            (
                Exit::OutOfMemory { peak: Some(511 << 20), limit: Some(512 << 20) },
                2000,
                "killed by the kernel for memory after 2 s: peak 511 MiB of 512 MiB",
            ),
            (missing(), 1, "could not start: there is no program \"nod\" in PATH"),
        ] {
            assert_eq!(exit.sentence(Millis(ms)), sentence);
        }
    }
}
